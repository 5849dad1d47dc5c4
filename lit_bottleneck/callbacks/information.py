"""How much information the codes of a model carry."""

from typing import Any

from lightning import LightningModule, Trainer
from torch import Tensor

from lit_bottleneck.callbacks.measurement import Measurement, check_codes, code_of
from lit_bottleneck.checks import whole_number
from lit_bottleneck.metrics import MarginalMoments, MutualInformation, Rate
from lit_bottleneck.models.base import BottleneckModule

_OF_MOMENTS = ("marginal_kl", "total_correlation", "dimension_wise_kl", "predictability", "largest_correlation")


class Information(Measurement):
    """Account for the nats that pass a bottleneck, in test and, every few epochs, in validation.

    For any module with ``encode(x, sample=False) -> Code``, or with a bottleneck after its ``encoder``. Logged as
    ``val/...`` and ``test/...``, in nats:

    - ``information_lower``, ``information_upper``: estimates of bounds of I(z; x), and ``information_saturated``, 1
      where the lower one is near the highest value it can have and says little, see `metrics.MutualInformation`;
    - ``marginal_kl_lower``, ``marginal_kl_upper``: what is left of the rate, KL(p(z) || N(0, I));
    - ``active_units``, see `metrics.Rate`;
    - ``marginal_kl``, ``total_correlation``, ``dimension_wise_kl``, ``predictability``, ``largest_correlation``: of the
      codes as a Gaussian, see `metrics.MarginalMoments`.

    Of a GAN these are codes of real examples, and so is their rate, ``rate_real``.

    A deterministic code has no noise, and infinite information: of it only the last is logged, as far as it is finite.

    Args:
        max_codes: for the bounds of the information; their cost grows with its square.
        every_n_epochs: epochs from one measurement in validation to the next; 0: in test only.

    Raises:
        ValueError: for numbers out of range.
        TypeError: in ``setup``, for a module of which the codes cannot be had.
    """

    def __init__(self, max_codes: int = 10_000, every_n_epochs: int = 0) -> None:
        super().__init__(every_n_epochs)
        self.max_codes = whole_number("max_codes", max_codes, at_least=2)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module of which the codes cannot be had, before there is something to lose."""
        super().setup(trainer, pl_module, stage)
        check_codes(self, pl_module)

    def begin(self, trainer: Trainer, module: LightningModule) -> None:
        """Forget all codes."""
        self._moments = MarginalMoments().to(module.device)
        self._rate = Rate().to(module.device)
        self._information = MutualInformation(self.max_codes).to(module.device)

    def take_in(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Take in the codes of a batch."""
        with trainer.precision_plugin.val_step_context():
            code = code_of(module, BottleneckModule.inputs(batch))
        self._moments.update(code.mean, code.log_var)
        if not module.deterministic:
            self._rate.update(code.mean, code.log_var)
            self._information.update(code.mean, code.log_var)

    def results(self, trainer: Trainer, module: LightningModule) -> dict[str, Tensor]:
        """What the codes carry."""
        moments = self._moments.compute()
        found = {name: moments[name] for name in _OF_MOMENTS if moments[name].isfinite()}
        if not module.deterministic:
            bounds = self._information.compute()
            found |= {f"information_{name}": bounds[name] for name in ("lower", "upper", "saturated")}
            found |= {name: bounds[name] for name in ("marginal_kl_lower", "marginal_kl_upper")}
            found["active_units"] = self._rate.compute()["active_units"]
        return found
