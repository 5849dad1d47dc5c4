"""Denormal numbers, with which a CPU computes many times more slowly."""

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

import torch

_MANY = 2**17  # numbers, which torch shares out among all threads


def flush_denormals() -> bool:
    """Have the CPU take denormal numbers, below 1.2e-38 in float32, for 0 in all threads of this process.

    After some epochs many moments of Adam are denormal, and each later epoch takes up to 1.5 times as long. Call it
    once, at best before the first operation of torch: threads take the setting over when they are made. Where torch
    computes with libgomp, as on Linux, it reaches threads that exist, too. The command line calls it by itself, in its
    own processes alone; a trainer does with the callback ``FlushDenormals``. Forked processes, and the loader processes
    of this library's data, take the setting over; another process that is spawned has to call it.

    Returns:
        Whether all threads of torch do so.

    >>> flush_denormals() in (True, False)  # False where the processor cannot
    True
    >>> _ = torch.set_flush_denormal(False)
    """
    torch.set_flush_denormal(True)
    are_flushed = are_denormals_flushed()
    if not are_flushed and sys.platform == "linux":
        _set_in_threads_of_libgomp()
        are_flushed = are_denormals_flushed()
    return are_flushed


def are_denormals_flushed() -> bool:
    """Whether all threads of torch take denormal numbers for 0."""
    smallest = torch.ones(_MANY, dtype=torch.int32).view(torch.float32)  # by its bits: a conversion would flush it
    return bool((smallest * 1.0 == 0).all())


def _set_in_threads_of_libgomp() -> None:
    """Open a parallel region of the runtime that torch has loaded, in which each thread sets its own flag."""
    region = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda data: torch.set_flush_denormal(True) and None)
    with suppress(OSError, AttributeError):
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
        for library in {line.split(maxsplit=5)[-1] for line in maps.splitlines() if "libgomp" in line}:
            ctypes.CDLL(library).GOMP_parallel(region, None, 0, 0)
