import os
import pickle
import struct

import pytest

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data import Images
from lit_bottleneck.data.downloads import MissingDataError
from lit_bottleneck.data.images import NAMED_DATASETS, TorchvisionSource
from tests.data.original_formats import accept_any_checksum, forbid_network, write_cifar, write_mnist, write_svhn

SHAPES = {
    "MNIST": ((1, 28, 28), 10),
    "FashionMNIST": ((1, 28, 28), 10),
    "KMNIST": ((1, 28, 28), 10),
    "CIFAR10": ((3, 32, 32), 10),
    "CIFAR100": ((3, 32, 32), 100),
    "SVHN": ((3, 32, 32), 10),
}


def write(root, name):
    if name == "SVHN":
        return write_svhn(root)
    return write_cifar(root, name) if name.startswith("CIFAR") else write_mnist(root, name)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    forbid_network(monkeypatch, "the network is down")


def test_every_name_is_covered():
    assert set(NAMED_DATASETS) == set(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_dims_and_classes_are_known_without_any_file(name, tmp_path):
    data = Images(name, root=tmp_path / "nothing")
    assert (data.dims, data.num_classes) == SHAPES[name]


@pytest.mark.parametrize("name", SHAPES)
def test_the_error_for_missing_files_names_place_cause_and_remedy(name, tmp_path):
    data = Images(name, root=tmp_path / "nothing")
    with pytest.raises(MissingDataError) as prepared:
        data.prepare_data()
    message = str(prepared.value)
    for part in (
        name,
        str(tmp_path / "nothing"),
        *TorchvisionSource(name, tmp_path).files,
        "the network is down",
        "root=...",
    ):
        assert part in message
    assert "--data.init_args.root" in message
    with pytest.raises(MissingDataError, match=f"{name} was expected in .*not found"):
        data.setup()


@pytest.mark.parametrize("name", SHAPES)
def test_the_error_names_only_the_missing_files(name, tmp_path):
    write(tmp_path, name)
    *there, missing = TorchvisionSource(name, tmp_path).files
    (tmp_path / missing).unlink()
    with pytest.raises(MissingDataError) as refused:
        Images(name, root=tmp_path).setup()

    assert f"missing: {missing}." in str(refused.value)
    assert not [file for file in there if file in str(refused.value)]


@pytest.mark.parametrize("name", SHAPES)
def test_a_read_only_root_is_enough(name, tmp_path, monkeypatch):
    accept_any_checksum(monkeypatch)
    write(tmp_path / "files", name)
    paths = sorted((tmp_path / "files").rglob("*"))
    folders = [tmp_path / "files", *(path for path in paths if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        before = [path.stat().st_mtime_ns for path in [*folders, *paths]]
        data = Images(name, root=tmp_path / "files")
        data.prepare_data()
        assert len(data.dataset("test")) == 50
        # The superuser may write all the same: then this says that nothing was.
        assert [path.stat().st_mtime_ns for path in [*folders, *paths]] == before
        assert sorted((tmp_path / "files").rglob("*")) == paths
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_the_error_for_a_damaged_file_names_data_set_and_place(tmp_path):
    write_mnist(tmp_path)
    images = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:1000])
    with pytest.raises(MissingDataError, match=rf"MNIST was expected in {tmp_path}"):
        Images("MNIST", root=tmp_path).setup()


def test_images_of_another_shape_are_refused(tmp_path):
    write_mnist(tmp_path)
    images = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    content = images.read_bytes()
    images.write_bytes(content[:8] + struct.pack(">II", 14, 56) + content[16:])  # as many pixels in another shape
    with pytest.raises(ConfigurationError, match=r"dims=\(1, 28, 28\) must be .* got images \(1, 14, 56\)"):
        Images("MNIST", root=tmp_path).setup()


class Evil:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_a_pickle_that_is_not_the_original_is_not_read(name, tmp_path):
    write(tmp_path / "root", name)
    for file in TorchvisionSource(name, tmp_path).files:
        (tmp_path / "root" / file).write_bytes(pickle.dumps(Evil(tmp_path / "executed")))
    with pytest.raises(MissingDataError, match="its files are there, but damaged: delete them"):
        Images(name, root=tmp_path / "root").setup()
    assert list(tmp_path.iterdir()) == [tmp_path / "root"]
