"""The metrics that the runs of a comparison logged."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lit_bottleneck.checks import ConfigurationError

Series = list[tuple[int, float]]
Curves = dict[str, Series]


@dataclass(frozen=True)
class Measure:
    """A number of a run: a logged metric, and which of its values.

    Attributes:
        text: the measure as the user wrote it.
        name: the metric's name.
        which: ``"last"``, ``"max"``, ``"min"``, or ``"until"``: the epochs until it is at least ``threshold``.
        threshold: the threshold of ``"until"``.
    """

    text: str
    name: str
    which: str = "last"
    threshold: float = math.nan

    def of(self, curves: Curves) -> float:
        """Return the number; NaN if the metric was not logged or never reached the threshold.

        The best value leaves out those that are NaN, as ``"until"`` does, wherever they stand; the last does not.
        """
        series = curves.get(self.name, [])
        if self.which == "until":
            return next((float(epoch + 1) for epoch, value in series if value >= self.threshold), math.nan)
        if self.which == "last":
            return series[-1][1] if series else math.nan
        known = [value for _, value in series if not math.isnan(value)]
        return {"max": max, "min": min}[self.which](known, default=math.nan)


def read_measure(text: str) -> Measure:
    """Parse ``NAME``, ``NAME:max``, ``NAME:min`` or ``NAME:until=NUMBER``.

    Raises:
        ConfigurationError: for any other text.

    >>> read_measure("val/accuracy:until=0.88").of({"val/accuracy": [(0, 0.8), (1, 0.9)]})
    2.0
    """
    name, _, which = text.partition(":")
    which, _, threshold = (which or "last").partition("=")
    try:
        number = float(threshold) if which == "until" else math.nan
    except ValueError:
        name, number = "", math.nan
    if not name or which not in ("last", "max", "min", "until"):
        raise ConfigurationError(f"--metrics must be NAME, NAME:max, NAME:min or NAME:until=NUMBER; got {text!r}")
    return Measure(text, name, which, number)


def read_curves(folder: Path) -> Curves:
    """Read a run's ``metrics.csv``: pairs of epoch (from 0) and value, by name; empty if there is no such file.

    Raises:
        ConfigurationError: if the file is damaged.
    """
    curves: Curves = {}
    file = folder / "metrics.csv"
    if not file.exists():  # the run logged nothing
        return curves
    epoch = 0
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                epoch = int(row.get("epoch") or epoch)  # some callbacks log without one
                for name, value in row.items():
                    if value and name not in ("epoch", "step"):
                        curves.setdefault(name, []).append((epoch, float(value)))
    except (ValueError, TypeError, csv.Error, OSError) as error:
        again = f"without the folder {folder}, the same command trains this run again"
        raise ConfigurationError(f"{file} is damaged: {error}; {again}") from error
    return curves


def default_measures(logged: Sequence[str]) -> list[Measure]:
    """Return the last value of every test metric, or of every validation metric if nothing was tested."""
    tested = [name for name in logged if name.startswith("test/")]
    return [Measure(name, name) for name in tested or [name for name in logged if name.startswith("val/")]]
