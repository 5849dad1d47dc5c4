"""The image data sets that torchvision knows by name, taken over as tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision import datasets

from lit_bottleneck.data.examples import Examples

TRAIN_OR_TEST: tuple[dict[str, Any], dict[str, Any]] = ({"train": True}, {"train": False})
SPLIT_BY_NAME: tuple[dict[str, Any], dict[str, Any]] = ({"split": "train"}, {"split": "test"})


def _mnist_arrays(dataset: Any) -> tuple[Tensor, Tensor]:
    return dataset.data.unsqueeze(1), dataset.targets


def _cifar_arrays(dataset: Any) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(dataset.data).permute(0, 3, 1, 2), torch.tensor(dataset.targets)


def _svhn_arrays(dataset: Any) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(dataset.data), torch.from_numpy(dataset.labels)


@dataclass(frozen=True)
class NamedSet:
    """What is to be known of a data set before any of it is on disk.

    Args:
        dataset: torchvision's class.
        dims: `(C, H, W)`.
        num_classes: Labels are 0 to `num_classes` - 1.
        parts: The arguments that ask `dataset` for its training and its test part.
        files: All its files, relative to the root.
        arrays: Takes images `(N, C, H, W)` and labels `(N,)` over from an instance of `dataset`.
    """

    dataset: type
    dims: tuple[int, int, int]
    num_classes: int
    parts: tuple[dict[str, Any], dict[str, Any]]
    files: tuple[str, ...]
    arrays: Callable[[Any], tuple[Tensor, Tensor]]


def _mnist_like(dataset: type) -> NamedSet:
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    files = tuple(f"{dataset.__name__}/raw/{name}-ubyte" for name in names)
    return NamedSet(dataset, (1, 28, 28), 10, TRAIN_OR_TEST, files, _mnist_arrays)


NAMED_SETS = {
    "MNIST": _mnist_like(datasets.MNIST),
    "FashionMNIST": _mnist_like(datasets.FashionMNIST),
    "KMNIST": _mnist_like(datasets.KMNIST),
    "CIFAR10": NamedSet(
        datasets.CIFAR10,
        (3, 32, 32),
        10,
        TRAIN_OR_TEST,
        tuple(f"cifar-10-batches-py/{name}" for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")),
        _cifar_arrays,
    ),
    "CIFAR100": NamedSet(
        datasets.CIFAR100,
        (3, 32, 32),
        100,
        TRAIN_OR_TEST,
        ("cifar-100-python/train", "cifar-100-python/test"),
        _cifar_arrays,
    ),
    "SVHN": NamedSet(
        datasets.SVHN, (3, 32, 32), 10, SPLIT_BY_NAME, ("train_32x32.mat", "test_32x32.mat"), _svhn_arrays
    ),
}


class TorchvisionSource:
    """A named data set in a folder, read (and downloaded, with checksums) by torchvision.

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
        for part in self.named_set.parts:
            self._open(part, download=True)

    def load(self) -> tuple[Examples, Examples]:
        """Return the training and the test examples: uint8 `(N, C, H, W)`, int64 `(N,)`.

        Raises:
            FileNotFoundError: If files are missing or damaged.
        """
        training, test = (self._examples(part) for part in self.named_set.parts)
        return training, test

    def _examples(self, part: dict[str, Any]) -> Examples:
        images, labels = self.named_set.arrays(self._open(part, download=False))
        return Examples.of(images.contiguous(), labels.to(torch.int64))

    def _open(self, part: dict[str, Any], download: bool) -> Any:
        try:
            return self.named_set.dataset(self.root, download=download, **part)
        # A file that is cut short ends in a ValueError, an EOFError or an AssertionError of torchvision's readers.
        except (RuntimeError, OSError, HTTPException, ValueError, EOFError, AssertionError) as error:
            reason = f"the download failed: {_in_few_words(error)}" if download else _in_few_words(error)
            missing = [file for file in self.named_set.files if not (self.root / file).exists()]
            raise FileNotFoundError(
                f"{self.name} was expected in {self.root.absolute()} and could not be read ({reason}); "
                f"{'missing: ' + ', '.join(missing) if missing else 'its files are there, but damaged'}. Put its files "
                f"there, say where they are with root=... (in a recipe: --data.init_args.root), or let prepare_data() "
                f"download them on a machine with network access"
            ) from error


def _in_few_words(error: BaseException) -> str:
    """Return the last line of an error's message, which in torchvision's collected messages is the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
