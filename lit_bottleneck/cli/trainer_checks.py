"""Checks of a trainer that Lightning builds, and that would fail or do harm later."""

from collections.abc import Sequence
from pathlib import Path
from string import Formatter
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.optim.lr_scheduler import OneCycleLR

from lit_bottleneck.callbacks import RandomStates, ResumePoint
from lit_bottleneck.callbacks.last_checkpoint import LastCheckpoint
from lit_bottleneck.checks import ConfigurationError

_ALWAYS_KNOWN = ("epoch", "step")


def check_callbacks(callbacks: Sequence[Callback]) -> None:
    """Refuse callbacks that exclude each other, and file names that cannot be formatted.

    Raises:
        ConfigurationError: with the callback.
    """
    for kind in (ResumePoint, RandomStates, LastCheckpoint):
        several = sum(isinstance(callback, kind) for callback in callbacks)
        if several > 1:
            raise ConfigurationError(f"trainer.callbacks: there must be one {kind.__name__} at most; got {several}")
    keys = [one.state_key for one in callbacks if is_overridden("state_dict", one, parent=Callback)]
    repeated = next((key for key in keys if keys.count(key) > 1), None)
    if repeated is not None:
        raise ConfigurationError(
            f"trainer.callbacks: a checkpoint cannot tell two callbacks apart, {repeated}: keep one"
        )
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint):
            _check_filename(callback)


def _check_filename(callback: ModelCheckpoint) -> None:
    """Format the name of a checkpoint as it will be."""
    parts = Path(callback.filename or "").parts
    if ".." in parts or "/" in parts:
        raise ConfigurationError(
            "trainer.callbacks (ModelCheckpoint): filename must be a path within dirpath, which names the folder; "
            f"got {callback.filename!r}"
        )
    metrics: dict[str, Any] = {name: torch.tensor(1) for name in _ALWAYS_KNOWN}
    try:
        metrics |= {name: torch.tensor(0.5) for name in _names(callback.filename) if name not in metrics}
        callback.format_checkpoint_name(metrics)
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        words = "must be text with names and formats in braces, such as '{epoch:02d}-{val/loss:.3f}'"
        raise ConfigurationError(
            f"trainer.callbacks (ModelCheckpoint): filename {words}; got {callback.filename!r}: {error}"
        ) from error


def _names(filename: str | None) -> list[str]:
    """Return the names of the metrics in a checkpoint's file name."""
    return [name for _, name, _, _ in Formatter().parse(filename or "") if name]


def check_processors(trainer: Any) -> None:
    """Refuse devices that a CPU does not have, which Lightning answers with a traceback.

    Args:
        trainer: the arguments of the trainer, by name.

    Raises:
        ConfigurationError: with the devices.
    """
    accelerator, devices = trainer.get("accelerator", "auto"), trainer.get("devices", "auto")
    is_counted = isinstance(devices, int) or str(devices).strip().isdigit()
    others = torch.cuda.is_available() or torch.backends.mps.is_available()
    is_cpu = accelerator == "cpu" or (accelerator == "auto" and not others)
    if is_cpu and devices != "auto" and (not is_counted or int(devices) < 1):
        raise ConfigurationError(
            f"trainer.devices: on a CPU must be auto, or a number of processes above 0; got {devices}"
        )


def check_trainer(trainer: Trainer) -> None:
    """Refuse what fails, or does harm, once a training is under way.

    Raises:
        ConfigurationError: with what to set instead.
    """
    if trainer.precision == "16-true" and trainer.strategy.root_device.type == "cpu":
        ranges = "weights and squared gradients leave the range of 16 bits"
        raise ConfigurationError(
            f"trainer.precision=16-true: {ranges}, on a CPU without a remedy: set bf16-true or 32-true"
        )
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if isinstance(trainer.strategy.checkpoint_io, AsyncCheckpointIO) and any(
        isinstance(one, ResumePoint) for one in callbacks
    ):
        late = "returns before a checkpoint is written, so that no resume point would be whole"
        raise ConfigurationError(f"trainer.plugins: AsyncCheckpointIO {late}: leave it out")


class SettingChecks(Callback):
    """Check settings that can be held against a training only: the length of a schedule, names in file names."""

    def __init__(self) -> None:
        self._validated = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a ``OneCycleLR`` that ends before the training, where it raises an error.

        Raises:
            ConfigurationError: with both lengths.
        """
        for config in trainer.lr_scheduler_configs if pl_module.automatic_optimization else []:
            if isinstance(config.scheduler, OneCycleLR):
                by_step = trainer.estimated_stepping_batches - trainer.global_step
                by_epoch = (trainer.max_epochs or -1) - trainer.current_epoch
                left = (by_step if config.interval == "step" else by_epoch) // config.frequency
                wanted, total = config.scheduler.last_epoch + left, config.scheduler.total_steps
                if total < wanted < float("inf"):
                    way_out = f"set total_steps={wanted}, or a shorter training"
                    raise ConfigurationError(
                        f"OneCycleLR: total_steps={total}, and the training has {wanted}: {way_out}"
                    )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that a validation ran."""
        self._validated = self._validated or not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a name in a checkpoint's file name that nobody logs, in whose place Lightning writes 0.

        Raises:
            ConfigurationError: with the names that were logged, once each callback had its turn.
        """
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        measuring = [one for one in callbacks if not isinstance(one, Checkpoint)]
        late = any((getattr(one, "every_n_epochs", 0) or 0) > trainer.current_epoch + 1 for one in measuring)
        if late or (trainer.enable_validation and not self._validated):
            return
        known = {*trainer.callback_metrics, *_ALWAYS_KNOWN}
        for callback in (one for one in callbacks if isinstance(one, ModelCheckpoint)):
            missing = [name for name in _names(callback.filename) if name not in known]
            if missing:
                words = f"names {missing[0]}, which was not logged; there are {', '.join(sorted(known))}"
                raise ConfigurationError(f"trainer.callbacks (ModelCheckpoint): filename={callback.filename!r} {words}")
