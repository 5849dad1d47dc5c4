"""The rows that a run has logged, for a checkpoint from which it may continue."""

from pathlib import Path

from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger

LOGGED = "logged"  # key in a checkpoint: the file of each logger's rows, or None


def logged(trainer: Trainer) -> list[str | None]:
    """Return the file of rows of each ``CSVLogger``; None for other loggers, and where nothing was logged."""
    return [_rows(Path(one.log_dir, "metrics.csv")) if isinstance(one, CSVLogger) else None for one in trainer.loggers]


def _rows(file: Path) -> str | None:
    return file.read_bytes().decode(errors="replace") if file.exists() else None
