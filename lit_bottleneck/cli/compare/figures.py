"""Learning curves, the information plane, and the rate-distortion curve."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lit_bottleneck.cli.compare.measured import Curves, Series

AllCurves = Mapping[str, Sequence[Curves]]  # of an arm, one for each seed

_PLANE = ("test/information_lower", "test/information_upper")
_READ = ("test/cross_entropy_sampled", "test/accuracy")
_MANY_NATS = 20  # from where a linear axis would crowd few of them
_TRADE = ("test/rate", "test/distortion")


def draw_figures(names: Sequence[str], arms: AllCurves, out: Path, over_a_price: bool = False) -> list[Path]:
    """Draw what there is something to draw of.

    Args:
        names: of the metrics whose learning curves are drawn.
        arms: what was logged.
        out: the folder of the files.
        over_a_price: whether the arms differ in what a nat costs.

    Returns:
        The files: ``curves.png``; ``information_plane.png``, where the information was bounded; and
        ``rate_distortion.png`` over a price, where there are rates and distortions.
    """
    logged = {name for runs in arms.values() for curves in runs for name in curves}
    panels = _curve_names(names, logged)
    figures: dict[str, Figure] = {}
    if panels:
        figures["curves"] = _panels(panels, arms, _draw_curve)
    if logged >= set(_PLANE):
        read = [name for name in _READ if name in logged]
        if read:
            figures["information_plane"] = _panels(read, arms, _draw_plane)
    if over_a_price and logged >= set(_TRADE):
        figures["rate_distortion"] = _panels(_TRADE[1:], arms, _draw_trade)
    paths = []
    for name, figure in figures.items():
        paths.append(out / f"{name}.png")
        figure.savefig(paths[-1], dpi=120)
    return paths


def _panels(names: Sequence[str], arms: AllCurves, draw: Callable[[Axes, str, AllCurves], None]) -> Figure:
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(5 * columns, 4 * rows), layout="constrained")
    for place, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, place + 1)
        draw(axes, name, arms)
        axes.set_ylabel(name)
        if place == 0:
            axes.legend(fontsize="small")
    return figure


def _draw_curve(axes: Axes, name: str, arms: AllCurves) -> None:
    """Mean over the seeds by epoch, and a standard deviation to either side."""
    for colour, (arm, runs) in zip(_colours(len(arms)), arms.items(), strict=True):
        by_epoch: dict[int, list[float]] = {}
        for curves in runs:
            for epoch, value in _per_epoch(curves.get(name, [])):
                if math.isfinite(value):
                    by_epoch.setdefault(epoch, []).append(value)
        epochs = sorted(by_epoch)
        means = np.array([np.mean(by_epoch[epoch]) for epoch in epochs])
        spreads = np.array([np.std(by_epoch[epoch]) for epoch in epochs])
        at = [epoch + 1 for epoch in epochs]
        axes.plot(at, means, label=arm, color=colour)
        axes.fill_between(at, means - spreads, means + spreads, color=colour, alpha=0.2, linewidth=0)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_plane(axes: Axes, name: str, arms: AllCurves) -> None:
    """Every run as the bracket of its information, at the height of what is read from it."""
    for colour, (arm, runs) in zip(_colours(len(arms)), arms.items(), strict=True):
        points = [[_last(curves, of) for of in (*_PLANE, name)] for curves in runs]
        for label, (lower, upper, height) in zip([arm, *[None] * len(points)], points, strict=False):
            axes.plot([lower, upper], [height, height], marker="|", color=colour, label=label)
    if axes.get_xlim()[1] > _MANY_NATS:  # from a collapsed code to one that all but copies its input
        axes.set_xscale("symlog", linthresh=1)
    axes.set_xlabel("I(z; x), nats: lower and upper bound")


def _draw_trade(axes: Axes, name: str, arms: AllCurves) -> None:
    """Every run as a point, and a line through the means of the arms."""
    means = []
    for colour, (arm, runs) in zip(_colours(len(arms)), arms.items(), strict=True):
        points = [(_last(curves, _TRADE[0]), _last(curves, name)) for curves in runs]
        points = [point for point in points if math.isfinite(sum(point))]
        if points:
            axes.scatter(*zip(*points, strict=True), color=colour, label=arm, zorder=2)
            means.append([float(np.mean(numbers)) for numbers in zip(*points, strict=True)])
    axes.plot(*zip(*sorted(means), strict=True), color="0.7", zorder=1)
    axes.set_xlabel("test/rate, nats")


def _curve_names(names: Sequence[str], logged: set[str]) -> list[str]:
    """What has a curve: of what is measured once, in test, its counterpart in validation, or else in training."""
    panels = []
    for name in names:
        stage, _, metric = name.partition("/")
        stages = (stage,) if stage in ("val", "train") else ("val", "train")
        panels += [f"{stage}/{metric}" for stage in stages if f"{stage}/{metric}" in logged][:1]
    return list(dict.fromkeys(panels))


def _per_epoch(series: Series) -> Series:
    """The mean of each epoch."""
    epochs: dict[int, list[float]] = {}
    for epoch, value in series:
        epochs.setdefault(epoch, []).append(value)
    return [(epoch, float(np.mean(values))) for epoch, values in epochs.items()]


def _last(curves: Curves, name: str) -> float:
    series = curves.get(name)
    return series[-1][1] if series else math.nan


def _colours(count: int) -> list[tuple[float, float, float, float]]:
    return [colormaps["viridis"](place / max(1, count - 0.5)) for place in range(count)]
