"""Freed memory stays with the process."""

import platform

import pytest
import torch

from lit_bottleneck.training.memory import keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_used_again() -> None:
    """Of 64 MiB, which glibc otherwise returns to the system at once: memory that is mapped anew is zero."""
    keep_freed_memory()
    for _ in range(3):
        torch.ones(2**24)
    assert (torch.empty(2**24) == 1).any()
