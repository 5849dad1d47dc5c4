"""The data module that all data sets here share: arguments, split, loaders."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Literal

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from lit_bottleneck.data.dataset import Batch, BatchedDataset, Examples, keep_batch
from lit_bottleneck.data.evaluation_sampler import EvaluationSampler
from lit_bottleneck.data.splits import check_val_size, random_split, stratified_split, validation_count

Part = Literal["train", "val", "test"]


class ExamplesDataModule(LightningDataModule):
    """Examples in memory, split for training, validation and test, and read a batch at a time.

    A subclass loads its examples (`load`) and may check them (`check`), split them in another way than at random
    (`split`), and say what a model sees of them (`make_dataset`).

    Args:
        root: The folder where files are or go.
        dims: The shape of one input.
        batch_size: Examples per batch and process.
        num_workers: Loader processes; 0 loads in the main process, which is the fastest for data in memory.
        seed: Of the split into training and validation (and of whatever else is drawn once).
        val_size: Held out of the training examples: a count (int) or a fraction (float). 0 trains on everything.

    Raises:
        ValueError: If an argument is out of its range; see the message.
    """

    dims: tuple[int, ...]

    def __init__(
        self,
        root: str | Path | None,
        dims: tuple[int, ...],
        batch_size: int,
        num_workers: int = 0,
        seed: int = 0,
        val_size: int | float = 0.1,
    ) -> None:
        super().__init__()
        check_integer("batch_size", batch_size, at_least=1)
        check_integer("num_workers", num_workers, at_least=0)
        check_integer("seed", seed, at_least=0, at_most=2**32 - 1)  # the range of scikit-learn's random_state
        check_val_size(val_size)
        self.root = None if root is None else Path(root).expanduser()
        self.dims = dims
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

    def check(self, examples: Examples) -> None:
        """Refuse examples that are not what they should be; here, none."""

    def split(self, training: Examples, held_out: int) -> tuple[Tensor, Tensor]:
        """Return which positions train and which validate, int64; here, at random by `seed`."""
        return random_split(len(training), held_out, self.seed)

    def setup(self, stage: str | None = None) -> None:
        """Load and split everything, at the first call only.

        Args:
            stage: Not looked at: all parts come from one load.

        Raises:
            ValueError: If the examples are not what they should be, or `val_size` leaves nothing to train on.
        """
        if self._datasets:
            return
        training, test = self.load()
        for examples in (training, test):
            self.check(examples)
        held_out = validation_count(self.val_size, len(training))
        kept_rows, held_out_rows = self.split(training, held_out)
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
        return self._evaluation_loader("val") if len(self.dataset("val")) else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test batches, in order."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return the test batches, in order."""
        return self._loader("test")

    def _evaluation_loader(self, part: Part) -> DataLoader[Batch]:
        """Return the batches of this process, where a trainer has several; see `EvaluationSampler`."""
        processes = getattr(self.trainer, "distributed_sampler_kwargs", None) or {"num_replicas": 1}
        if processes["num_replicas"] == 1 or getattr(self.trainer, "overfit_batches", 0):  # that replaces all samplers
            return self._loader(part)
        return self._loader(part, batches=EvaluationSampler(self.dataset(part), self.batch_size, **processes))

    def _loader(self, part: Part, shuffle: bool = False, batches: EvaluationSampler | None = None) -> DataLoader[Batch]:
        return DataLoader(
            self.dataset(part),
            batch_size=self.batch_size if batches is None else None,
            shuffle=shuffle,
            sampler=batches,
            num_workers=self.num_workers,
            collate_fn=keep_batch,
            persistent_workers=False,  # they begin anew with every epoch, so that a resumed one draws the same
            pin_memory=torch.cuda.is_available(),
        )


class LabelledDataModule(ExamplesDataModule):
    """Examples with a label each, of which training and validation have the same shares.

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
        super().__init__(root, dims, batch_size, num_workers, seed, val_size)
        self.num_classes = num_classes

    def check(self, examples: Examples) -> None:
        """Refuse labels out of range."""
        labels = examples.labels
        outside = sorted(set(labels[(labels < 0) | (labels >= self.num_classes)].tolist()))
        if outside:
            raise ValueError(
                f"{type(self).__name__} has num_classes={self.num_classes}, so labels must be "
                f"0 to {self.num_classes - 1}; got also {', '.join(map(str, outside[:10]))}"
            )

    def split(self, training: Examples, held_out: int) -> tuple[Tensor, Tensor]:
        """Return which positions train and which validate: the same share of each label in both."""
        return stratified_split(training.labels[training.rows], held_out, self.seed)


def check_integer(name: str, value: int, at_least: int, at_most: int | None = None) -> None:
    """Refuse what is not an integer, or out of range."""
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if not is_integer or value < at_least or (at_most is not None and value > at_most):
        upper = "" if at_most is None else f" and at most {at_most}"
        raise ValueError(f"{name}={value!r} must be an integer of at least {at_least}{upper}")
