"""The image data sets that torchvision knows by name, taken over as tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision import datasets

from lit_bottleneck.data.dataset import Examples
from lit_bottleneck.data.downloads import Download

TRAIN_OR_TEST: tuple[dict[str, Any], dict[str, Any]] = ({"train": True}, {"train": False})
SPLIT_BY_NAME: tuple[dict[str, Any], dict[str, Any]] = ({"split": "train"}, {"split": "test"})


def _mnist_arrays(dataset: Any) -> tuple[Tensor, Tensor]:
    return dataset.data.unsqueeze(1), dataset.targets


def _mnist_downloads(dataset: Any) -> list[Download]:
    folder = f"{dataset.__name__}/raw"
    return [
        Download(
            f"{folder}/{name}",
            tuple(mirror + name for mirror in dataset.mirrors),
            md5,
            files=(f"{folder}/{name.removesuffix('.gz')}",),
        )
        for name, md5 in dataset.resources
    ]


def _cifar_arrays(dataset: Any) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(dataset.data).permute(0, 3, 1, 2), torch.tensor(dataset.targets)


def _cifar_downloads(dataset: Any) -> list[Download]:
    names = [*(name for name, _ in (*dataset.train_list, *dataset.test_list)), dataset.meta["filename"]]
    files = tuple(f"{dataset.base_folder}/{name}" for name in names)
    return [Download(dataset.filename, (dataset.url,), dataset.tgz_md5, files)]


def _svhn_arrays(dataset: Any) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(dataset.data), torch.from_numpy(dataset.labels)


def _svhn_downloads(dataset: Any) -> list[Download]:
    parts = (dataset.split_list[part["split"]] for part in SPLIT_BY_NAME)
    return [Download(name, (url,), md5, files=(name,)) for url, name, md5 in parts]


@dataclass(frozen=True)
class NamedSet:
    """What is to be known of a data set before any of it is on disk.

    Args:
        dataset: torchvision's class.
        dims: `(C, H, W)`.
        num_classes: Labels are 0 to `num_classes` - 1.
        parts: The arguments that ask `dataset` for its training and its test part.
        downloads_of: Says what to download for `dataset`, from where and with which checksums, as torchvision has it.
        arrays: Takes images `(N, C, H, W)` and labels `(N,)` over from an instance of `dataset`.
    """

    dataset: Any
    dims: tuple[int, int, int]
    num_classes: int
    parts: tuple[dict[str, Any], dict[str, Any]]
    downloads_of: Callable[[Any], list[Download]]
    arrays: Callable[[Any], tuple[Tensor, Tensor]]

    @property
    def downloads(self) -> list[Download]:
        """What to download."""
        return self.downloads_of(self.dataset)

    @property
    def files(self) -> list[str]:
        """All its files, relative to the root."""
        return [file for download in self.downloads for file in download.files]


def _mnist_like(dataset: Any) -> NamedSet:
    return NamedSet(dataset, (1, 28, 28), 10, TRAIN_OR_TEST, _mnist_downloads, _mnist_arrays)


def _cifar_like(dataset: Any, num_classes: int) -> NamedSet:
    return NamedSet(dataset, (3, 32, 32), num_classes, TRAIN_OR_TEST, _cifar_downloads, _cifar_arrays)


NAMED_SETS = {
    "MNIST": _mnist_like(datasets.MNIST),
    "FashionMNIST": _mnist_like(datasets.FashionMNIST),
    "KMNIST": _mnist_like(datasets.KMNIST),
    "CIFAR10": _cifar_like(datasets.CIFAR10, 10),
    "CIFAR100": _cifar_like(datasets.CIFAR100, 100),
    "SVHN": NamedSet(datasets.SVHN, (3, 32, 32), 10, SPLIT_BY_NAME, _svhn_downloads, _svhn_arrays),
}


class TorchvisionSource:
    """A named data set in a folder, as torchvision lays it out and reads it.

    Args:
        name: A key of `NAMED_SETS`.
        root: The folder that torchvision gets as its root.
    """

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.root = root
        self.named_set = NAMED_SETS[name]
        self.dims = self.named_set.dims
        self.num_classes = self.named_set.num_classes

    def download(self) -> None:
        """Download what is not there yet.

        Raises:
            FileNotFoundError: If files are missing and cannot be downloaded.
        """
        try:
            for download in self.named_set.downloads:
                download.fetch(self.root)
        except OSError as error:
            raise self._unreadable(f"the download failed: {error}") from error

    def load(self) -> tuple[Examples, Examples]:
        """Return the training and the test examples: uint8 `(N, C, H, W)`, int64 `(N,)`.

        Raises:
            FileNotFoundError: If files are missing or damaged.
        """
        training, test = (self._examples(part) for part in self.named_set.parts)
        return training, test

    def _examples(self, part: dict[str, Any]) -> Examples:
        images, labels = self.named_set.arrays(self._open(part))
        return Examples.of(images.contiguous(), labels.to(torch.int64))

    def _open(self, part: dict[str, Any]) -> Any:
        try:
            return self.named_set.dataset(self.root, **part)
        # A file that is cut short ends in a ValueError, an EOFError or an AssertionError of torchvision's readers.
        except (RuntimeError, OSError, ValueError, EOFError, AssertionError) as error:
            raise self._unreadable(_in_few_words(error)) from error

    def _unreadable(self, reason: str) -> FileNotFoundError:
        missing = [file for file in self.named_set.files if not (self.root / file).exists()]
        state = f"missing: {', '.join(missing)}" if missing else "its files are there, but damaged: delete them"
        return FileNotFoundError(
            f"{self.name} was expected in {self.root.absolute()} and could not be read ({reason}); {state}. Put its "
            f"files there, say where they are with root=... (in a recipe: --data.init_args.root), or let "
            f"prepare_data() download them on a machine with network access"
        )


def _in_few_words(error: BaseException) -> str:
    """Return the last line of an error's message, which in torchvision's collected messages is the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
