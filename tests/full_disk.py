"""Disks without room: a limit of the process that the kernel enforces as it does a full disk, and a real small one."""

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """Have the kernel refuse to write further into any file: ``[Errno 27] File too large``."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """Mount a file system of a few MiB in memory; skip the test where that is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted: {error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607


def fill(file: Path, leave: int = 0) -> None:
    """Fill the disk with a file, except for some bytes."""
    disk = os.statvfs(file.parent)
    with file.open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, max(1, disk.f_bavail * disk.f_frsize - leave))
