"""The checkpoint from which a stopped run continues."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning_utilities.core.rank_zero import rank_zero_info

from lit_bottleneck.callbacks.logged import LOGGED, logged
from lit_bottleneck.callbacks.random_states import RandomStates, is_under_way
from lit_bottleneck.callbacks.run import run_folder
from lit_bottleneck.callbacks.run_stage import FILENAME, LOGGER_VERSIONS, mark_trained
from lit_bottleneck.callbacks.time_limit import is_over
from lit_bottleneck.checks import ConfigurationError, positive, whole_number
from lit_bottleneck.training.signals import Handlers, give_back, ignored, is_repeated, take_over


class ResumePoint(Callback):
    """Keep ``resume.ckpt`` in the run's folder during training; ``lit-bottleneck resume FOLDER`` continues from it.

    Written after the first optimizer step, then every few minutes, and on SIGTERM, SIGHUP and SIGINT (a time limit,
    preemption, a closed terminal, Ctrl+C), after which the process exits with status 128 + n; a second Ctrl+C ends it
    at once. A signal that the process ignores stays ignored. Removed when training is complete (by the command line
    after the test that follows); kept if a ``Timer`` (``max_time``) ended it. With ``RandomStates`` the resumed run is
    bit-identical.

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
        self.is_kept_for_test = False  # whether a command removes the file, after its test
        self._former: Handlers = {}
        self._writes = self._is_cut = False

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
            self._ignored = ignored()
            self._signal, self._signalled_at = 0, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle the signals from now on (Lightning's handler of SIGTERM, and others, would exit at once)."""
        self._leaving = 0
        self._is_staged = self._could_write = self._waits = False
        self._written_at, self._written_at_step = float("-inf"), trainer.global_step
        self._former = take_over(self._note, self._ignored)  # Lightning handles SIGTERM even if it is ignored

    def _note(self, signum: int, frame: FrameType | None) -> None:
        """Note a signal until training can stop."""
        if not self._signal:
            self._signal, self._signalled_at = signum, time.monotonic()
            if signum == signal.SIGINT:
                with suppress(OSError):  # print may be what is interrupted
                    os.write(2, b"\nstopping after the next whole step; Ctrl+C once more ends at once\n")
        elif is_repeated(signum, time.monotonic() - self._signalled_at):
            raise SystemExit(128 + signum)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Move the staged file to its place, now that its batch is logged; exit after a signal."""
        self._step_before = trainer.global_step
        self._put_in_place(trainer)
        if self._leaving:
            name = signal.Signals(self._leaving).name
            rank_zero_info(f"stopped by {name}. To go on: lit-bottleneck resume {self._path.parent}")
            raise _exit(trainer, self._leaving)

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
        """Remove the file, unless a timer ended the training, or it waits for the test."""
        give_back(self._former)
        self._is_cut = is_over(trainer)
        if self._is_cut:
            self._put_in_place(trainer)
            rank_zero_info(f"to go on: lit-bottleneck resume {self._path.parent} --trainer.max_time LONGER")
        elif not self.is_kept_for_test:
            self._remove(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that only the test is left; hand on a signal that came when there was no step left to wait for."""
        self._is_cut = is_over(trainer)  # also where no training was left
        if self.is_kept_for_test and not self._is_cut:
            mark_trained(trainer, self._path)
        if signum := self._agreed_signal(trainer):
            signal.raise_signal(signum)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the previous handlers."""
        give_back(self._former)

    def complete(self, trainer: Trainer) -> None:
        """Remove the file, now that the run is tested, unless a timer ended the training."""
        if not self._is_cut:  # remembered: a timer takes the time of the checkpoint that is tested
            self._path = trainer.strategy.broadcast(run_folder(trainer) / FILENAME)
            self._remove(trainer)

    def _remove(self, trainer: Trainer) -> None:
        for path in (self._path.with_name(f".{FILENAME}"), self._path):
            trainer.strategy.remove_checkpoint(path)

    def _agreed_signal(self, trainer: Trainer) -> int:
        """Return the signal that any process has noted; 0 for none."""
        mine = torch.tensor(self._signal, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(mine, reduce_op="max"))

    def _write_if_due(self, trainer: Trainer) -> None:
        steps = trainer.global_step - self._written_at_step
        due = time.monotonic() - self._written_at > 60 * self.every_n_minutes
        due = due or (self.every_n_steps is not None and steps >= self.every_n_steps) or is_over(trainer)
        if not trainer.strategy.reduce_boolean_decision(due or bool(self._signal), all=False):
            return
        self._leaving = self._agreed_signal(trainer)
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


def _exit(trainer: Trainer, signum: int) -> SystemExit:
    """Return what ends this process; with status 0 where Lightning would kill the process that has started it."""
    is_started = isinstance(getattr(trainer.strategy, "cluster_environment", None), LightningEnvironment)
    status = 0 if is_started and trainer.local_rank > 0 else 128 + signum
    return SIGTERMException(status) if signum == signal.SIGTERM else SystemExit(status)


def _flush(trainer: Trainer) -> None:
    for logger in trainer.loggers:
        logger.save()
