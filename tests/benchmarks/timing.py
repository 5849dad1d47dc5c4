"""Time two implementations in turn, in CPU seconds, and make a row of the table of their ratios.

CPU seconds (user and system, all threads) do not grow when other programs run beside the benchmark; on a machine with
other work the interquartile range of a ratio is a few per cent, in wall time it was up to a half. What they hide: on
two idle cores two threads divide the computation, and what one thread does alone (Lightning's loop and ours) weighs
up to twice as much in wall time. ``--wall`` times that, on an idle machine.
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: the figure and what it is compared with.
        ours: the median of ours, in ``unit``.
        other: the median of the other, in ``unit``; None if it is compared with nothing.
        ratio: the median of the ratios of neighbours; for a row without neighbours the figure that the bar is for.
        quartiles: of the ratios.
        bar: the ratio is to be at most this; None if nothing is asked for.
        unit: of ours and other.
        note: what a reader has to know about the row.
    """

    name: str
    ours: float | None = None
    other: float | None = None
    ratio: float | None = None
    quartiles: tuple[float, float] | None = None
    bar: float | None = None
    unit: str = "ms"
    note: str = ""


def clock() -> float:
    """Return the CPU seconds of this process, or with ``--wall`` those of the clock."""
    return time.perf_counter() if os.environ.get("BENCHMARK_CLOCK") == "wall" else time.process_time()


def seconds(run: Callable[[], object]) -> float:
    """Time one run."""
    start = clock()
    run()
    return clock() - start


def row(name: str, pairs: Sequence[tuple[float, float]], bar: float | None = None, note: str = "", of: int = 1) -> Row:
    """Make a row of at least two ``pairs`` of seconds, ours and the other's, each for ``of`` repetitions.

    The machine's speed drifts, and the ratio of two neighbours does not: ratios are formed pair by pair.
    """
    ratios = [ours / other for ours, other in pairs]
    first, median, third = statistics.quantiles(ratios, n=4, method="inclusive")
    ours, other = (statistics.median(side) / of for side in zip(*pairs, strict=True))
    if ours >= 1:
        return Row(name, ours, other, median, (first, third), bar, "s", note)
    return Row(name, ours * 1e3, other * 1e3, median, (first, third), bar, "ms", note)


def compare(
    ours: Callable[[], object], other: Callable[[], object], rounds: int, warm_up: int = 1
) -> list[tuple[float, float]]:
    """Time both in turn, after some rounds that do not count."""
    return [(seconds(ours), seconds(other)) for _ in range(rounds + warm_up)][warm_up:]
