"""Base classes of the data modules: arguments, split, loaders."""

import os
from abc import abstractmethod
from functools import partial
from os.path import expanduser
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from lightning import LightningDataModule
from lightning.fabric.utilities.seed import pl_worker_init_function
from torch import Tensor
from torch.utils.data import DataLoader

from lit_bottleneck.checks import ConfigurationError, one_of, whole_number
from lit_bottleneck.data.dataset import Batch, BatchedDataset, Examples, keep_batch
from lit_bottleneck.data.evaluation_sampler import EvaluationSampler
from lit_bottleneck.data.splits import check_val_size, random_split, stratified_split, validation_count
from lit_bottleneck.training.denormals import are_denormals_flushed

Part = Literal["train", "val", "test"]


class ExamplesDataModule(LightningDataModule):
    """Data module over ``Examples``, which are split for training, validation and test and read a batch at a time.

    A subclass loads its examples (``load``). It may check them (``check``), split them otherwise than at random
    (``split``), and transform what a model sees of them (``input_dtype``, ``make_dataset``).

    Args:
        dims: shape of one input. None: it is known after ``setup`` (and until then there is no attribute ``dims``).
        batch_size: examples per batch and process.
        root: folder where files are or go; not used by data that need no files.
        num_workers: loader processes; 0 loads in the main process, which is the fastest for data in memory.
        seed: seed of the split into training and validation, and of other draws that are made once; the test examples
            are the same for every seed.
        val_size: validation examples, held out of the training examples: a count (int) or a fraction (float). 0 trains
            on all of them.
        drop_last: leave out the last training batch of an epoch where it is smaller than the others.
        predict_part: the examples to predict: "train" (in order, not augmented), "val" or "test".

    Raises:
        ConfigurationError: if an argument is out of its range.
    """

    input_dtype: ClassVar[torch.dtype | None] = None
    dims: tuple[int, ...]

    def __init__(
        self,
        *,
        dims: tuple[int, ...] | None,
        batch_size: int,
        root: str | Path | None = None,
        num_workers: int = 0,
        seed: int = 0,
        val_size: int | float = 0.1,
        drop_last: bool = False,
        predict_part: Part = "test",
    ) -> None:
        super().__init__()
        if dims is not None:
            self.dims = dims
        self.batch_size = whole_number("batch_size", batch_size, at_least=1)
        self.root = None if root is None else Path(expanduser(root))
        self.num_workers = whole_number("num_workers", num_workers, at_least=0)
        self.seed = whole_number("seed", seed, at_least=0, at_most=2**32 - 1)  # as scikit-learn's random_state
        self.val_size = check_val_size(val_size)
        if not isinstance(drop_last, bool):
            raise ConfigurationError(f"drop_last must be True or False; got {drop_last!r}")
        self.drop_last = drop_last
        self.predict_part: Part = one_of("predict_part", predict_part, get_args(Part))
        self._datasets: dict[Part, BatchedDataset] = {}

    @abstractmethod
    def load(self) -> tuple[Examples, Examples]:
        """Return the examples to train and validate on, and the test examples."""

    def make_dataset(self, examples: Examples, part: Part) -> BatchedDataset:
        """Return the dataset over the ``examples`` of one part; here, with inputs of ``input_dtype``."""
        return BatchedDataset(examples, self.input_dtype)

    def check(self, examples: Examples) -> None:
        """Raise ConfigurationError for invalid examples; here, every example is valid."""

    def split(self, training: Examples, held_out: int) -> tuple[Tensor, Tensor]:
        """Return the positions to train on and the ``held_out`` ones to validate on, int64; here, at random."""
        return random_split(len(training), held_out, self.seed)

    def setup(self, stage: str | None = None) -> None:
        """Load and split all examples, at the first call only.

        Args:
            stage: ignored: one load gives all parts.

        Raises:
            ConfigurationError: if examples are missing or invalid, or ``val_size`` leaves none to train on.
        """
        if self._datasets:
            return
        training, test = self.load()
        self.check(training)
        self.check(test)
        kept, held_out = self.split(training, validation_count(self.val_size, len(training)))
        self._datasets = {
            "train": self.make_dataset(training.select(kept), "train"),
            "val": self.make_dataset(training.select(held_out), "val"),
            "test": self.make_dataset(test, "test"),
        }

    def dataset(self, part: Part) -> BatchedDataset:
        """Return the dataset of a part ("train", "val" or "test"), after ``setup`` if it has not run yet."""
        self.setup()
        return self._datasets[part]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled batches of the training examples.

        Raises:
            ConfigurationError: if ``drop_last`` leaves none.
        """
        rows = len(self.dataset("train"))
        if self.drop_last and rows < self.batch_size:
            left = f"drop_last=True leaves no batch of {rows} training examples with batch_size={self.batch_size}"
            raise ConfigurationError(f"{left}: set a batch_size of at most {rows}")
        return self._loader(self.dataset("train"), shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Return the validation batches; without validation examples an empty list, so that Lightning skips it."""
        return self._evaluation_loader("val") if len(self.dataset("val")) else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test batches, in order."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return the batches of ``predict_part``, in order.

        Raises:
            ConfigurationError: if that part has no examples.
        """
        dataset = self.dataset(self.predict_part)
        if self.predict_part == "train":
            dataset = self.make_dataset(dataset.examples, "val")
        if not len(dataset):
            raise ConfigurationError(f"predict_part={self.predict_part!r} needs examples; this part has none")
        return self._loader(dataset)

    def _evaluation_loader(self, part: Part) -> DataLoader[Batch]:
        """Return the batches of this process; with several processes, those of ``EvaluationSampler``."""
        processes = getattr(self.trainer, "distributed_sampler_kwargs", None) or {"num_replicas": 1}
        if processes["num_replicas"] == 1 or getattr(self.trainer, "overfit_batches", 0):  # that replaces all samplers
            return self._loader(self.dataset(part))
        batches = EvaluationSampler(self.dataset(part), self.batch_size, **processes)
        return self._loader(self.dataset(part), batches=batches)

    def _loader(
        self, dataset: BatchedDataset, shuffle: bool = False, batches: EvaluationSampler | None = None
    ) -> DataLoader[Batch]:
        flushed = self.num_workers > 0 and are_denormals_flushed()
        rank = getattr(self.trainer, "global_rank", 0)
        return DataLoader(
            dataset,
            batch_size=self.batch_size if batches is None else None,
            shuffle=shuffle,
            drop_last=shuffle and self.drop_last,
            sampler=batches,
            num_workers=self.num_workers,
            collate_fn=keep_batch,
            worker_init_fn=partial(_flush_and_seed, rank=rank) if flushed else None,
            persistent_workers=False,  # new ones for every epoch, so that a resumed epoch draws the same
            pin_memory=torch.cuda.is_available(),
        )


def _flush_and_seed(worker_id: int, rank: int) -> None:
    """Set up a loader process: denormal numbers are 0, which only a forked one inherits, and seeds are Lightning's."""
    torch.set_flush_denormal(True)
    if int(os.environ.get("PL_SEED_WORKERS", 0)):  # what Lightning does for loaders without a function such as this
        pl_worker_init_function(worker_id, rank)


class LabelledDataModule(ExamplesDataModule):
    """Data module of examples with one class label each; the training-validation split is stratified by class.

    Args:
        num_classes: labels are 0 to ``num_classes`` - 1. None: there are none (and no attribute ``num_classes``).
        **kwargs: arguments of ``ExamplesDataModule``.

    Raises:
        ConfigurationError: if an argument is out of its range.
    """

    num_classes: int

    def __init__(self, *, num_classes: int | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.has_labels = num_classes is not None
        if num_classes is not None:
            self.num_classes = num_classes

    def check(self, examples: Examples) -> None:
        """Raise ConfigurationError for labels out of range."""
        if not self.has_labels:
            return
        labels, most = examples.labels, self.num_classes - 1
        outside = sorted(set(labels[(labels < 0) | (labels > most)].tolist()))
        if outside:
            raise ConfigurationError(
                f"num_classes={self.num_classes} needs labels from 0 to {most}; got {outside[:10]}"
            )

    def split(self, training: Examples, held_out: int) -> tuple[Tensor, Tensor]:
        """Return the positions to train on and the ``held_out`` ones to validate on, int64, stratified by class."""
        return stratified_split(training.labels[training.rows], held_out, self.seed)
