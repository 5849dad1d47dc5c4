"""Callbacks that ``lit-bottleneck`` adds to those of a recipe."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping, ModelCheckpoint, ModelSummary
from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar
from lightning_utilities.core.rank_zero import rank_zero_info

from lit_bottleneck.callbacks import ProgressBar, RandomStates, ResumePoint
from lit_bottleneck.callbacks.last_checkpoint import LastCheckpoint
from lit_bottleneck.cli.optimizer_checks import OptimizerChecks
from lit_bottleneck.cli.trainer_checks import SettingChecks


def added_callbacks(trainer: Any, callbacks: Sequence[Callback], data: Any) -> list[Callback]:
    """Return progress bar, summary, and what checkpoints and an exact resume need, unless others are configured.

    Args:
        trainer: the arguments of the trainer, by name.
        callbacks: its callbacks.
        data: the datamodule, or None.
    """
    wanted: list[tuple[type[Callback], type[Callback]]] = [
        (RandomStates, RandomStates),
        (SettingChecks, SettingChecks),
        (OptimizerChecks, OptimizerChecks),
    ]
    if trainer.get("enable_progress_bar") is not False and not trainer.get("barebones"):
        wanted.append((LightningProgressBar, ProgressBar))
    if trainer.get("enable_model_summary") is not False and not trainer.get("barebones"):
        wanted.append((ModelSummary, ModelSummary))  # where rich is installed, Lightning's prints what tells nothing
    is_saved = trainer.get("enable_checkpointing") is not False
    is_saved = is_saved and not trainer.get("fast_dev_run") and not trainer.get("barebones")
    if is_saved:
        wanted.append((ResumePoint, ResumePoint))
    added = [ours() for kind, ours in wanted if not any(isinstance(callback, kind) for callback in callbacks)]
    reason = _no_validation(trainer, data)
    if reason:
        added += _instead_of_validation(reason, callbacks, is_saved)
    if is_saved and not trainer.get("model_registry"):  # for which Lightning's default checkpoint is another one
        if not any(isinstance(callback, Checkpoint) for callback in (*callbacks, *added)):
            added.append(ModelCheckpoint())  # Lightning's default, which it adds where there is no Checkpoint at all
        added.append(LastCheckpoint())
    return added


def _no_validation(trainer: Any, data: Any) -> str:
    """Return the setting by which there is no validation, or an empty string."""
    if getattr(data, "val_size", None) == 0:
        return "val_size=0"
    return "limit_val_batches=0" if trainer.get("limit_val_batches") == 0 else ""


def _instead_of_validation(reason: str, callbacks: Sequence[Callback], is_saved: bool) -> list[Callback]:
    """Report the callbacks that wait for validation; return a callback that saves the last weights instead."""
    waiting: list[Any] = [one for one in callbacks if str(getattr(one, "monitor", None)).startswith("val/")]
    if waiting:
        named = ", ".join(f"{type(callback).__name__}(monitor={callback.monitor!r})" for callback in waiting)
        rank_zero_info(f"{reason}: without validation these callbacks do nothing: {named}")
    for callback in waiting:
        if isinstance(callback, EarlyStopping):
            callback.strict = False  # else it raises an error where its metric is not logged
    keeps_last = any(isinstance(callback, ModelCheckpoint) and callback not in waiting for callback in callbacks)
    return [ModelCheckpoint(filename="last")] if is_saved and not keeps_last else []
