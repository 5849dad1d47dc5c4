"""What is measured of a whole split: in test, and in validation every few epochs."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lit_bottleneck.checks import whole_number
from lit_bottleneck.code import Code

_KEY = "measured_epochs"  # in a checkpoint: the last one measured, for each of the trainer's measurements


class Measurement(Callback):
    """Measure something over all batches of the first dataloader, and log it as ``val/...`` and ``test/...``.

    A subclass begins anew (`begin`), takes in batches (`take_in`), and gives what it found (`results`).

    Args:
        every_n_epochs: epochs from one measurement in validation to the next; the last is measured too.
            0: in test only.

    Raises:
        ValueError: for a number below 0.
    """

    def __init__(self, every_n_epochs: int = 0) -> None:
        self.every_n_epochs = whole_number("every_n_epochs", every_n_epochs, at_least=0)
        self._measured = 0

    @abstractmethod
    def begin(self, trainer: Trainer, module: LightningModule) -> None:
        """Forget what was taken in."""

    @abstractmethod
    def take_in(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Take in a batch."""

    @abstractmethod
    def results(self, trainer: Trainer, module: LightningModule) -> Mapping[str, Tensor]:
        """What was found, by name, the same on all processes."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Count epochs from the start."""
        self._measured = 0

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store which epoch was measured last (not as a state of the callback, of which each kind may have but one)."""
        checkpoint[_KEY] = [callback._measured for callback in _measurements(trainer)]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on counting from that epoch."""
        measurements, measured = _measurements(trainer), checkpoint.get(_KEY, [])
        if len(measured) == len(measurements):
            self._measured = measured[measurements.index(self)]

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self.begin(trainer, pl_module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self.begin(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take in a batch, in the epochs that are measured."""
        if dataloader_idx == 0 and self.is_due(trainer):
            self.take_in(trainer, pl_module, batch, batch_idx)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take in a batch."""
        if dataloader_idx == 0:
            self.take_in(trainer, pl_module, batch, batch_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what was found, in the epochs that are measured."""
        if self.is_due(trainer):
            self.log_results(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what was found."""
        self.log_results(trainer, pl_module, "test")

    def is_due(self, trainer: Trainer) -> bool:
        """Whether this epoch is measured."""
        if trainer.sanity_checking or not self.every_n_epochs:
            return False
        epoch = trainer.current_epoch + 1
        last = epoch == trainer.max_epochs or 0 <= trainer.max_steps <= trainer.global_step
        fitting = trainer.state.fn == TrainerFn.FITTING
        return not fitting or last or epoch - self._measured >= self.every_n_epochs

    def log_results(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Log what was found, and forget what was taken in."""
        self._measured = trainer.current_epoch + 1
        values = {f"{stage}/{name}": value for name, value in self.results(trainer, module).items()}
        module.log_dict(values, sync_dist=trainer.world_size > 1)
        self.begin(trainer, module)


def _measurements(trainer: Any) -> list[Measurement]:
    return [callback for callback in trainer.callbacks if isinstance(callback, Measurement)]


def check_codes(who: Callback, module: Any) -> None:
    """Refuse a module of which `code_of` cannot have the codes.

    Raises:
        TypeError: that says what is needed.
    """
    if not hasattr(module, "encode") and not (hasattr(module, "bottleneck") and hasattr(module, "encoder")):
        raise TypeError(
            f"{type(who).__name__} needs a module with encode(x, sample=False) -> Code, or with a bottleneck after its "
            f"encoder; {type(module).__name__} has neither"
        )


def code_of(module: Any, x: Any) -> Code:
    """The codes of a batch of inputs, each at its mean, of any module with the mixin that `check_codes` lets pass."""
    if hasattr(module, "encode"):
        code: Code = module.encode(x, sample=False)
        return code
    passed: Code = module.bottleneck(module.encoder(x), sample=False)
    return passed
