"""The owner of a folder: one process at a time, by a lock that vanishes with its process.

The lock is on a hidden file, which says who owns the folder, or who owned it last and whether that process came to its
end. The file stays, as deleting it would let two processes lock two files of one name. Only an owner that leaves no
other file removes it; whoever waits for it looks whether it is still there.
"""

import json
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import lock_descriptor, unlock_descriptor

from lit_bottleneck.checks import ConfigurationError

FILENAME = ".owner.json"
_PAUSE = 0.05  # seconds between two attempts
_held: set[int] = set()  # descriptors of this process


def _close_in_child() -> None:
    """Close what a forked process, such as a loader worker, inherits: it would keep the lock after its parent's end."""
    while _held:
        with suppress(OSError):
            os.close(_held.pop())


if hasattr(os, "register_at_fork"):  # elsewhere no process is forked
    os.register_at_fork(after_in_child=_close_in_child)


class FolderInUseError(ConfigurationError):
    """Another process owns the folder."""


class FolderOwner:
    """Own a folder, which is made if need be, until ``release`` or the end of the process.

    As a context manager it notes whether the block came to its end. Where the file system has no locks, a warning says
    that nobody else is kept out.

    Args:
        folder: the folder.
        patience: seconds to wait for another process that owns it.

    Raises:
        FolderInUseError: if another process owns it, with its number.
        ConfigurationError: if it cannot be written to.
    """

    def __init__(self, folder: Path, patience: float = 0.0) -> None:
        self.folder = folder
        self._file = folder / FILENAME
        make_folder(folder)
        descriptor = _locked(self._file, patience)
        if descriptor is None:
            raise FolderInUseError(f"{folder} is in use by {_named(_read(self._file))}: wait for its end")
        self._descriptor = descriptor
        self._before = _text(self._file)
        self._began = time.time()
        self.note(ended=False)

    def note(self, ended: bool) -> None:
        """Note whether the owner came to its end."""
        now = time.time()
        note = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "began": self._began,
            "ended": now if ended else None,
        }
        self._write(json.dumps(note).encode())

    def release(self, ended: bool | None = None) -> None:
        """Give the folder back.

        Args:
            ended: whether its owner came to its end. Default: as the last one, if this one has changed nothing.
        """
        if self._descriptor not in _held:  # released before, or a copy in another process
            return
        if ended is None:
            self._write(self._before)
        else:
            self.note(ended)
        with suppress(OSError):
            if [*self.folder.iterdir()] == [self._file]:  # nothing was written
                self._file.unlink()
        _unlock(self._descriptor)
        self._descriptor = -1  # the number may be another file's soon

    def __enter__(self) -> "FolderOwner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release(ended=kind is None)

    def _write(self, text: bytes) -> None:
        with suppress(OSError):  # a full disk: the lock holds without a note
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            os.write(self._descriptor, text)
            os.ftruncate(self._descriptor, len(text))


def seconds_to_its_end(folder: Path) -> float | None:
    """Return how long the last owner of a folder worked in it; None if it has not come to its end."""
    note = _read(folder / FILENAME)
    try:
        return float(note["ended"] - note["began"])
    except (KeyError, TypeError):
        return None


@contextmanager
def one_at_a_time(folder: Path, patience: float = 60.0) -> Iterator[None]:
    """Run a short block in one process at a time, of all that name this folder; it leaves nothing there.

    Raises:
        ConfigurationError: if the folder cannot be written to, or another process stays within the block.
    """
    file = folder / ".turn"
    make_folder(folder)
    descriptor = _locked(file, patience)
    if descriptor is None:
        raise ConfigurationError(f"{file} is locked by another process for more than {patience:.0f} s")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        _unlock(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder, if it is not there.

    Raises:
        ConfigurationError: if it cannot be made.
    """
    with _written_to(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def _written_to(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be written to: {error.strerror}") from error


def _locked(file: Path, patience: float) -> int | None:
    """Return a descriptor with the lock on a file; None if another process has it all the time."""
    until = time.monotonic() + patience
    while True:
        with _written_to(file.parent):
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        _held.add(descriptor)
        if _is_locked(descriptor, file) and _is_still_there(descriptor, file):
            return descriptor
        _unlock(descriptor)
        if time.monotonic() > until and file.exists():
            return None
        time.sleep(_PAUSE)


def _is_locked(descriptor: int, file: Path) -> bool:
    try:
        return lock_descriptor(descriptor, blocking=False)
    except OSError as error:
        advice = "start no second command that writes there"
        warnings.warn(f"no lock for {file.parent} on its file system ({error.strerror}): {advice}", stacklevel=2)
        return True


def _is_still_there(descriptor: int, file: Path) -> bool:
    """Return whether nobody has deleted or replaced the file since it was opened."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), file.stat())
    return False


def _unlock(descriptor: int) -> None:
    _held.discard(descriptor)
    with suppress(OSError):
        unlock_descriptor(descriptor)
    os.close(descriptor)


def _text(file: Path) -> bytes:
    with suppress(OSError):
        return file.read_bytes()
    return b""


def _read(file: Path) -> dict[str, Any]:
    try:
        note = json.loads(_text(file))
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}


def _named(note: dict[str, Any]) -> str:
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(note["began"]))
        return f"process {note['process']} on {note['host']} since {since}"
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return "another process"
