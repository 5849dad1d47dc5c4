"""Estimates of the information that the codes of a model carry."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from lit_bottleneck.callbacks.code_measurement import CodeFunction, CodeMeasurement
from lit_bottleneck.checks import whole_number
from lit_bottleneck.metrics import MarginalMoments, MutualInformation, Rate
from lit_bottleneck.metrics.code_metric import checked_codes

_OF_MOMENTS = ("marginal_kl", "total_correlation", "dimension_wise_kl", "predictability", "largest_correlation")
_OF_BOUNDS = {f"information_{name}": name for name in ("lower", "upper", "saturated")} | {
    name: name for name in ("marginal_kl_lower", "marginal_kl_upper")
}


class Information(CodeMeasurement):
    """Estimate the information in the codes, in test and, every few epochs, in validation.

    For any module with ``encode(x, sample=False) -> Code``, with a bottleneck after its ``encoder`` or a
    ``BottleneckLayer`` at the encoder's end, or with codes that ``code`` returns. Logged as ``val/...`` and
    ``test/...``, in nats:

    - ``information_lower``, ``information_upper``: estimates of bounds of I(z; x), and ``information_saturated``, 1
      where the lower bound is close to the highest value that it can reach and says little, see
      ``metrics.MutualInformation``;
    - ``marginal_kl_lower``, ``marginal_kl_upper``: bounds of the rest of the rate, KL(p(z) || N(0, I));
    - ``active_units``, see ``metrics.Rate``;
    - ``marginal_kl``, ``total_correlation``, ``dimension_wise_kl``, ``predictability``, ``largest_correlation``: of a
      Gaussian with the moments of the codes, see ``metrics.MarginalMoments``.

    In a GAN these are the codes of real examples; their rate is logged as ``rate_real``.

    A code without noise has infinite information: only the finite ones of the last group are logged.

    With a mask all of these are of the code of one position, of which each unmasked one of each example counts.

    Args:
        max_codes: number of codes for the bounds, whose time grows with its square.
        max_dimensions: the largest K, with whose square memory grows, and with whose cube the time at the end.
        every_n_epochs: epochs between two measurements in validation; 0: in test only.
        code: from module and batch to a ``Code``, or to ``(Code, mask)`` with a mask ``(B, *positions)``; in a recipe
            its import path. Default: see above.
        dim: dimension of the K numbers of codes with a mask, as in ``bottleneck``: -1 for sequences ``(B, T, K)``.
        name: of these codes, where several are measured; then results are logged as ``test/name/...``.

    Raises:
        ConfigurationError: for numbers out of range; for codes that do not fit, see ``CodeMeasurement``.
    """

    def __init__(
        self,
        max_codes: int = 10_000,
        every_n_epochs: int = 0,
        code: CodeFunction | None = None,
        dim: int = 1,
        name: str = "",
        max_dimensions: int = 4096,
    ) -> None:
        super().__init__(every_n_epochs, code, dim, name)
        self.max_codes = whole_number("max_codes", max_codes, at_least=2)
        self.max_dimensions = whole_number("max_dimensions", max_dimensions, at_least=1)

    def reset(self, trainer: Trainer, module: LightningModule) -> None:
        """Drop all codes."""
        self._moments = MarginalMoments(max_dimensions=self.max_dimensions).to(module.device)
        self._rate = Rate().to(module.device)
        self._information = MutualInformation(self.max_codes, max_dimensions=self.max_dimensions).to(module.device)

    def update(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Add the codes of a batch."""
        code, mask = self.codes(trainer, module, batch)
        mean, log_var = checked_codes(code.mean, code.log_var, mask, self.dim)
        self._moments.update(mean, log_var)
        if (log_var > -torch.inf).all():
            self._rate.update(mean, log_var)
            self._information.update(mean, log_var)

    def compute(self, trainer: Trainer, module: LightningModule) -> dict[str, Tensor]:
        """Return bounds, moments and active units."""
        moments = self._moments.compute()
        results = {name: moments[name] for name in _OF_MOMENTS if moments[name].isfinite()}
        if moments["rate"].isfinite():  # the same on all processes
            bounds = self._information.compute()
            results |= {name: bounds[key] for name, key in _OF_BOUNDS.items()}
            results["active_units"] = self._rate.compute()["active_units"]
        return results
