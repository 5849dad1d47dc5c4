"""The checkpoint from which a stopped run continues."""

import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning_utilities.core.rank_zero import rank_zero_info

from lit_bottleneck.callbacks.logged import LOGGED, logged
from lit_bottleneck.callbacks.random_states import RandomStates, is_under_way
from lit_bottleneck.callbacks.run import run_folder
from lit_bottleneck.callbacks.time_limit import is_over
from lit_bottleneck.checks import ConfigurationError, positive, whole_number

FILENAME = "resume.ckpt"
LOGGER_VERSIONS = "logger_versions"  # key in a checkpoint: the version (run) of each logger


class ResumePoint(Callback):
    """Keep ``resume.ckpt`` in the run's folder during training; ``lit-bottleneck resume FOLDER`` continues from it.

    Written after the first optimizer step, then every few minutes, and on SIGTERM (a time limit, preemption), after
    which the process exits with status 143. Removed when training is complete; kept if a ``Timer`` (``max_time``) ended
    it. With ``RandomStates`` the resumed run is bit-identical.

    Written only after a batch that completes an optimizer step, is not the epoch's last, and triggers no validation, in
    an epoch of which no callback holds anything (``is_under_way``); in an epoch without such a batch, after its end. So
    a signal may wait for a validation, or for the end of an epoch.

    Args:
        every_n_minutes: minutes between two writes.
        every_n_steps: optimizer steps after which it is written too.

    Raises:
        ConfigurationError: for arguments that are not positive; in ``setup``, for a strategy whose checkpoints are
            folders.
    """

    def __init__(self, every_n_minutes: float = 5.0, every_n_steps: int | None = None) -> None:
        self.every_n_minutes = positive("every_n_minutes", every_n_minutes)
        self.every_n_steps = None if every_n_steps is None else whole_number("every_n_steps", every_n_steps, 1)
        self._writes = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Agree on the file; move this callback after those that change at a step, such as averages and checkpoints."""
        if stage == "fit":
            # private, but without it the format of a strategy's checkpoints is known only when one is written
            if getattr(trainer.strategy, "_state_dict_type", "full") != "full":
                way_out = "set trainer.strategy.init_args.state_dict_type=full"
                raise ConfigurationError(f"ResumePoint writes a file, and a sharded checkpoint is a folder: {way_out}")
            trainer_: Any = trainer  # its type does not declare callbacks
            trainer_.callbacks = sorted(trainer_.callbacks, key=lambda one: one is self)
            self._path: Path = trainer.strategy.broadcast(run_folder(trainer) / FILENAME)
            self._staged = self._path.with_name(f".{FILENAME}")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle SIGTERM from now on (Lightning's own handler would exit at once)."""
        self._stop_requested = self._leaving = self._is_staged = self._could_write = self._waits = False
        self._written_at, self._written_at_step = float("-inf"), trainer.global_step
        self._previous: Any = None
        if threading.current_thread() is threading.main_thread():

            def note(signum: int, frame: FrameType | None) -> None:
                if not self._stop_requested and trainer.strategy.launcher is not None:
                    trainer.strategy.launcher.kill(signum)  # forwards it to the processes it started
                self._stop_requested = True

            self._previous = signal.signal(signal.SIGTERM, note)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Move the staged file to its place, now that its batch is logged; exit after SIGTERM."""
        self._step_before = trainer.global_step
        self._put_in_place(trainer)
        if self._leaving:
            rank_zero_info(f"stopped by SIGTERM. To go on: lit-bottleneck resume {self._path.parent}")
            raise SIGTERMException(128 + signal.SIGTERM if trainer.is_global_zero else 0)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Write, if it is due and nothing is under way."""
        if not is_under_way(trainer, self._step_before):
            self._could_write = True
            self._write_if_due(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write, or wait until the epoch's end is complete, if no batch of the epoch allowed it."""
        self._waits = not self._could_write and trainer.is_last_batch  # not if a time limit cut the epoch
        self._could_write = False
        if not any(isinstance(one, RandomStates) for one in trainer.callbacks):  # type: ignore[attr-defined]
            self.on_epoch_boundary(trainer)

    def on_epoch_boundary(self, trainer: Trainer) -> None:
        """Write between two epochs, if it is due and no batch of the first allowed it; ``RandomStates`` calls it."""
        if self._waits:
            self._write_if_due(trainer)
        self._waits = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Flush the loggers, and store the versions (runs) of theirs, with every checkpoint."""
        _flush(trainer)
        checkpoint[LOGGER_VERSIONS] = [logger.version for logger in trainer.loggers]
        if self._writes:
            checkpoint[LOGGED] = logged(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the file, unless a timer ended the training."""
        self._stop_listening()
        if is_over(trainer):
            self._put_in_place(trainer)
            rank_zero_info(f"to go on: lit-bottleneck resume {self._path.parent} --trainer.max_time LONGER")
        else:
            for path in (self._staged, self._path):
                trainer.strategy.remove_checkpoint(path)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the previous handler of SIGTERM."""
        self._stop_listening()

    def _write_if_due(self, trainer: Trainer) -> None:
        steps = trainer.global_step - self._written_at_step
        due = time.monotonic() - self._written_at > 60 * self.every_n_minutes
        due = due or (self.every_n_steps is not None and steps >= self.every_n_steps) or is_over(trainer)
        if not trainer.strategy.reduce_boolean_decision(due or self._stop_requested, all=False):
            return
        self._leaving = trainer.strategy.reduce_boolean_decision(self._stop_requested, all=False)
        self._writes = True
        trainer.save_checkpoint(self._staged, weights_only=False)
        self._writes = False
        self._is_staged = True
        self._written_at, self._written_at_step = time.monotonic(), trainer.global_step

    def _put_in_place(self, trainer: Trainer) -> None:
        if self._is_staged:
            _flush(trainer)
            if trainer.is_global_zero:
                self._staged.replace(self._path)
            self._is_staged = False

    def _stop_listening(self) -> None:
        if getattr(self, "_previous", None) is not None:
            signal.signal(signal.SIGTERM, self._previous)
            self._previous = None


def _flush(trainer: Trainer) -> None:
    for logger in trainer.loggers:
        logger.save()
