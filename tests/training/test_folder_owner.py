"""The owner of a folder, with real processes that are forked, killed and kept waiting."""

import errno
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import lock_descriptor

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.training import folder_owner
from lit_bottleneck.training.folder_owner import (
    FILENAME,
    FolderInUseError,
    FolderOwner,
    one_at_a_time,
    seconds_to_its_end,
)

FORKED = multiprocessing.get_context("fork")


def run_forked(target: Callable[..., None], *args: Any) -> Any:
    """Start a function in a forked process."""
    process = FORKED.Process(target=target, args=args, daemon=True)
    process.start()
    return process


def own_until_killed(folder: Path, ready: Any, with_child: bool) -> None:
    """Own a folder, perhaps with a forked process that outlives this one, as loader workers do for seconds."""
    owner = FolderOwner(folder)
    if with_child and os.fork() == 0:
        ready.send(os.getpid())
        signal.pause()
    if not with_child:
        ready.send(os.getpid())
    signal.pause()
    owner.release(ended=True)


@pytest.mark.parametrize("with_child", [False, True])
def test_the_lock_vanishes_with_its_process_whatever_it_has_forked(with_child: bool, tmp_path: Path) -> None:
    receives, sends = FORKED.Pipe(duplex=False)
    process = run_forked(own_until_killed, tmp_path, sends, with_child)
    last = receives.recv()
    try:
        refused = rf"{tmp_path} is in use by process {process.pid} on \S+ since \d{{4}}-"
        with pytest.raises(FolderInUseError, match=refused):
            FolderOwner(tmp_path)
        process.kill()
        process.join()
        assert seconds_to_its_end(tmp_path) is None
        with FolderOwner(tmp_path):
            assert seconds_to_its_end(tmp_path) is None
    finally:
        if with_child:
            os.kill(last, signal.SIGKILL)  # so it was still there


def test_a_block_that_comes_to_its_end_notes_so(tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    with FolderOwner(tmp_path):
        pass
    assert seconds_to_its_end(tmp_path) == pytest.approx(0, abs=60)
    with pytest.raises(SystemExit), FolderOwner(tmp_path):
        raise SystemExit(0)
    assert seconds_to_its_end(tmp_path) is None
    assert seconds_to_its_end(tmp_path / "nowhere") is None
    (tmp_path / FILENAME).write_bytes(b"\xff[]")
    assert seconds_to_its_end(tmp_path) is None
    FolderOwner(tmp_path).release(ended=True)
    FolderOwner(tmp_path).release()
    assert seconds_to_its_end(tmp_path) is not None


def test_an_owner_that_leaves_nothing_leaves_no_lock_either(tmp_path: Path) -> None:
    with FolderOwner(tmp_path / "new" / "folder"):
        pass
    assert [*(tmp_path / "new/folder").iterdir()] == []


def test_who_has_opened_a_file_that_is_deleted_takes_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two processes would hold locks on two files of one name."""
    first = FolderOwner(tmp_path)

    def lock_late(descriptor: int, blocking: bool) -> bool:
        first.release(ended=True)  # which deletes the file
        return lock_descriptor(descriptor, blocking=blocking)

    monkeypatch.setattr(folder_owner, "lock_descriptor", lock_late)
    with FolderOwner(tmp_path), pytest.raises(FolderInUseError):
        FolderOwner(tmp_path)


def test_a_turn_leaves_nothing(tmp_path: Path) -> None:
    refused = pytest.raises(ConfigurationError, match="locked by another process")
    with one_at_a_time(tmp_path), refused, one_at_a_time(tmp_path, patience=0):
        pass
    assert [*tmp_path.iterdir()] == []


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "folder", tmp_path / ("x" * 300)):
        with pytest.raises(ConfigurationError, match=rf"{folder} cannot be written to: (File|Not)"):
            FolderOwner(folder)
        with pytest.raises(ConfigurationError, match="cannot be written to"), one_at_a_time(folder):
            pass


def test_a_file_system_without_locks_is_told_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_lock(descriptor: int, blocking: bool) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(folder_owner, "lock_descriptor", no_lock)
    with pytest.warns(UserWarning, match=r"no lock for .* \(No locks available\): start no second command"):
        owner = FolderOwner(tmp_path)
    (tmp_path / "file").touch()
    owner.release(ended=True)
    assert seconds_to_its_end(tmp_path) is not None


def test_a_lock_that_was_given_back_is_free(tmp_path: Path) -> None:
    owner = FolderOwner(tmp_path)
    owner.release(ended=False)
    owner.release(ended=True)  # nothing more
    with FolderOwner(tmp_path), pytest.raises(FolderInUseError, match=f"process {os.getpid()} on"):
        FolderOwner(tmp_path)
