"""How the C library treats memory that a training step has freed."""

import ctypes
import sys
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGE = 2**30 - 1  # bytes


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next step.

    By default it gives gradients and activations of megabytes back to the operating system when they are freed, and
    fetches them again in the next step, page by page: thousands of page faults, up to a third of the time of a step on
    a CPU. Elsewhere than on Linux with glibc this does nothing.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_M_MMAP_THRESHOLD, _LARGE)
            mallopt(_M_TRIM_THRESHOLD, _LARGE)
