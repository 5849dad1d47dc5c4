"""Networks that pass on only what the task needs: VAE, VIB and VDB on one Gaussian bottleneck.

The public names are imported on first use, so that the command line starts without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lit_bottleneck.moved import keep_old_names

if TYPE_CHECKING:
    from lit_bottleneck.bottleneck import BottleneckLayer, GaussianBottleneck
    from lit_bottleneck.code import Code
    from lit_bottleneck.models.frozen_reward import FrozenReward
    from lit_bottleneck.models.imitation import VAIL
    from lit_bottleneck.models.imitation_transfer import VAIRL
    from lit_bottleneck.models.regressor import VIBRegressor
    from lit_bottleneck.models.vae import VAE
    from lit_bottleneck.models.vdb import VDBGAN
    from lit_bottleneck.models.vib import VIBClassifier
    from lit_bottleneck.objectives import ELBO, IWAE, BetaTC

__version__ = "0.1.0"

__all__ = [
    "ELBO",
    "IWAE",
    "VAE",
    "VAIL",
    "VAIRL",
    "VDBGAN",
    "BetaTC",
    "BottleneckLayer",
    "Code",
    "FrozenReward",
    "GaussianBottleneck",
    "VIBClassifier",
    "VIBRegressor",
]

_MODULES = {
    "bottleneck": ("BottleneckLayer", "GaussianBottleneck"),
    "code": ("Code",),
    "models.frozen_reward": ("FrozenReward",),
    "models.imitation": ("VAIL",),
    "models.imitation_transfer": ("VAIRL",),
    "models.regressor": ("VIBRegressor",),
    "models.vae": ("VAE",),
    "models.vdb": ("VDBGAN",),
    "models.vib": ("VIBClassifier",),
    "objectives": ("ELBO", "IWAE", "BetaTC"),
}

keep_old_names()


if not TYPE_CHECKING:  # a checker would take any name for one of the package

    def __getattr__(name: str) -> Any:
        for module, names in _MODULES.items():
            if name in names:
                return getattr(import_module(f"{__name__}.{module}"), name)
        try:
            return import_module(f"{__name__}.{name}")  # a folder, such as lit_bottleneck.beta
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise  # a dependency is missing
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from error


def __dir__() -> list[str]:
    return [*globals(), *__all__]
