"""torchvision's image data sets as tensors."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision import datasets

from lit_bottleneck.data.dataset import Examples
from lit_bottleneck.data.downloads import GIVE_ROOT, Download, MissingDataError, fetch_all

_TRAIN_OR_TEST: tuple[dict[str, Any], dict[str, Any]] = ({"train": True}, {"train": False})
_SPLIT_BY_NAME: tuple[dict[str, Any], dict[str, Any]] = ({"split": "train"}, {"split": "test"})


def _mnist_arrays(dataset: Any) -> tuple[Tensor, Tensor]:
    return dataset.data.unsqueeze(1), dataset.targets


def _mnist_downloads(dataset: Any) -> list[Download]:
    folder = f"{dataset.__name__}/raw"
    return [
        Download(
            f"{folder}/{name}", tuple(mirror + name for mirror in dataset.mirrors), md5, (f"{folder}/{name[:-3]}",)
        )
        for name, md5 in dataset.resources  # *.gz
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
    parts = (dataset.split_list[part["split"]] for part in _SPLIT_BY_NAME)
    return [Download(name, (url,), md5, files=(name,)) for url, name, md5 in parts]


@dataclass(frozen=True)
class NamedDataset:
    """Facts about a data set that are known before any of it is on disk.

    Args:
        dataset: torchvision's class.
        dims: ``(C, H, W)``.
        num_classes: labels are 0 to ``num_classes`` - 1.
        parts: the arguments by which ``dataset`` opens its training and its test part.
        downloads_of: return the downloads of ``dataset``, with torchvision's addresses and checksums.
        arrays: return the images ``(N, C, H, W)`` and labels ``(N,)`` of an instance of ``dataset``.
    """

    dataset: Any
    dims: tuple[int, int, int]
    num_classes: int
    parts: tuple[dict[str, Any], dict[str, Any]]
    downloads_of: Callable[[Any], list[Download]]
    arrays: Callable[[Any], tuple[Tensor, Tensor]]

    @property
    def downloads(self) -> list[Download]:
        """The files to download."""
        return self.downloads_of(self.dataset)

    @property
    def files(self) -> list[str]:
        """All files of the data set, relative to the root."""
        return [file for download in self.downloads for file in download.files]


NAMED_DATASETS = {
    "MNIST": NamedDataset(datasets.MNIST, (1, 28, 28), 10, _TRAIN_OR_TEST, _mnist_downloads, _mnist_arrays),
    "FashionMNIST": NamedDataset(
        datasets.FashionMNIST, (1, 28, 28), 10, _TRAIN_OR_TEST, _mnist_downloads, _mnist_arrays
    ),
    "KMNIST": NamedDataset(datasets.KMNIST, (1, 28, 28), 10, _TRAIN_OR_TEST, _mnist_downloads, _mnist_arrays),
    "CIFAR10": NamedDataset(datasets.CIFAR10, (3, 32, 32), 10, _TRAIN_OR_TEST, _cifar_downloads, _cifar_arrays),
    "CIFAR100": NamedDataset(datasets.CIFAR100, (3, 32, 32), 100, _TRAIN_OR_TEST, _cifar_downloads, _cifar_arrays),
    "SVHN": NamedDataset(datasets.SVHN, (3, 32, 32), 10, _SPLIT_BY_NAME, _svhn_downloads, _svhn_arrays),
}


class TorchvisionSource:
    """A named data set in a folder, in torchvision's layout.

    Args:
        name: a key of ``NAMED_DATASETS``.
        root: torchvision's ``root``.
    """

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.root = root
        self.named_set = NAMED_DATASETS[name]
        self.dims = self.named_set.dims
        self.num_classes = self.named_set.num_classes

    def download(self) -> None:
        """Download the files that are missing.

        Raises:
            ConfigurationError: if they cannot be downloaded.
            OSError: if the disk is full.
        """
        fetch_all(self.named_set.downloads, self.root, self._unreadable)

    def load(self) -> tuple[Examples, Examples]:
        """Return the training and the test examples: uint8 ``(N, C, H, W)``, int64 ``(N,)``.

        Raises:
            ConfigurationError: if files are missing or damaged.
        """
        training, test = (self._examples(part) for part in self.named_set.parts)
        return training, test

    def _examples(self, part: dict[str, Any]) -> Examples:
        images, labels = self.named_set.arrays(self._open(part))
        return Examples.of(images.contiguous(), labels.to(torch.int64))

    def _open(self, part: dict[str, Any]) -> Any:
        try:
            return self.named_set.dataset(self.root, **part)
        # torchvision's readers raise ValueError, EOFError or AssertionError for a truncated file.
        except (RuntimeError, OSError, ValueError, EOFError, AssertionError) as error:
            lines = str(error).split("\n")
            cause = next(filter(None, map(str.strip, reversed(lines))), type(error).__name__)  # its last line
            raise MissingDataError(self._unreadable(cause[:200])) from error

    def _unreadable(self, reason: str) -> str:
        missing = [file for file in self.named_set.files if not (self.root / file).exists()]
        state = f"missing: {', '.join(missing)}" if missing else "its files are there, but damaged: delete them"
        return (
            f"{self.name} was expected in {self.root.absolute()} and could not be read ({reason}); {state}. Put its "
            f"files there, or let prepare_data() download them on a machine with network access. {GIVE_ROOT}"
        )
