"""Files are written whole or not at all, and as ``open`` would have them."""

import errno
import multiprocessing
import os
import signal
import stat
import threading
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import PIL.Image
import pytest
import torch

from lit_bottleneck.training.whole_file import partial_folder, whole_file
from tests.full_disk import fill, no_file_longer_than, small_disk

FORK = multiprocessing.get_context("fork")

MANY = 2**18


def save(weight: torch.Tensor, path: Path) -> None:
    with path.open("wb") as file:
        torch.save({"weight": weight}, file)


WRITERS = {
    "text": lambda file: file.write_text("x" * MANY),
    "torch": lambda file: save(torch.ones(MANY), file),
    "picture": lambda file: PIL.Image.effect_noise((512, 512), 64).save(file),
    "figure": lambda file: matplotlib.figure.Figure(figsize=(9, 9)).savefig(file),
    "arrays": lambda file: np.savez(file, rows=np.zeros(MANY)),
}
NAMES = {"text": "one.txt", "torch": "one.ckpt", "picture": "one.png", "figure": "one.png", "arrays": "one.npz"}


def write(path: Path, text: str = "new") -> None:
    with whole_file(path) as file:
        file.write_text(text)


def test_a_file_is_moved_with_the_files_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model.onnx"
    with whole_file(path) as file:
        file.write_text("model")
        file.with_name("model.onnx.data").write_text("weights")
        assert not path.exists()
    assert (path.read_text(), path.with_name("model.onnx.data").read_text()) == ("model", "weights")
    assert sorted(part.name for part in path.parent.iterdir()) == ["model.onnx", "model.onnx.data"]


def write_half(path: Path) -> None:
    with whole_file(path) as file:
        file.write_text("new")
        raise RuntimeError("in the middle")


def test_an_error_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="in the middle"):
        write_half(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_keeps_the_old_file_and_the_error_names_the_new_one(kind: str, tmp_path: Path) -> None:
    path = tmp_path / NAMES[kind]
    path.write_text("old")
    with no_file_longer_than(1000), pytest.raises(OSError, match=str(path)) as raised, whole_file(path) as file:
        WRITERS[kind](file)
    assert raised.value.errno in (errno.EFBIG, None)  # Pillow does not tell
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_is_really_full_keeps_the_old_file(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", mebibytes=1) as disk:
        path = disk / "one.txt"
        path.write_text("old")
        fill(disk / "filler", leave=2**16)
        for kind in ("text", "torch"):
            with (
                pytest.raises(OSError, match=rf"\[Errno 28\] No space left on device: '{path}'"),
                whole_file(path) as file,
            ):
                WRITERS[kind](file)
            assert path.read_text() == "old"
            assert sorted(part.name for part in disk.iterdir()) == ["filler", "one.txt"]


def test_a_new_file_has_the_permissions_of_the_umask_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    for umask in (0o022, 0o077):
        before = os.umask(umask)
        try:
            write(path)
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
        path.unlink()
    path.write_text("old")
    path.chmod(0o640)
    write(path)
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o640)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("old")
    os.chown(path, 1234, 1234)
    write(path)
    assert (path.read_text(), path.stat().st_uid) == ("new", 1234)


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_one_and_what_it_leads_to_is_written(exists: bool, tmp_path: Path) -> None:
    target, link = tmp_path / "elsewhere" / "one.txt", tmp_path / "link.txt"
    target.parent.mkdir()
    if exists:
        target.write_text("old")
    link.symlink_to(target)
    write(link)
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_devices_are_written_to_and_stay() -> None:
    write(Path("/dev/null"))
    assert Path("/dev/null").is_char_device()
    with pytest.raises(OSError, match=r"\[Errno 28\] No space left on device: '/dev/full'"):
        write(Path("/dev/full"))
    assert not list(Path("/dev").glob(".part-*"))


def test_a_pipe_gets_the_whole_file(tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    write(pipe, "x" * MANY)
    reader.join(60)
    assert got == ["x" * MANY]
    assert pipe.is_fifo()


def test_what_is_no_place_for_a_file_is_refused_with_its_path(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.write_text("old")
    for path, kind in ((folder, IsADirectoryError), (file / "one", NotADirectoryError)):
        with pytest.raises(kind, match=str(path)):
            write(path)
    with pytest.raises(NotADirectoryError, match=str(file / "deep" / "one")):
        write(file / "deep" / "one")
    assert sorted(tmp_path.rglob("*")) == [file, folder]


def write_where_it_is_not_allowed(folder: Path, results: Any) -> None:
    os.setgid(12345)
    os.setuid(12345)  # root may write anywhere
    for name in ("read_only/one.txt", "read_only.txt"):
        try:
            write(folder / name)
        except OSError as error:
            results.put((type(error), str(error)))


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_folder_and_a_file_that_are_read_only_are_refused_with_their_path() -> None:
    results = FORK.Queue()
    with partial_folder(Path("/tmp")) as folder:  # noqa: S108  (pytest's own folder is root's alone)
        folder.chmod(0o755)
        (folder / "read_only").mkdir(mode=0o555)
        (folder / "read_only.txt").write_text("old")
        process = FORK.Process(target=write_where_it_is_not_allowed, args=(folder, results))
        process.start()
        for name in ("read_only/one.txt", "read_only.txt"):
            assert results.get(timeout=60) == (PermissionError, f"[Errno 13] Permission denied: '{folder / name}'")
        process.join()
        assert (folder / "read_only.txt").read_text() == "old"


def write_and_be_killed(path: Path) -> None:
    with whole_file(path) as file:
        file.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_process_left_is_removed_by_the_next_writer_in_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("old")
    process = FORK.Process(target=write_and_be_killed, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    with whole_file(path) as file:
        file.write_text("of this process, which lives")
        write(tmp_path / "two.txt")
    assert sorted(part.name for part in tmp_path.iterdir()) == ["one.txt", "two.txt"]


def test_errors_of_other_files_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"), whole_file(tmp_path / "one.txt"):
        (tmp_path / "absent").read_text()
