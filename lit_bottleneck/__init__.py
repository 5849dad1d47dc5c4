"""Networks that pass on only what the task needs: VAE, VIB and VDB on one Gaussian bottleneck."""

from lit_bottleneck.bottleneck import BottleneckLayer, GaussianBottleneck
from lit_bottleneck.code import Code
from lit_bottleneck.models.vae import VAE
from lit_bottleneck.models.vdb import VDBGAN
from lit_bottleneck.models.vib import VIBClassifier
from lit_bottleneck.moved import keep_old_names
from lit_bottleneck.objectives import ELBO, IWAE, BetaTC

__version__ = "0.1.0"

keep_old_names()

__all__ = [
    "ELBO",
    "IWAE",
    "VAE",
    "VDBGAN",
    "BetaTC",
    "BottleneckLayer",
    "Code",
    "GaussianBottleneck",
    "VIBClassifier",
    "__version__",
]
