"""The last weights of a training in which no checkpoint was chosen."""

import math
from itertools import count
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning_utilities.core.rank_zero import rank_zero_info

from lit_bottleneck.callbacks.run import run_folder
from lit_bottleneck.checks import ConfigurationError


class LastCheckpoint(Checkpoint):
    """Write ``checkpoints/last.ckpt`` in the run's folder at the end of a training in which no checkpoint was chosen.

    A ``ModelCheckpoint`` may have chosen none: without validation, before its turn came, or by a monitored value that
    was not logged or never finite.
    """

    def __init__(self) -> None:
        self.best_model_path = ""
        self._validated = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier training."""
        if stage == "fit":
            self.best_model_path, self._validated = "", False

    def state_dict(self) -> dict[str, Any]:
        """Return the path of the checkpoint."""
        return {"best_model_path": self.best_model_path}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that a validation ran."""
        self._validated = self._validated or not trainer.sanity_checking

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the checkpoint and say why, if the training has no other."""
        if not trainer.global_step or _chosen(trainer):
            return
        path = trainer.strategy.broadcast(str(_path(trainer)))
        self.best_model_path = path  # the checkpoint names itself, as those of ``ModelCheckpoint`` do
        trainer.save_checkpoint(path, weights_only=False)
        callbacks: list[Any] = [one for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint)]
        reasons = "; ".join(f"{_named(callback)}: {self._reason(trainer, callback)}" for callback in callbacks)
        why = f"since no checkpoint was chosen ({reasons or 'there is no ModelCheckpoint'})"
        rank_zero_info(f"written: {path}, the last weights, of step {trainer.global_step}, {why}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write it too where a setting ends a training of one process, such as a monitored name that nobody logs."""
        is_of_early_stopping = isinstance(exception, RuntimeError) and str(exception).startswith("Early stopping cond")
        is_of_a_setting = isinstance(exception, (ConfigurationError, MisconfigurationException)) or is_of_early_stopping
        if is_of_a_setting and trainer.world_size == 1 and trainer.training:
            self.on_train_end(trainer, pl_module)

    def _reason(self, trainer: Trainer, callback: ModelCheckpoint) -> str:
        """Return why a callback chose no checkpoint."""
        if callback.best_model_path:
            return "it was never finite"
        if callback.monitor in (None, *trainer.callback_metrics) or callback.save_top_k == 0:
            return f"its turn did not come, save_top_k={callback.save_top_k}, every_n_epochs={callback.every_n_epochs}"
        if self._validated:
            return "it was never logged"
        batches: Any = trainer.num_val_batches  # a list, empty until a validation is set up
        if trainer.limit_val_batches == 0 or (isinstance(batches, list) and batches and not sum(batches)):
            return "there are no validation batches"
        return f"no validation ran, check_val_every_n_epoch={trainer.check_val_every_n_epoch}"


def chosen_checkpoints(trainer: Trainer) -> list[str]:
    """Return the checkpoints that were chosen in a training, or else the one of the last weights in its folder."""
    last = _path(trainer)
    is_alone = trainer.logger is not None and not trainer.fast_dev_run  # type: ignore[attr-defined]
    is_of_the_run = is_alone and last.is_file()  # other runs share a folder
    return _chosen(trainer) or [str(last)] * is_of_the_run


def _chosen(trainer: Trainer) -> list[str]:
    """Return the checkpoints that callbacks chose, but not by a value that is not finite."""
    found: list[Any] = trainer.checkpoint_callbacks
    paths = [getattr(one, "best_model_path", "") for one in found if _is_finite(getattr(one, "best_model_score", None))]
    return [path for path in paths if path]


def _is_finite(score: Any) -> bool:
    return score is None or math.isfinite(score)


def _path(trainer: Trainer) -> Path:
    """Return where the last weights go; in a folder that runs share, without a logger, to a name that is free."""
    folder = run_folder(trainer) / "checkpoints"
    names = (folder / f"last{f'-v{number}' if number else ''}.ckpt" for number in count())
    return next(path for path in names if trainer.logger is not None or not path.exists())


def _named(callback: ModelCheckpoint) -> str:
    return f"ModelCheckpoint(monitor={callback.monitor!r})"
