"""How much information the codes of a model carry."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from lit_bottleneck.arguments import whole_number
from lit_bottleneck.metrics import MarginalMoments, MutualInformation, Rate
from lit_bottleneck.module import BottleneckModule

_OF_MOMENTS = ("marginal_kl", "total_correlation", "dimension_wise_kl", "predictability", "largest_correlation")


class Information(Callback):
    """Account for the nats that pass a bottleneck, in test and, every few epochs, in validation.

    For any module with ``encode(x, sample=False) -> Code``. Logged as ``val/...`` and ``test/...``, in nats:

    - ``information_lower``, ``information_upper``: what I(z; x) is between, and ``information_saturated``, 1 where the
      lower bound is near the highest value it can have and says little, see `metrics.MutualInformation`;
    - ``marginal_kl_lower``, ``marginal_kl_upper``: what is left of the rate, KL(p(z) || N(0, I));
    - ``active_units``, see `metrics.Rate`;
    - ``marginal_kl``, ``total_correlation``, ``dimension_wise_kl``, ``predictability``, ``largest_correlation``: of the
      codes as a Gaussian, see `metrics.MarginalMoments`.

    A deterministic code has no noise, and infinite information: of it only the last is logged, as far as it is finite.

    Args:
        max_codes: for the bounds of the information; their cost grows with its square.
        every_n_epochs: epochs from one measurement in validation to the next; 0: in test only.

    Raises:
        ValueError: for numbers out of range.
        TypeError: in ``setup``, for a module that has no ``encode``.
    """

    def __init__(self, max_codes: int = 10_000, every_n_epochs: int = 0) -> None:
        self.max_codes = whole_number("max_codes", max_codes, at_least=2)
        self.every_n_epochs = whole_number("every_n_epochs", every_n_epochs, at_least=0)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module of which the codes cannot be had."""
        if not hasattr(pl_module, "encode"):
            raise TypeError(
                f"Information needs a module with encode(x, sample=False) -> Code; {type(pl_module).__name__} has none"
            )

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self._begin(pl_module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self._begin(pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take in the codes of a batch."""
        if dataloader_idx == 0 and self._is_due(trainer):
            self._add(pl_module, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take in the codes of a batch."""
        if dataloader_idx == 0:
            self._add(pl_module, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what the codes carry."""
        if self._is_due(trainer):
            self._log(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what the codes carry."""
        self._log(trainer, pl_module, "test")

    def _is_due(self, trainer: Trainer) -> bool:
        epoch = trainer.current_epoch + 1
        due = bool(self.every_n_epochs) and (epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs)
        return due and not trainer.sanity_checking

    def _begin(self, module: LightningModule) -> None:
        self._moments = MarginalMoments().to(module.device)
        self._rate = Rate().to(module.device)
        self._information = MutualInformation(self.max_codes).to(module.device)

    def _add(self, module: Any, batch: Any) -> None:
        code = module.encode(BottleneckModule.inputs(batch), sample=False)
        mean, log_var = code.mean, code.log_var
        self._moments.update(mean, log_var)
        if not module.deterministic:
            self._rate.update(mean, log_var)
            self._information.update(mean, log_var)

    def _log(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        moments = self._moments.compute()
        logged = {name: moments[name] for name in _OF_MOMENTS if moments[name].isfinite()}
        if not module.deterministic:
            bounds = self._information.compute()
            logged |= {f"information_{name}": bounds[name] for name in ("lower", "upper", "saturated")}
            logged |= {name: bounds[name] for name in ("marginal_kl_lower", "marginal_kl_upper")}
            logged["active_units"] = self._rate.compute()["active_units"]
        values = {f"{stage}/{name}": value for name, value in logged.items()}
        module.log_dict(values, sync_dist=trainer.world_size > 1)
