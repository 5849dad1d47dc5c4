"""The rows that a stopped run has logged, up to the checkpoint from which it continues."""

import csv
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning_utilities.core.rank_zero import rank_zero_only, rank_zero_warn

KEPT = "metrics.kept.csv"  # the rows, while Lightning reopens their file
DAMAGED = "metrics.damaged.csv"
Row = dict[str, Any]


@rank_zero_only
def keep_logged(trainer: Trainer, until: int | None = None, saved: Sequence[str | None] = ()) -> None:
    """Keep the rows that a run has logged, which Lightning's CSVLogger would delete when it reopens the folder.

    Rows that the file lacks are taken from the checkpoint, with a warning.

    Args:
        trainer: a trainer whose loggers have not written yet.
        until: the last step to keep, if later steps will be logged again.
        saved: for each logger, the file as it was when the checkpoint was written.
    """
    for number, logger in enumerate(trainer.loggers):
        if not isinstance(logger, CSVLogger):
            continue
        file = Path(logger.log_dir, "metrics.csv")
        kept = file.with_name(KEPT)  # left over if the process was killed within this function
        if file.exists() and not kept.exists():
            file.replace(kept)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Experiment logs directory")
            writer = logger.experiment  # would delete the file
        of_checkpoint, _ = rows_of(saved[number] or "" if number < len(saved) else "")
        rows, is_damaged = rows_of(kept.read_bytes().decode(errors="replace")) if kept.exists() else ([], False)
        what = f"{file} is {'damaged' if kept.exists() else 'missing'}"
        if len(rows) < len(of_checkpoint):
            rank_zero_warn(f"{what}: its {len(of_checkpoint)} rows up to the resume point are restored from there")
            rows, is_damaged = of_checkpoint, kept.exists()
        elif is_damaged and until is None:
            rank_zero_warn(f"{what}: its first {len(rows)} rows are kept, and all that is left of it in {DAMAGED}")
        else:
            is_damaged = False  # where it is logged again
        writer.metrics = rows_until(rows, until, len(of_checkpoint))
        writer.save()
        if is_damaged:
            kept.replace(file.with_name(DAMAGED))
        kept.unlink(missing_ok=True)


def rows_of(text: str) -> tuple[list[Row], bool]:
    """Read rows up to the first that was cut or damaged; also return whether there is such a row.

    A line without an end is cut, and zeros are what a power failure leaves of a file.
    """
    whole = text[: text.rfind("\n", 0, text.find("\0") if "\0" in text else len(text)) + 1]
    lines = csv.DictReader(io.StringIO(whole, newline=""))
    rows: list[Row] = []
    try:
        for row in lines:
            if None in row or None in row.values():
                return rows, True  # too many or too few numbers
            int(float(row["step"] or -1))
            rows.append({name: value for name, value in row.items() if value})
    except (csv.Error, KeyError, ValueError, OverflowError):
        return rows, True
    return rows, whole != text


def rows_until(rows: list[Row], until: int | None, at_least: int = 0) -> list[Row]:
    """Return all rows, or those before the first one that is later than a step, but at least so many."""
    step = 0
    for number, row in enumerate(rows):
        of_row = int(float(row.get("step", -1)))  # a fraction, if the model logs a "step" of its own
        if until is not None and number >= at_least and not step <= of_row <= until:
            return rows[:number]
        step = of_row
    return rows


def logged_until(loop: dict[str, Any]) -> int:
    """Return the last step, as loggers count, that precedes a checkpoint."""
    epochs = loop["epoch_progress"]["current"]
    is_past_epoch: int = epochs["processed"] == epochs["started"]  # there the count is one ahead
    steps: int = loop["epoch_loop.state_dict"]["_batches_that_stepped"]
    return steps - is_past_epoch
