"""Time two implementations in turn in one process."""

import statistics
import time
from collections.abc import Callable


def seconds(run: Callable[[], object]) -> float:
    """Time one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(ours: Callable[[], object], other: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Time both in turn, one round before counting.

    Returns:
        The medians of ours, of the other, and of the ratio ours / other round by round: the machine's speed drifts, and
        the ratio of two neighbours does not.
    """
    pairs = [(seconds(ours), seconds(other)) for _ in range(rounds + 1)][1:]
    ratios = [first / second for first, second in pairs]
    return (
        statistics.median(first for first, _ in pairs),
        statistics.median(second for _, second in pairs),
        statistics.median(ratios),
    )
