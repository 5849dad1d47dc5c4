"""Downloads are verified, cannot leave their folder, and appear whole or not at all."""

import errno
import multiprocessing
import os
import signal
import tarfile
import threading
from collections.abc import Iterator
from multiprocessing.context import ForkProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets
from tqdm import tqdm

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data import IMDB, Images, downloads, imdb_files
from lit_bottleneck.data.base import ExamplesDataModule
from lit_bottleneck.data.downloads import MissingDataError
from tests.data.local_mirror import Mirror, md5
from tests.data.written_reviews import FEW, regular, special, write_archive

IMAGES = ("MNIST", "FashionMNIST", "KMNIST", "CIFAR10", "CIFAR100", "SVHN")
EXTRACTED = ("CIFAR10", "CIFAR100")


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    (tmp_path / "published").mkdir()
    with Mirror(tmp_path / "published", monkeypatch).serving() as mirror:
        yield mirror


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "root"


def data(name: str, root: Path) -> ExamplesDataModule:
    return IMDB(root, max_length=20) if name == "IMDB" else Images(name, root, val_size=0)


def visible(root: Path) -> list[str]:
    """The files of a folder, without temporary ones."""
    paths = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if not path.as_posix().startswith("."))


def everything(name: str, root: Path) -> list[torch.Tensor]:
    made = data(name, root)
    return [part for dataset in map(made.dataset, ("train", "test")) for part in dataset[range(len(dataset))]]


@pytest.mark.parametrize("name", IMAGES)
def test_a_data_set_is_downloaded_once_and_read_pixel_for_pixel(name: str, root: Path, mirror: Mirror) -> None:
    parts = mirror.publish(name)
    data(name, root).prepare_data()
    assert visible(root) == [path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file()]
    assert visible(root) == sorted(Images(name).source.files)
    asked = len(mirror.requests)
    assert asked
    data(name, root).prepare_data()
    assert len(mirror.requests) == asked
    found = everything(name, root)
    for written, (x, y) in zip(parts, (found[:2], found[2:]), strict=True):
        assert np.array_equal(x.mul(255).round().to(torch.uint8).numpy(), written.images)
        assert np.array_equal(y.numpy(), written.labels)


def test_reviews_are_downloaded_unless_there_are_any_whatever_their_checksum(root: Path, mirror: Mirror) -> None:
    mirror.publish("IMDB")
    write_archive(root / "imdb", FEW)
    data("IMDB", root).prepare_data()
    assert mirror.requests == []
    for _ in range(2):
        data("IMDB", root / "other").prepare_data()
        assert set(mirror.requests) == {"aclImdb_v1.tar.gz"}
    assert len(everything("IMDB", root / "other")[1]) == 18  # without 2 to validate


@pytest.mark.parametrize("name", IMAGES)
def test_only_missing_files_are_downloaded_and_none_is_overwritten(name: str, root: Path, mirror: Mirror) -> None:
    mirror.publish(name)
    data(name, root).prepare_data()
    *kept, missing = visible(root)
    (root / missing).unlink()
    before = [(root / file).stat().st_ino for file in kept]
    mirror.requests.clear()
    data(name, root).prepare_data()
    assert visible(root) == [*kept, missing]
    assert [(root / file).stat().st_ino for file in kept] == before
    assert len(set(mirror.requests)) == 1


def wrong_checksum(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expect another checksum of the last file of a data set."""
    dataset = getattr(datasets, name, None)
    if name == "IMDB":
        monkeypatch.setattr(imdb_files, "MD5", "0" * 32)
    elif name == "SVHN":
        url, file, _ = dataset.split_list["test"]
        monkeypatch.setattr(dataset, "split_list", {**dataset.split_list, "test": [url, file, "0" * 32]})
    elif name in EXTRACTED:
        monkeypatch.setattr(dataset, "tgz_md5", "0" * 32)
    else:
        monkeypatch.setattr(dataset, "resources", [*dataset.resources[:-1], (dataset.resources[-1][0], "0" * 32)])


@pytest.mark.parametrize("name", [*IMAGES, "IMDB"])
def test_a_wrong_checksum_is_refused_and_leaves_nothing(
    name: str, root: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.publish(name)
    wrong_checksum(name, monkeypatch)
    with pytest.raises(
        MissingDataError, match=f"what came from {mirror.url}.* has another checksum than MD5 {'0' * 32}"
    ):
        data(name, root).prepare_data()
    whole = {"SVHN": 1, "CIFAR10": 0, "CIFAR100": 0, "IMDB": 0}.get(name, 3)  # those with the right ones
    assert len(visible(root)) == whole
    assert not list(root.glob(".*"))


@pytest.mark.parametrize("name", ["MNIST", "IMDB"])
def test_a_full_disk_is_no_configuration_error(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloads, "download_url", fill)
    with pytest.raises(OSError, match=rf"No space left on device: '{root}/.*\.gz'") as raised:
        data(name, root).prepare_data()
    assert not isinstance(raised.value, ConfigurationError)
    assert list(root.iterdir()) == []


HOSTILE = {
    "above": regular("../outside.txt", b"evil"),
    "above in the middle": regular("cifar/../../outside.txt", b"evil"),
    "from the root on": regular("/outside.txt", b"evil"),
    "a link to a file": special("link", tarfile.SYMTYPE, "/etc/hostname"),
    "a link within": special("link", tarfile.SYMTYPE, "cifar-10-batches-py"),
    "a hard link": special("link", tarfile.LNKTYPE, "../secret.txt"),
    "a pipe": special("pipe", tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("name", EXTRACTED)
def test_a_hostile_archive_is_refused_and_leaves_nothing(name: str, kind: str, root: Path, mirror: Mirror) -> None:
    """Even though its checksum is right."""
    mirror.publish(name, more=(HOSTILE[kind],))
    root.mkdir(parents=True)
    (root.parent / "secret.txt").write_text("secret")
    with pytest.raises(MissingDataError, match=r"python\.tar\.gz cannot be unpacked: .*(link|pipe|outside)"):
        data(name, root).prepare_data()
    assert list(root.iterdir()) == []
    assert sorted(path.name for path in root.parent.rglob("*")) == ["root", "secret.txt"]


@pytest.mark.parametrize("name", ["MNIST", "CIFAR10"])
def test_what_an_archive_holds_is_bounded(
    name: str, root: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "MAX_BYTES", 1000)
    mirror.publish(name)
    with pytest.raises(MissingDataError, match="cannot be unpacked: it holds more than 1000 bytes"):
        data(name, root).prepare_data()
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("name", EXTRACTED)
def test_an_archive_without_its_files_is_refused(
    name: str, root: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.publish(name)
    dataset = getattr(datasets, name)
    archive = mirror.folder / dataset.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(mirror.folder / dataset.base_folder / dataset.meta["filename"], "other")
    monkeypatch.setattr(dataset, "tgz_md5", md5(archive))
    with pytest.raises(MissingDataError, match="does not hold"):
        data(name, root).prepare_data()
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("name", ["MNIST", "CIFAR10"])
def test_an_existing_archive_is_used_and_a_broken_one_kept(name: str, root: Path, mirror: Mirror) -> None:
    mirror.publish(name)
    packed = sorted(path for path in mirror.folder.rglob("*.gz"))
    for path in packed:
        copy = root / path.relative_to(mirror.folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    data(name, root).prepare_data()
    assert mirror.requests == []
    expected = everything(name, root)

    for file in Images(name).source.files:
        (root / file).unlink()
    for path in packed:
        (root / path.relative_to(mirror.folder)).write_bytes(b"broken")
    data(name, root).prepare_data()
    assert all(map(torch.equal, everything(name, root), expected))
    assert {(root / path.relative_to(mirror.folder)).read_bytes() for path in packed} == {b"broken"}


def started(name: str, root: Path) -> ForkProcess:
    def prepare() -> None:
        torch.set_num_threads(1)  # more would wait for threads that were not forked
        tqdm.set_lock(threading.RLock())  # of its own: one that is killed would keep the one that forks share
        data(name, root).prepare_data()
        everything(name, root)

    process = multiprocessing.get_context("fork").Process(target=prepare)
    process.start()
    return process


@pytest.mark.parametrize("name", ["MNIST", "CIFAR10", "SVHN", "IMDB"])
def test_no_process_sees_a_partial_download(name: str, root: Path, mirror: Mirror) -> None:
    mirror.publish(name)
    mirror.holds_back = True
    slow = started(name, root)
    assert mirror.half_is_sent.wait(60)
    assert visible(root) == []

    quick = started(name, root)
    quick.join(60)
    assert quick.exitcode == 0
    expected, seen = everything(name, root), visible(root)

    mirror.may_go_on.set()
    slow.join(60)
    assert slow.exitcode == 0
    assert visible(root) == seen
    assert all(map(torch.equal, everything(name, root), expected))
    assert not list(root.glob(".*"))


@pytest.mark.parametrize("name", ["MNIST", "CIFAR10", "SVHN", "IMDB"])
def test_a_killed_download_is_repeated(name: str, root: Path, mirror: Mirror) -> None:
    mirror.publish(name)
    mirror.holds_back = True
    killed = started(name, root)
    assert mirror.half_is_sent.wait(60)
    os.kill(killed.pid, signal.SIGKILL)
    killed.join(60)
    assert visible(root) == []
    data(name, root).prepare_data()
    assert len(everything(name, root)) == 4


@pytest.mark.parametrize("name", [*IMAGES, "IMDB"])
def test_setup_downloads_nothing(name: str, root: Path, mirror: Mirror) -> None:
    mirror.publish(name)
    with pytest.raises(MissingDataError):
        data(name, root).setup()
    assert mirror.requests == []
    assert not root.exists()
