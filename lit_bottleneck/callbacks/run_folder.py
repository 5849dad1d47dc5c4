"""The folder of a run."""

from pathlib import Path

from lightning import Trainer
from lightning.pytorch.loggers import WandbLogger


def run_folder(trainer: Trainer) -> Path:
    """Return the folder of this run: that of its first logger, or the trainer's default folder without one.

    All runs of a ``WandbLogger`` have the same ``log_dir``; their folders are named by project and run id, as those of
    their checkpoints are.
    """
    logger = trainer.logger
    if isinstance(logger, WandbLogger) and logger.save_dir is not None:
        return Path(logger.save_dir, str(logger.name), str(logger.version))
    folder = None if logger is None else logger.log_dir
    return Path(folder or trainer.default_root_dir)
