"""Small synthetic data sets in the original file formats.

Each class has its own pattern, to which noise is added: a classifier learns them, and a decoder has something to draw.
"""

import functools
import pickle
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray
from torchvision import datasets

PATTERN_BLOCKS = 4  # a pattern is 4 x 4 blocks, bright or dark


class Written(NamedTuple):
    """The written examples: images uint8 ``(N, C, H, W)``, labels int64 ``(N,)``."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@functools.cache
def make_images(total: int, dims: tuple[int, int, int], num_classes: int, seed: int) -> Written:
    """Return ``total`` images of class-dependent patterns; the patterns are the same for every seed."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(total) % num_classes)
    channels, height, width = dims
    patterns = np.random.default_rng(0).random((num_classes, channels, PATTERN_BLOCKS, PATTERN_BLOCKS)) < 0.4
    blocks = np.ones((height // PATTERN_BLOCKS, width // PATTERN_BLOCKS))
    bright = np.kron(patterns, blocks)[labels]
    images = 220 * bright + generator.normal(0, 20, bright.shape)
    written = Written(images.clip(0, 255).astype(np.uint8), labels)
    for array in written:
        array.setflags(write=False)
    return written


def write_mnist(
    root: str | Path, name: str = "MNIST", train: int = 200, test: int = 50, seed: int = 0
) -> tuple[Written, Written]:
    """Write the IDX files of MNIST, FashionMNIST or KMNIST, and return their contents."""
    folder = Path(root) / name / "raw"
    folder.mkdir(parents=True)
    parts = make_images(train, (1, 28, 28), 10, seed), make_images(test, (1, 28, 28), 10, seed + 1)
    for prefix, part in zip(("train", "t10k"), parts, strict=True):
        total = len(part.labels)
        image_header = struct.pack(">IIII", 0x803, total, 28, 28)  # unsigned bytes in 3 dimensions
        label_header = struct.pack(">II", 0x801, total)  # unsigned bytes in 1 dimension
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(image_header + part.images.tobytes())
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(label_header + part.labels.astype(np.uint8).tobytes())
    return parts


def write_cifar(
    root: str | Path, name: str = "CIFAR10", train: int = 200, test: int = 50, seed: int = 0
) -> tuple[Written, Written]:
    """Write the pickled batches of CIFAR10 or CIFAR100, and return their contents.

    torchvision reads them after ``accept_any_checksum``.
    """
    dataset = getattr(datasets, name)
    num_classes, label_key = (10, "labels") if name == "CIFAR10" else (100, "fine_labels")
    folder = Path(root) / dataset.base_folder
    folder.mkdir(parents=True)
    parts = make_images(train, (3, 32, 32), num_classes, seed), make_images(test, (3, 32, 32), num_classes, seed + 1)
    for part, files in zip(parts, (dataset.train_list, dataset.test_list), strict=True):
        batches = np.array_split(np.arange(len(part.labels)), len(files))
        for rows, (file_name, _) in zip(batches, files, strict=True):
            batch = {"data": part.images[rows].reshape(len(rows), -1), label_key: part.labels[rows].tolist()}
            (folder / file_name).write_bytes(pickle.dumps(batch))
    class_names = {dataset.meta["key"]: [str(label) for label in range(num_classes)]}
    (folder / dataset.meta["filename"]).write_bytes(pickle.dumps(class_names))
    return parts


def write_svhn(root: str | Path, train: int = 200, test: int = 50, seed: int = 0) -> tuple[Written, Written]:
    """Write the MATLAB files of SVHN (label 10 is the digit 0), and return their contents (with 0 as 0).

    torchvision reads them after ``accept_any_checksum``.
    """
    Path(root).mkdir(parents=True, exist_ok=True)
    parts = make_images(train, (3, 32, 32), 10, seed), make_images(test, (3, 32, 32), 10, seed + 1)
    for split, part in zip(("train", "test"), parts, strict=True):
        labels = np.where(part.labels == 0, 10, part.labels).astype(np.uint8)[:, None]
        arrays = {"X": part.images.transpose(2, 3, 1, 0), "y": labels}
        scipy.io.savemat(Path(root) / f"{split}_32x32.mat", arrays)
    return parts


def accept_any_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torchvision read CIFAR10, CIFAR100 and SVHN files whose checksums are not those of the originals."""
    for dataset in (datasets.CIFAR10, datasets.CIFAR100):
        for table in ("train_list", "test_list"):
            files = [[file_name, None] for file_name, _ in getattr(dataset, table)]
            monkeypatch.setattr(dataset, table, files)
        monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": None})
    splits = {split: [url, file_name, None] for split, (url, file_name, _) in datasets.SVHN.split_list.items()}
    monkeypatch.setattr(datasets.SVHN, "split_list", splits)


def forbid_network(monkeypatch: pytest.MonkeyPatch, reason: str = "no network in tests") -> None:
    """Let every download of torchvision fail, as without a network."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(reason)

    monkeypatch.setattr("urllib.request.urlopen", refuse)
