"""Sampler for evaluation on several processes: every row counts once."""

from collections.abc import Iterator, Sized
from itertools import pairwise
from typing import Any, cast

from torch.utils.data import DistributedSampler

from lit_bottleneck.checks import whole_number
from lit_bottleneck.training.distributed import are_several_processes


class EvaluationSampler(DistributedSampler[list[int]]):
    """Batches of row indices for each process, without the repeated rows of torch's ``DistributedSampler``.

    Those count twice in every metric. Here row ``i`` belongs to process ``i`` modulo their number, and all processes
    have the same number of batches; the last ones are shorter where necessary. In a data module of your own, Lightning
    leaves such a loader as it is::

        def test_dataloader(self):
            sampler = EvaluationSampler(self.dataset, batch_size=64)
            return DataLoader(self.dataset, sampler=sampler, batch_size=None)

    The dataset returns a batch when indexed by a list, as a ``TensorDataset`` does. With one process these are the
    usual batches. Two exceptions keep the number of batches equal and none of them empty: with ``batch_size=1`` the
    last batch of some processes has two rows; and with fewer rows than processes each process has all rows, which
    changes no mean.

    >>> rows = range(9)
    >>> [list(EvaluationSampler(rows, batch_size=2, num_replicas=2, rank=rank)) for rank in (0, 1)]
    [[[0, 2], [4, 6], [8]], [[1, 3], [5], [7]]]

    Args:
        dataset: the dataset, of which only the length is used.
        batch_size: rows per batch and process.
        num_replicas: the number of processes. None: that of the process group, or 1 without one.
        rank: the index of this process. None: that of the process group.

    Raises:
        ConfigurationError: if ``batch_size`` is below 1.
        ValueError: if ``rank`` is not in [0, ``num_replicas``).
    """

    def __init__(
        self, dataset: Sized, batch_size: int, num_replicas: int | None = None, rank: int | None = None
    ) -> None:
        self.batch_size = whole_number("batch_size", batch_size, at_least=1)
        if num_replicas is None and not are_several_processes():
            num_replicas, rank = 1, 0
        super().__init__(cast(Any, dataset), num_replicas, rank, shuffle=False)
        self._total = len(dataset)

    def __len__(self) -> int:
        """Return the number of batches, the same on every process."""
        shares = [len(self._rows_of(rank)) for rank in (0, self.num_replicas - 1)]  # the longest and the shortest
        return min(-(-shares[0] // self.batch_size), shares[1])

    def __iter__(self) -> Iterator[list[int]]:
        """Return the batches of this process."""
        rows = self._rows_of(self.rank)
        batches = len(self)
        # A batch starts early enough to leave a row for each batch that follows.
        starts = [min(batch * self.batch_size, len(rows) - batches + batch) for batch in range(batches)]
        return (list(rows[start:stop]) for start, stop in pairwise([*starts, len(rows)]))

    def _rows_of(self, rank: int) -> range:
        if self._total < self.num_replicas:
            return range(self._total)
        return range(rank, self._total, self.num_replicas)
