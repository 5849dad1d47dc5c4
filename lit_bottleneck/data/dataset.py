"""Labelled examples, and a dataset that reads them a batch at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lit_bottleneck.checks import ConfigurationError

Batch = Tensor | tuple[Tensor, ...]  # inputs alone; or inputs, labels, and factors where there are any
BatchT = TypeVar("BatchT")


class Indexable(Protocol):
    """Inputs of a data set: a tensor, or an object that makes its rows on request."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        """Return the inputs ``(B, ...)`` in the given rows, int64 ``(B,)``."""
        ...


@dataclass(frozen=True)
class Examples:
    """Rows of labelled inputs; a selection shares the inputs' memory.

    Args:
        inputs: ``(M, ...)``, a tensor or an object that returns one when indexed by an int64 tensor.
        labels: classes, int64 ``(M,)``, or numbers ``(M, ...)``.
        rows: int64 ``(N,)``: which of the M rows these examples are, in this order.

    Raises:
        ConfigurationError: if inputs and labels differ in number.
    """

    inputs: Indexable
    labels: Tensor
    rows: Tensor

    def __post_init__(self) -> None:
        """Refuse inputs and labels that differ in number."""
        if len(self.inputs) != len(self.labels):
            raise ConfigurationError(f"inputs and labels differ in number: {len(self.inputs)} and {len(self.labels)}")

    @classmethod
    def of(cls, inputs: Indexable, labels: Tensor) -> "Examples":
        """Return all rows of ``inputs`` ``(M, ...)`` with their ``labels`` ``(M, ...)``."""
        return cls(inputs, labels, torch.arange(len(labels)))

    def __len__(self) -> int:
        """Return N."""
        return len(self.rows)

    def select(self, positions: Tensor) -> "Examples":
        """Return the examples at ``positions``, int64 ``(B,)`` in [0, N)."""
        return Examples(self.inputs, self.labels, self.rows[positions])

    def take(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs ``(B, ...)`` and labels ``(B, ...)`` at ``positions``, int64 ``(B,)`` in [0, N)."""
        rows = self.rows[positions]
        if isinstance(self.inputs, Tensor):  # index_select copies whole rows, seven times as fast as indexing
            return self.inputs.index_select(0, rows), self.labels[rows]
        return self.inputs[rows], self.labels[rows]


class BatchedDataset(Dataset[Batch]):
    """Dataset that is read a batch at a time.

    torch's fetcher calls ``__getitems__`` once per batch, so that no Python runs per example. The loader needs
    ``collate_fn=keep_batch``.

    Args:
        examples: the examples, in this order.
        dtype: type of the inputs in a batch. None: the type in which they are held.
    """

    def __init__(self, examples: Examples, dtype: torch.dtype | None = None) -> None:
        self.examples = examples
        self.dtype = dtype

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.examples)

    def __getitem__(self, index: int | Sequence[int]) -> Batch:
        """Return the parts of one example (input, label, ...), or the batch of several indices."""
        if isinstance(index, Sequence):
            return self.__getitems__(index)
        batch = self.__getitems__([index])
        return batch[0] if isinstance(batch, Tensor) else tuple(part[0] for part in batch)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return the inputs ``(B, ...)`` and labels ``(B, ...)`` at ``indices``."""
        inputs, labels = self.examples.take(torch.as_tensor(indices, dtype=torch.int64))
        return inputs.to(self.dtype), labels


def keep_batch(batch: BatchT) -> BatchT:
    """Return a batch as it is: a ``collate_fn`` that pickles, for datasets that make whole batches."""
    return batch
