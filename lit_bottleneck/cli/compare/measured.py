"""What the runs of a comparison have logged."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass

from lit_bottleneck.cli.compare.runs import Run

Series = list[tuple[int, float]]
Curves = dict[str, Series]


@dataclass(frozen=True)
class Measure:
    """A number of a run: a logged metric, and which of its values.

    Attributes:
        text: as it was asked for.
        name: of the metric.
        which: ``"last"``, ``"max"``, ``"min"``, or ``"until"``: the epochs until it is at least ``threshold``.
        threshold: of ``"until"``.
    """

    text: str
    name: str
    which: str = "last"
    threshold: float = math.nan

    def of(self, curves: Curves) -> float:
        """The number, NaN if the metric was not logged or never reached the threshold."""
        series = curves.get(self.name, [])
        values = [value for _, value in series]
        if self.which == "until":
            return next((float(epoch + 1) for epoch, value in series if value >= self.threshold), math.nan)
        if not values:
            return math.nan
        return {"last": values[-1], "max": max(values), "min": min(values)}[self.which]


def measure_of(text: str) -> Measure:
    """Read a measure: ``NAME``, ``NAME:max``, ``NAME:min`` or ``NAME:until=NUMBER``.

    Raises:
        ValueError: for anything else.

    >>> measure_of("val/accuracy:until=0.88").of({"val/accuracy": [(0, 0.8), (1, 0.9)]})
    2.0
    """
    name, _, which = text.partition(":")
    which, _, threshold = (which or "last").partition("=")
    try:
        number = float(threshold) if which == "until" else math.nan
    except ValueError:
        which = ""
        number = math.nan
    if not name or which not in ("last", "max", "min", "until"):
        raise ValueError(f"--metrics {text!r} must be NAME, NAME:max, NAME:min or NAME:until=NUMBER")
    return Measure(text, name, which, number)


def curves_of(run: Run) -> Curves:
    """Everything a run has logged: pairs of epoch (from 0) and value, by name."""
    curves: Curves = {}
    if not run.metrics_file.exists():  # of a run that logged nothing
        return curves
    epoch = 0
    with run.metrics_file.open() as file:
        for row in csv.DictReader(file):
            epoch = int(row.get("epoch") or epoch)  # some callbacks log without one
            for name, value in row.items():
                if value and name not in ("epoch", "step"):
                    curves.setdefault(name, []).append((epoch, float(value)))
    return curves


def default_measures(all_curves: Sequence[Curves]) -> list[Measure]:
    """The last value of everything that was measured in test, or else in validation."""
    names = sorted({name for curves in all_curves for name in curves})
    tested = [name for name in names if name.startswith("test/")]
    return [Measure(name, name) for name in tested or [name for name in names if name.startswith("val/")]]
