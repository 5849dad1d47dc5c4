"""The figures of a comparison: which are drawn, and their data."""

import math
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from matplotlib.figure import Figure

from lit_bottleneck.cli.compare import figures
from lit_bottleneck.cli.compare.figures import draw_figures
from lit_bottleneck.cli.compare.table import markdown_table

TRAINED = {
    "val/accuracy": [(0, 0.5), (1, 0.7)],
    "train/loss": [(0, 3.0), (0, 1.0), (1, 1.0)],
    "test/accuracy": [(1, 0.6)],
}
BOUNDED = {"test/information_lower": [(1, 2.0)], "test/information_upper": [(1, 3.0)]}


def axes_of(figure: Figure) -> dict[str, object]:
    return {axes.get_ylabel(): axes for axes in figure.axes}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """Saved figures by file name."""
    saved: dict[str, Figure] = {}
    save = Figure.savefig

    def keep(figure: Figure, path: Path, **arguments: object) -> None:
        saved[Path(path).stem] = figure
        save(figure, path, **arguments)

    monkeypatch.setattr(figures.Figure, "savefig", keep)
    return saved


def test_curves_are_means_over_seeds_of_the_validation_counterparts(drawn: dict[str, Figure], tmp_path: Path) -> None:
    other = {**TRAINED, "val/accuracy": [(0, 0.7), (1, 0.9)]}
    names = ["test/accuracy", "test/loss", "val/accuracy", "last/accuracy"]
    [path] = draw_figures(names, {"a": [TRAINED, other], "b": []}, tmp_path)
    assert PIL.Image.open(path).size > (100, 100)
    axes = axes_of(drawn["curves"])
    assert list(axes) == ["val/accuracy", "train/loss"]
    [line, empty] = axes["val/accuracy"].get_lines()
    assert line.get_xydata() == pytest.approx(np.array([[1, 0.6], [2, 0.8]]))
    assert len(empty.get_xydata()) == 0
    assert axes["train/loss"].get_lines()[0].get_xydata().tolist() == [[1, 2.0], [2, 1.0]]


def test_the_band_is_the_sample_deviation_of_the_table(drawn: dict[str, Figure], tmp_path: Path) -> None:
    """Of 1, 2, 6 the mean is 3 and the variance (4 + 1 + 9) / (3 - 1) = 7; one seed has no deviation."""
    runs = [{"val/x": [(0, value), (1, 5.0)][: 1 + (value == 6)]} for value in (1.0, 2.0, 6.0)]
    draw_figures(["val/x"], {"a": runs}, tmp_path)
    [axes] = axes_of(drawn["curves"]).values()
    [band] = axes.collections
    corners = band.get_paths()[0].vertices
    at_first, at_second = (corners[corners[:, 0] == epoch][:, 1] for epoch in (1, 2))
    assert (at_first.min(), at_first.max()) == pytest.approx((3 - math.sqrt(7), 3 + math.sqrt(7)))
    assert at_second == pytest.approx(5.0)
    assert markdown_table(["x"], {"a": [{0: 1.0, 1: 2.0, 2: 6.0}]}).endswith("| 3 (2.6) |")


def test_values_that_are_not_finite_are_left_out(drawn: dict[str, Figure], tmp_path: Path) -> None:
    draw_figures(["val/x"], {"a": [{"val/x": [(0, math.nan), (1, 2.0)]}, {"val/x": [(0, math.inf)]}]}, tmp_path)
    [line] = axes_of(drawn["curves"])["val/x"].get_lines()
    assert line.get_xydata().tolist() == [[2, 2.0]]


def test_the_information_plane_shows_every_runs_bounds(drawn: dict[str, Figure], tmp_path: Path) -> None:
    arms = {"beta=1": [{**TRAINED, **BOUNDED}] * 2, "beta=2": [TRAINED]}
    paths = draw_figures(["test/accuracy"], arms, tmp_path)
    assert [path.name for path in paths] == ["curves.png", "information_plane.png"]
    [axes] = axes_of(drawn["information_plane"]).values()
    assert axes.get_lines()[0].get_xydata().tolist() == [[2.0, 0.6], [3.0, 0.6]]
    assert len(axes.get_lines()) == 3
    assert axes.get_xscale() == "linear"
    wide = {**TRAINED, **BOUNDED, "test/information_upper": [(1, 90.0)]}
    draw_figures(["test/accuracy"], {"beta=1": [wide]}, tmp_path)
    [axes] = axes_of(drawn["information_plane"]).values()
    assert axes.get_xscale() == "symlog"


def test_the_rate_distortion_curve_connects_the_arms(drawn: dict[str, Figure], tmp_path: Path) -> None:
    first = {"test/rate": [(0, 4.0)], "test/distortion": [(0, 2.5)]}
    arms = {"beta=1": [first], "beta=2": [{"test/rate": [(0, 2.0)], "test/distortion": [(0, 5.0)]}]}
    assert draw_figures([], arms, tmp_path) == []
    paths = draw_figures([], {**arms, "failed": []}, tmp_path, varies_rate=True)
    assert [path.name for path in paths] == ["rate_distortion.png"]
    [axes] = axes_of(drawn["rate_distortion"]).values()
    assert axes.get_lines()[0].get_xydata().tolist() == [[2.0, 5.0], [4.0, 2.5]]
