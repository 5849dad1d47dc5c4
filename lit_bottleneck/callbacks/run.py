"""A run as its callbacks see it: its folder, its data, and the share of a process."""

from os.path import expanduser  # which keeps the name of a user that does not exist
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger

from lit_bottleneck.models.batch import input_of


def run_folder(trainer: Trainer) -> Path:
    """Return the folder of this run: that of its first logger, or the trainer's default folder without one.

    All runs of a ``WandbLogger`` have the same ``log_dir``; their folders are named by project and run id, as those of
    their checkpoints are.
    """
    logger = trainer.logger
    if isinstance(logger, WandbLogger) and logger.save_dir is not None:
        return Path(expanduser(Path(logger.save_dir, str(logger.name), str(logger.version))))
    folder = None if logger is None else logger.log_dir
    return Path(expanduser(folder or trainer.default_root_dir))  # as the loggers themselves do


def of_data(trainer: Trainer, name: str) -> Any:
    """Return an attribute of the run's datamodule; None without a datamodule or the attribute."""
    return getattr(getattr(trainer, "datamodule", None), name, None)


def inputs_of(module: Any, batch: Any) -> Any:
    """Return the inputs of a batch as the module reads them, or of ``x``, ``(x, ...)`` or ``{"x": x, ...}``.

    Raises:
        ConfigurationError: if there are none.
    """
    return module.encoder_inputs(module.inputs(batch)) if hasattr(module, "encoder_inputs") else input_of(batch)


def value_range(trainer: Trainer, module: LightningModule) -> tuple[float, float] | None:
    """Return the pixels (black, white) of the datamodule's, or else the module's, ``value_range``."""
    known = of_data(trainer, "value_range") or getattr(module, "value_range", None)
    return None if known is None else (float(known[0]), float(known[1]))


def share(trainer: Trainer, total: int) -> int:
    """Return how many of ``total`` examples this process measures."""
    return total // trainer.world_size + (trainer.global_rank < total % trainer.world_size)
