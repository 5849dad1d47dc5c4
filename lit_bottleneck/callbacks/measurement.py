"""Base of callbacks that measure a whole split: in test, and in validation every few epochs."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lit_bottleneck.checks import whole_number

_KEY = "measured_epochs"  # in a checkpoint: the last measured epoch of each of the trainer's measurements


class Measurement(Callback):
    """Measure all batches of the first dataloader, and log the results as ``val/...`` and ``test/...``.

    A subclass defines ``reset``, ``update`` and ``compute``, as a metric does.

    Args:
        every_n_epochs: epochs between two measurements in validation; the last epoch is measured too. 0: in test only.

    Raises:
        ConfigurationError: if ``every_n_epochs`` is negative.
    """

    def __init__(self, every_n_epochs: int = 0) -> None:
        self.every_n_epochs = whole_number("every_n_epochs", every_n_epochs, at_least=0)
        self._measured = 0

    @abstractmethod
    def reset(self, trainer: Trainer, module: LightningModule) -> None:
        """Drop what was measured so far."""

    @abstractmethod
    def update(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Measure a batch."""

    @abstractmethod
    def compute(self, trainer: Trainer, module: LightningModule) -> Mapping[str, Tensor]:
        """Return the results by name, the same on all processes."""

    def check_batch(self, trainer: Trainer, module: LightningModule, batch: Any) -> None:
        """Refuse a batch that cannot be measured.

        Called with the first batch of each validation of a training that is not measured, as is the sanity check.
        """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Count epochs from the start."""
        self._measured = 0

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the last measured epoch of all measurements.

        They share one key, since Lightning keeps a callback's own state by its class: two of a class would collide.
        """
        checkpoint[_KEY] = [callback._measured for callback in _measurements(trainer)]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Count on from the last measured epoch."""
        measurements, measured = _measurements(trainer), checkpoint.get(_KEY, [])
        if len(measured) == len(measurements):
            self._measured = measured[measurements.index(self)]

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset."""
        self.reset(trainer, pl_module)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *loader: int
    ) -> None:
        """Measure a batch of the first dataloader (``loader`` is empty with one), if the epoch is measured."""
        if any(loader):
            return
        if self.is_due(trainer):
            self.update(trainer, pl_module, batch, batch_idx)
        elif batch_idx == 0 and trainer.state.fn == TrainerFn.FITTING:
            self.check_batch(trainer, pl_module, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the results, if the epoch is measured."""
        if self.is_due(trainer):
            self.log_results(trainer, pl_module, "test" if trainer.testing else "val")

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]  # Lightning passes all by position
    on_test_epoch_end = on_validation_epoch_end

    def is_due(self, trainer: Trainer) -> bool:
        """Whether this epoch is measured; a test always is."""
        if trainer.testing:
            return True
        if trainer.sanity_checking or not self.every_n_epochs:
            return False
        epoch = trainer.current_epoch + 1
        last = epoch == trainer.max_epochs or 0 <= trainer.max_steps <= trainer.global_step
        fitting = trainer.state.fn == TrainerFn.FITTING
        return not fitting or last or epoch - self._measured >= self.every_n_epochs

    @property
    def prefix(self) -> str:
        """The part of the logged names between the split and the names of the results."""
        return ""

    def log_results(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Log the results, and reset."""
        self._measured = trainer.current_epoch + 1
        values = {f"{stage}/{self.prefix}{name}": value for name, value in self.compute(trainer, module).items()}
        module.log_dict(values, sync_dist=trainer.world_size > 1)
        self.reset(trainer, module)


def _measurements(trainer: Any) -> list[Measurement]:
    return [callback for callback in trainer.callbacks if isinstance(callback, Measurement)]
