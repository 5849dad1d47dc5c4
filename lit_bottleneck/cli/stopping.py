"""A trainer within a command that a signal may stop."""

from collections.abc import Callable
from subprocess import Popen

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from lit_bottleneck.callbacks.run import run_folder
from lit_bottleneck.callbacks.run_stage import FILENAME
from lit_bottleneck.cli import signals


class KeepSignals(Callback):
    """Have the command handle SIGTERM, for which Lightning sets a handler just before each of these moments."""

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle signals until training begins."""
        signals.take_back()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle signals until ``ResumePoint`` does, if there is one."""
        signals.take_back()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle signals, but not within a training."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            signals.take_back()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle signals."""
        signals.take_back()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle signals."""
        signals.take_back()


def know_trainer(trainer: Trainer, take_processes: Callable[[Trainer], list["Popen[bytes]"]]) -> None:
    """Have the processes that a trainer starts end with the command, and its last line say how to go on."""

    def advice() -> str:
        folder = run_folder(trainer)
        return f". To go on: lit-bottleneck resume {folder}" if (folder / FILENAME).exists() else ""

    signals.know(lambda: take_processes(trainer), advice)
