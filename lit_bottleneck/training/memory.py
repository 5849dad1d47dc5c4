"""Reuse of memory that a training step frees."""

import ctypes
import sys
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGE = 2**30 - 1  # bytes


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next step.

    By default it returns freed gradients and activations of megabytes to the operating system and requests them again
    in the next step, page by page: thousands of page faults, up to a third of the time of a step on a CPU. Without
    Linux and glibc this does nothing.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_M_MMAP_THRESHOLD, _LARGE)
            mallopt(_M_TRIM_THRESHOLD, _LARGE)
