"""Learning curves, the information plane, and the rate-distortion curve."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lit_bottleneck.cli.compare.metrics import Curves, Series, read_measure
from lit_bottleneck.training.whole_file import whole_file

AllCurves = Mapping[str, Sequence[Curves]]  # for each arm, one for each seed

_BOUNDS = ("test/information_lower", "test/information_upper")
_READOUTS = ("test/cross_entropy_sampled", "test/accuracy")
_MANY_NATS = 20  # beyond, a linear axis would crowd the small values
_RATE, _DISTORTION = "test/rate", "test/distortion"


def draw_figures(names: Sequence[str], arms: AllCurves, out: Path, varies_rate: bool = False) -> list[Path]:
    """Draw every figure whose metrics were logged.

    Args:
        names: the metrics whose learning curves are drawn.
        arms: the logged metrics.
        out: the folder for the files.
        varies_rate: whether the arms differ in beta or the capacity.

    Returns:
        The files: ``curves.png``; ``information_plane.png`` if the bounds of the information were logged; and
        ``rate_distortion.png`` if ``varies_rate`` and rate and distortion were logged.
    """
    logged = {name for runs in arms.values() for curves in runs for name in curves}
    readouts = [name for name in _READOUTS if name in logged]
    distortions = [_DISTORTION] if varies_rate and logged >= {_RATE, _DISTORTION} else []
    figures = {
        "curves": (_curve_names(names, logged), _draw_curve),
        "information_plane": (readouts if logged >= set(_BOUNDS) else [], _draw_information_plane),
        "rate_distortion": (distortions, _draw_rate_distortion),
    }
    paths = []
    for figure, (panels, draw) in figures.items():
        if panels:
            paths.append(out / f"{figure}.png")
            with whole_file(paths[-1]) as file:
                _panels(panels, arms, draw).savefig(file, dpi=120)
    return paths


def _panels(names: Sequence[str], arms: AllCurves, draw: Callable[[Axes, str, AllCurves], None]) -> Figure:
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(5 * columns, 4 * rows), layout="constrained")
    for place, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, place + 1)
        draw(axes, name, arms)
        axes.set_ylabel(name, parse_math=False)
        if place == 0:
            axes.legend(fontsize="small")
    return figure


def _draw_curve(axes: Axes, name: str, arms: AllCurves) -> None:
    """Draw the mean over the seeds by epoch, and a band of one standard deviation, as the table has it (n - 1)."""
    for colour, (arm, runs) in zip(_colours(len(arms)), arms.items(), strict=True):
        epoch_means = [point for curves in runs for point in _by_epoch(curves.get(name, []), np.mean)]
        finite = [(epoch, value) for epoch, value in epoch_means if math.isfinite(value)]
        at = [epoch + 1 for epoch, _ in _by_epoch(finite, np.mean)]
        means = np.array([value for _, value in _by_epoch(finite, np.mean)])
        spreads = np.array([value for _, value in _by_epoch(finite, _deviation)])
        axes.plot(at, means, label=arm, color=colour)
        axes.fill_between(at, means - spreads, means + spreads, color=colour, alpha=0.2, linewidth=0)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_information_plane(axes: Axes, name: str, arms: AllCurves) -> None:
    """Draw every run as a bracket from its lower to its upper bound, at the height of its readout."""
    for colour, (arm, runs) in zip(_colours(len(arms)), arms.items(), strict=True):
        points = [[read_measure(of).of(curves) for of in (*_BOUNDS, name)] for curves in runs]
        for label, (lower, upper, height) in zip([arm, *[None] * len(points)], points, strict=False):
            axes.plot([lower, upper], [height, height], marker="|", color=colour, label=label)
    if axes.get_xlim()[1] > _MANY_NATS:  # from collapsed codes to near copies of the input
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(left=min(0, axes.dataLim.x0))  # not the margin below 0, which this scale widens
    axes.set_xlabel("I(z; x), nats: lower and upper bound")


def _draw_rate_distortion(axes: Axes, name: str, arms: AllCurves) -> None:
    """Draw every run as a point, and a line through the means of the arms."""
    means = []
    for colour, (arm, runs) in zip(_colours(len(arms)), arms.items(), strict=True):
        points = [(read_measure(_RATE).of(curves), read_measure(name).of(curves)) for curves in runs]
        points = [point for point in points if math.isfinite(sum(point))]
        if points:
            axes.scatter(*zip(*points, strict=True), color=colour, label=arm, zorder=2)
            means.append([float(np.mean(numbers)) for numbers in zip(*points, strict=True)])
    axes.plot(*zip(*sorted(means), strict=True), color="0.7", zorder=1)
    axes.set_xlabel("test/rate, nats")


def _curve_names(names: Sequence[str], logged: set[str]) -> list[str]:
    """Return the names that have a curve: for a test metric its counterpart in validation, or else in training."""
    panels = []
    for name in names:
        stage, _, metric = name.partition("/")
        stages = (stage,) if stage in ("val", "train") else ("val", "train")
        panels += [f"{stage}/{metric}" for stage in stages if f"{stage}/{metric}" in logged][:1]
    return list(dict.fromkeys(panels))


def _by_epoch(points: Series, reduce: Callable[[list[float]], Any]) -> Series:
    """Reduce the values of each epoch to one."""
    epochs: dict[int, list[float]] = {}
    for epoch, value in points:
        epochs.setdefault(epoch, []).append(value)
    return [(epoch, float(reduce(epochs[epoch]))) for epoch in sorted(epochs)]


def _deviation(values: list[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _colours(count: int) -> list[tuple[float, float, float, float]]:
    return [colormaps["viridis"](place / max(1, count - 0.5)) for place in range(count)]
