"""Growth of time and memory with width, batch, evaluation samples and rows, as fitted exponents.

Each size is measured in a forked child with one thread: after a run at the smallest size and one that does not count,
CPU seconds (the median of three, or one run where that takes longer than a second), and then the peak of the resident
set above what the child held before the run. (``tracemalloc`` sees nothing of torch, and ``ru_maxrss`` cannot be set
back; writing 5 to ``/proc/self/clear_refs`` sets back ``VmHWM``, the peak that Linux keeps of a process. Freed memory
goes back to the system at once in that run, so that no new block is put into an old one.) Less than one MiB is not
told apart: it counts as one.

The exponent is the slope of the logarithm against that of the size, over the upper half of the sizes. A row's bar is
1.1, for what is linear and an error of measurement; rows of what is quadratic by nature have none, and a note says by
which argument it is bounded.
"""

import ctypes
import gc
import math
import multiprocessing
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.benchmarks.timing import Row, seconds

BAR = 1.1
SMALLEST = 2**20  # bytes
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@dataclass(frozen=True)
class Case:
    """Something whose growth is measured.

    Attributes:
        name: of what grows.
        prepare: makes the input of a size, and returns the function to measure.
        sizes: ascending.
        note: by which argument that is bounded which is above linear by nature.
    """

    name: str
    prepare: Callable[[int], Callable[[], object]]
    sizes: Sequence[int]
    note: str = ""


def rows(root: Path) -> Iterator[Row]:
    """Measure all cases; a row each for time and memory: the value at the largest size, and the exponent."""
    from tests.benchmarks.growth_cases import CASES

    for case in CASES:
        yield from rows_of(case)


def rows_of(case: Case) -> tuple[Row, Row]:
    """Measure one case."""
    measured = [in_child(case, size) for size in case.sizes]
    times, peaks = zip(*measured, strict=True)
    what = f"growth: {case.name}, {case.sizes[0]} to {case.sizes[-1]}"
    bar = None if case.note else BAR
    return (
        Row(f"{what}, time", times[-1] * 1e3, ratio=exponent(case.sizes, times), bar=bar, note=case.note),
        Row(f"{what}, memory", peaks[-1] / 2**20, ratio=exponent(case.sizes, peaks), bar=bar, unit="MiB"),
    )


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Return the slope of the log of values against that of sizes, over the upper half of the sizes (at least two)."""
    upper = slice(min(len(sizes) // 2, len(sizes) - 2), None)
    return float(np.polyfit(np.log(sizes[upper]), np.log(values[upper]), 1)[0])


def in_child(case: Case, size: int) -> tuple[float, float]:
    """Return ``measure`` of a forked child."""
    ours, theirs = multiprocessing.get_context("fork").Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_send, args=(theirs, case, size))
    child.start()
    theirs.close()
    try:
        found: tuple[float, float] = ours.recv()
    except EOFError as error:
        raise RuntimeError(f"{case.name} at {size} ended with status {child.exitcode}") from error
    finally:
        child.join()
    return found


def _send(pipe: Any, case: Case, size: int) -> None:
    torch.set_num_threads(1)  # threads of the parent do not live here
    gc.freeze()  # the parent's objects are not looked at, which would copy their pages
    pipe.send(measure(case, size))


def measure(case: Case, size: int) -> tuple[float, float]:
    """Return CPU seconds, and the peak of memory in bytes, of this process at one size."""
    torch.manual_seed(0)
    case.prepare(case.sizes[0])()
    run = case.prepare(size)
    first = seconds(run)
    repeat = max(1, min(200, math.ceil(0.02 / max(first, 1e-6))))
    rounds = 3 if first < 1 else 1  # the first, whose memory is new, does not count
    times = [seconds(lambda: [run() for _ in range(repeat)]) / repeat for _ in range(rounds)]
    return statistics.median(times), max(peak_of(run), SMALLEST)


def peak_of(run: Callable[[], object]) -> int:
    """Return the bytes by which a run raises the resident set of this process at its peak."""
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, 2**16)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**16)
    gc.collect()
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    run()
    return _resident("VmHWM") - before


def _resident(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) * 1024
