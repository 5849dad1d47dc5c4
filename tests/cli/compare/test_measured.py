"""Which number of a run is compared."""

import math
from pathlib import Path

import pytest

from lit_bottleneck.cli.compare.arms import Arm
from lit_bottleneck.cli.compare.measured import curves_of, default_measures, measure_of
from lit_bottleneck.cli.compare.runs import Run

CURVES = {"val/accuracy": [(0, 0.5), (1, 0.9), (2, 0.8)], "test/rate": [(3, 7.0)], "train/rate": [(0, 1.0)]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("val/accuracy", 0.8),
        ("val/accuracy:max", 0.9),
        ("val/accuracy:min", 0.5),
        ("val/accuracy:until=0.8", 2.0),
        ("test/rate", 7.0),
    ],
)
def test_a_measure_is_one_of_the_values(text: str, value: float) -> None:
    assert measure_of(text).of(CURVES) == value


@pytest.mark.parametrize("text", ["val/accuracy:until=0.95", "val/loss", "val/loss:max", "val/loss:until=1"])
def test_what_was_not_logged_or_reached_is_nan(text: str) -> None:
    assert math.isnan(measure_of(text).of(CURVES))


@pytest.mark.parametrize("text", ["val/accuracy:mean", ":max", "val/accuracy:until", "val/accuracy:until=soon"])
def test_other_measures_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="NAME:until=NUMBER"):
        measure_of(text)


def test_curves_are_read_by_epoch(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss,val/loss\n0,9,1.5,\n0,9,,2.5\n1,19,1.0,\n,20,3.0,\n")
    run = Run(Arm("a", ()), 0, tmp_path, {})
    assert curves_of(run) == {"train/loss": [(0, 1.5), (1, 1.0), (1, 3.0)], "val/loss": [(0, 2.5)]}
    assert curves_of(Run(Arm("a", ()), 0, tmp_path / "silent", {})) == {}


def test_by_default_all_of_the_test_is_compared_or_else_of_the_validation() -> None:
    assert [measure.text for measure in default_measures([CURVES, {"test/loss": [(0, 1.0)]}])] == [
        "test/loss",
        "test/rate",
    ]
    assert [measure.text for measure in default_measures([{"val/loss": [(0, 1.0)], "train/x": []}])] == ["val/loss"]
