"""The numbers of a run that are compared."""

import math
from pathlib import Path

import pytest

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli.compare.metrics import default_measures, read_curves, read_measure

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
def test_a_measure_picks_one_value_of_a_curve(text: str, value: float) -> None:
    assert read_measure(text).of(CURVES) == value


@pytest.mark.parametrize("text", ["val/accuracy:until=0.95", "val/loss", "val/loss:max", "val/loss:until=1"])
def test_a_metric_not_logged_or_a_threshold_not_reached_is_nan(text: str) -> None:
    assert math.isnan(read_measure(text).of(CURVES))


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_the_best_value_leaves_out_nan_wherever_it_stands(place: int) -> None:
    """Of 2, 3, 1 the largest is 3 and the smallest 1, also with a NaN anywhere; the last is what it is."""
    values = [2.0, 3.0, 1.0]
    values.insert(place, math.nan)
    curves = {"x": list(enumerate(values))}
    assert read_measure("x:max").of(curves) == 3
    assert read_measure("x:min").of(curves) == 1
    assert read_measure("x").of(curves) == pytest.approx(values[-1], nan_ok=True)
    nothing = {"x": [(0, math.nan), (1, math.nan)]}
    assert all(math.isnan(read_measure(f"x:{which}").of(nothing)) for which in ("max", "min"))


@pytest.mark.parametrize("text", ["val/accuracy:mean", ":max", "val/accuracy:until", "val/accuracy:until=soon"])
def test_unknown_measures_raise(text: str) -> None:
    with pytest.raises(ConfigurationError, match="NAME:until=NUMBER"):
        read_measure(text)


def test_curves_are_read_by_epoch(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss,val/loss\n0,9,1.5,\n0,9,,2.5\n1,19,1.0,\n,20,3.0,\n")
    assert read_curves(tmp_path) == {"train/loss": [(0, 1.5), (1, 1.0), (1, 3.0)], "val/loss": [(0, 2.5)]}
    assert read_curves(tmp_path / "none") == {}


def test_default_measures_are_all_test_metrics_or_else_all_validation_metrics() -> None:
    tested = default_measures([*sorted(CURVES), "test/recall"])
    assert [measure.text for measure in tested] == ["test/rate", "test/recall"]
    assert [measure.text for measure in default_measures(["train/x", "val/loss"])] == ["val/loss"]


@pytest.mark.parametrize(
    "content",
    [b"epoch,a\n\xff\x00,3\n", b"epoch,a\n0,three\n", b"epoch,a\n0,1,2\n", b"epoch,a\n\x00,\n", b'"' + b"x" * 200_000],
)
def test_damaged_rows_are_refused_by_their_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"metrics\.csv is damaged: .*the same command trains this run again"):
        read_curves(tmp_path)
