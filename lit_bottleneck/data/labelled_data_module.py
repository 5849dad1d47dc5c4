"""The data module that all labelled data sets here share: arguments, split, loaders."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Literal

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from lit_bottleneck.data.examples import Batch, BatchedDataset, Examples, keep_batch
from lit_bottleneck.data.splits import check_val_size, stratified_split, validation_count

Part = Literal["train", "val", "test"]


class LabelledDataModule(LightningDataModule):
    """Labelled examples in memory, split for training, validation and test, and read a batch at a time.

    A subclass loads its examples (`load`) and may say what a model sees of them (`make_dataset`).

    Args:
        root: The folder where files are or go.
        dims: The shape of one input.
        num_classes: Labels are 0 to `num_classes` - 1.
        batch_size: Examples per batch and process.
        num_workers: Loader processes; 0 loads in the main process, which is the fastest for data in memory.
        seed: Of the split into training and validation (and of whatever else is drawn once).
        val_size: Held out of the training examples: a count (int) or a fraction (float). 0 trains on everything.

    Raises:
        ValueError: If an argument is out of its range; see the message.
    """

    dims: tuple[int, ...]
    num_classes: int

    def __init__(
        self,
        root: str | Path | None,
        dims: tuple[int, ...],
        num_classes: int,
        batch_size: int,
        num_workers: int = 0,
        seed: int = 0,
        val_size: int | float = 0.1,
    ) -> None:
        super().__init__()
        _check_integer("batch_size", batch_size, at_least=1)
        _check_integer("num_workers", num_workers, at_least=0)
        _check_integer("seed", seed, at_least=0, at_most=2**32 - 1)  # the range of scikit-learn's random_state
        check_val_size(val_size)
        self.root = None if root is None else Path(root).expanduser()
        self.dims = dims
        self.num_classes = num_classes
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.val_size = val_size
        self._datasets: dict[Part, BatchedDataset] = {}

    @abstractmethod
    def load(self) -> tuple[Examples, Examples]:
        """Return the examples to train and validate on, and the test examples."""

    def make_dataset(self, examples: Examples, part: Part) -> BatchedDataset:
        """Return the dataset over the `examples` of one part; here, as they are held."""
        return BatchedDataset(examples)

    def setup(self, stage: str | None = None) -> None:
        """Load and split everything, at the first call only.

        Args:
            stage: Not looked at: all parts come from one load.

        Raises:
            ValueError: If a label is out of range, or `val_size` leaves nothing to train on.
        """
        if self._datasets:
            return
        training, test = self.load()
        for examples in (training, test):
            self._check_labels(examples.labels)
        held_out = validation_count(self.val_size, len(training))
        kept_rows, held_out_rows = stratified_split(training.labels[training.rows], held_out, self.seed)
        self._datasets = {
            "train": self.make_dataset(training.select(kept_rows), "train"),
            "val": self.make_dataset(training.select(held_out_rows), "val"),
            "test": self.make_dataset(test, "test"),
        }

    def dataset(self, part: Part) -> BatchedDataset:
        """Return the dataset of a part ("train", "val" or "test"), loading it if `setup` has not run."""
        self.setup()
        return self._datasets[part]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled batches of the training examples."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Return the validation batches, or an empty list where nothing is held out: Lightning then skips it."""
        return self._loader("val") if len(self.dataset("val")) else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test batches, in order."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return the test batches, in order."""
        return self._loader("test")

    def _loader(self, part: Part, shuffle: bool = False) -> DataLoader[Batch]:
        return DataLoader(
            self.dataset(part),
            batch_size=self.batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            collate_fn=keep_batch,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _check_labels(self, labels: Tensor) -> None:
        outside = sorted(set(labels[(labels < 0) | (labels >= self.num_classes)].tolist()))
        if outside:
            raise ValueError(
                f"{type(self).__name__} has num_classes={self.num_classes}, so labels must be "
                f"0 to {self.num_classes - 1}; got also {', '.join(map(str, outside[:10]))}"
            )


def _check_integer(name: str, value: int, at_least: int, at_most: int | None = None) -> None:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if not is_integer or value < at_least or (at_most is not None and value > at_most):
        upper = "" if at_most is None else f" and at most {at_most}"
        raise ValueError(f"{name}={value!r} must be an integer of at least {at_least}{upper}")
