"""Estimates of the information that the codes of a model carry."""

from typing import Any

from lightning import LightningModule, Trainer
from torch import Tensor

from lit_bottleneck.callbacks.measurement import CodeMeasurement
from lit_bottleneck.checks import whole_number
from lit_bottleneck.metrics import MarginalMoments, MutualInformation, Rate
from lit_bottleneck.models.base import BottleneckModule

_OF_MOMENTS = ("marginal_kl", "total_correlation", "dimension_wise_kl", "predictability", "largest_correlation")
_OF_BOUNDS = {f"information_{name}": name for name in ("lower", "upper", "saturated")} | {
    name: name for name in ("marginal_kl_lower", "marginal_kl_upper")
}


class Information(CodeMeasurement):
    """Estimate the information in the codes, in test and, every few epochs, in validation.

    For any module with ``encode(x, sample=False) -> Code``, or with a bottleneck after its ``encoder``. Logged as
    ``val/...`` and ``test/...``, in nats:

    - ``information_lower``, ``information_upper``: estimates of bounds of I(z; x), and ``information_saturated``, 1
      where the lower bound is close to the highest value that it can reach and says little, see
      ``metrics.MutualInformation``;
    - ``marginal_kl_lower``, ``marginal_kl_upper``: bounds of the rest of the rate, KL(p(z) || N(0, I));
    - ``active_units``, see ``metrics.Rate``;
    - ``marginal_kl``, ``total_correlation``, ``dimension_wise_kl``, ``predictability``, ``largest_correlation``: of a
      Gaussian with the moments of the codes, see ``metrics.MarginalMoments``.

    In a GAN these are the codes of real examples; their rate is logged as ``rate_real``.

    A deterministic code has infinite information: only the finite ones of the last group are logged.

    Args:
        max_codes: number of codes for the bounds, whose cost grows with its square.
        every_n_epochs: epochs between two measurements in validation; 0: in test only.

    Raises:
        ConfigurationError: for numbers out of range; in ``setup``, for a module without codes.
    """

    def __init__(self, max_codes: int = 10_000, every_n_epochs: int = 0) -> None:
        super().__init__(every_n_epochs)
        self.max_codes = whole_number("max_codes", max_codes, at_least=2)

    def reset(self, trainer: Trainer, module: LightningModule) -> None:
        """Drop all codes."""
        self._moments = MarginalMoments().to(module.device)
        self._rate = Rate().to(module.device)
        self._information = MutualInformation(self.max_codes).to(module.device)

    def update(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Add the codes of a batch."""
        code = self.code(trainer, module, BottleneckModule.inputs(batch))
        self._moments.update(code.mean, code.log_var)
        if not module.deterministic:
            self._rate.update(code.mean, code.log_var)
            self._information.update(code.mean, code.log_var)

    def compute(self, trainer: Trainer, module: LightningModule) -> dict[str, Tensor]:
        """Return bounds, moments and active units."""
        moments = self._moments.compute()
        results = {name: moments[name] for name in _OF_MOMENTS if moments[name].isfinite()}
        if not module.deterministic:
            bounds = self._information.compute()
            results |= {name: bounds[key] for name, key in _OF_BOUNDS.items()}
            results["active_units"] = self._rate.compute()["active_units"]
        return results
