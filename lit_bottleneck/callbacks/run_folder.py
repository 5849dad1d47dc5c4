"""Where a run keeps its files."""

from pathlib import Path

from lightning import Trainer
from lightning.pytorch.loggers import WandbLogger


def run_folder(trainer: Trainer) -> Path:
    """The folder of this run alone: that of its first logger, or the trainer's default folder without one.

    (The ``log_dir`` of a WandbLogger is one folder for all runs; its run is told apart by its id, as by its
    checkpoints.)
    """
    logger = trainer.logger
    if isinstance(logger, WandbLogger) and logger.save_dir is not None:
        return Path(logger.save_dir, str(logger.name), str(logger.version))
    folder = None if logger is None else logger.log_dir
    return Path(folder or trainer.default_root_dir)
