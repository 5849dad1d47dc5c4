"""The data module that all labelled data sets here share."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from lit_bottleneck.data.examples import Examples
from lit_bottleneck.data.examples_data_module import ExamplesDataModule, Part
from lit_bottleneck.data.splits import stratified_split

__all__ = ["LabelledDataModule", "Part"]


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
