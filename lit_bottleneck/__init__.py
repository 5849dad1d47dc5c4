"""Networks that pass on only what the task needs: VAE, VIB and VDB on one Gaussian bottleneck."""

from lit_bottleneck.bottleneck import BottleneckLayer, GaussianBottleneck
from lit_bottleneck.code import Code
from lit_bottleneck.objectives import ELBO, IWAE, BetaTC
from lit_bottleneck.vae import VAE
from lit_bottleneck.vdb import VDBGAN
from lit_bottleneck.vib import VIBClassifier

__version__ = "0.1.0"

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
