"""Which files below a folder are data, and how often."""

import os
import re
import socket
from pathlib import Path

import pytest

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data.folder_files import list_images, regular_files


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def found(root: Path) -> list[str]:
    return [Path(path).relative_to(root).as_posix() for path in regular_files(root)]


def test_all_files_in_alphabetical_order(tmp_path: Path) -> None:
    write(tmp_path, "b/2.png", "b/1.png", "a/deep/er/x.png", "c.png")
    assert found(tmp_path) == ["a/deep/er/x.png", "b/1.png", "b/2.png", "c.png"]


def test_names_that_begin_with_a_dot_are_passed_over_at_any_depth(tmp_path: Path) -> None:
    root = tmp_path / ".hidden but given"
    write(
        root,
        "a/1.png",
        "a/._1.png",
        ".git/x.png",
        "a/.ipynb_checkpoints/1-checkpoint.png",
        "a/b/.c/d/2.png",
        ".DS_Store",
    )
    (root / "a" / ".link.png").symlink_to(root / "a" / "1.png")
    assert found(root) == ["a/1.png"]


def test_loops_of_links_end(tmp_path: Path) -> None:
    write(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "here").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "self.png").symlink_to(tmp_path / "b" / "self.png")
    (tmp_path / "b" / "nothing.png").symlink_to(tmp_path / "b" / "missing.png")
    assert found(tmp_path) == ["a/1.png", "b/2.png"]


def test_a_file_counts_once_under_the_path_with_the_fewest_links(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root, "b/1.png", "c/2.png")
    write(tmp_path, "elsewhere/3.png", "elsewhere/4.png")
    (root / "a").mkdir()
    (root / "a" / "same.png").symlink_to(root / "b" / "1.png")
    os.link(root / "c" / "2.png", root / "a" / "hard.png")
    (root / "d").symlink_to(tmp_path / "elsewhere")
    (root / "e").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "other.png").symlink_to(tmp_path / "elsewhere" / "3.png")
    assert found(root) == ["a/hard.png", "a/other.png", "b/1.png", "d/4.png"]


def test_only_regular_files_count_and_nothing_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a/1.png")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "a" / "linked.png").symlink_to(tmp_path / "a" / "pipe.png")
    (tmp_path / "a" / "null.png").symlink_to("/dev/null")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("a/socket.png")
        assert found(tmp_path) == ["a/1.png"]
    assert regular_files(Path(".")) == ["./a/1.png"]


def test_classes_are_folders_and_empty_ones_are_none(tmp_path: Path) -> None:
    write(tmp_path, "bee/1.PNG", "ant/deep/2.jpeg")
    (tmp_path / "cat" / "empty").mkdir(parents=True)
    (tmp_path / "dog").mkdir()
    os.mkfifo(tmp_path / "dog" / "pipe.png")
    listing = list_images(tmp_path)["all"]
    assert listing.paths == [str(tmp_path / "ant/deep/2.jpeg"), str(tmp_path / "bee/1.PNG")]
    assert listing.classes == ["ant", "bee"]


def test_parts(tmp_path: Path) -> None:
    write(tmp_path, "train/a/1.png", "test/a/2.png", "val/a/3.png", "test/a/sub/4.png")
    parts = list_images(tmp_path)
    names = {part: [Path(path).name for path in listing.paths] for part, listing in parts.items()}
    assert names == {"train": ["1.png"], "val": ["3.png"], "test": ["2.png", "4.png"]}
    assert all(set(listing.classes) == {"a"} for listing in parts.values())


def test_empty_folders_of_parts_are_no_parts(tmp_path: Path) -> None:
    write(tmp_path, "a/1.png")
    for part in ("train", "test", "val"):
        (tmp_path / part / "a").mkdir(parents=True)
    assert list_images(tmp_path).keys() == {"all"}
    write(tmp_path, "train/a/1.png", "test/a/2.png")
    assert list_images(tmp_path).keys() == {"train", "test"}


def test_without_classes_images_have_none(tmp_path: Path) -> None:
    write(tmp_path, "2.png", "1.png", "notes/read me.txt")
    assert list_images(tmp_path)["all"].classes == ["", ""]
    write(tmp_path / "parts", "train/1.png", "test/2.png")
    assert {part: each.classes for part, each in list_images(tmp_path / "parts").items()} == {
        "train": [""],
        "test": [""],
    }


def test_what_is_left_out_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "train/a/1.png", "test/a/2.png")
    with caplog.at_level("INFO"):
        list_images(tmp_path)
    assert not caplog.messages
    write(tmp_path, "train/a/labels.csv", "validation/a/3.png")
    with caplog.at_level("INFO"):
        list_images(tmp_path)
    [message] = caplog.messages
    assert message.startswith(f"{tmp_path}: 2 files are left out, such as {tmp_path}/train/a/labels.csv")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["note.txt"], "{root} has no images; expected root/train"),
        ([], "{root} has no images; expected root/train"),
        (["Train/a/1.png", "Test/a/2.png"], "{root}/Test has the name of a part, not of a class"),
        (["training/a/1.png", "validation/a/2.png"], "{root}/training has the name of a part, not of a class"),
        (["train/a/1.png"], "{root}/train exists but {root}/test does not or is empty"),
        (["test/a/1.png"], "{root}/test exists but {root}/train does not or is empty"),
        (["train/a/1.png", "test/a/1.txt"], "{root}/test has no images"),
        (["a/1.png", "2.png"], "{root}/2.png has no class, {root}/a/1.png has: expected images in folders of classes"),
        (["a/1.png", "b/1.heic"], "{root}/b has files but no images, such as {root}/b/1.heic; known are .jpg"),
        (["train/a/1.png", "test/b/1.png"], "must have the same classes; they differ in ['a', 'b']"),
        (["train/a/1.png", "test/a/2.png", "val/b/1.png"], "{root}/train and {root}/val must have the same classes"),
        (["train/a/1.png", "test/2.png"], "must have the same classes; they differ in ['a', 'no class']"),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    write(tmp_path, *names)
    with pytest.raises(ConfigurationError, match=re.escape(message.format(root=tmp_path))):
        list_images(tmp_path)
