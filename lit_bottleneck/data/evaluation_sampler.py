"""The batches of an evaluation on several processes, of which every row counts once."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from itertools import pairwise
from typing import Any, cast

from torch.utils.data import DistributedSampler

from lit_bottleneck.training.distributed import are_several_processes


class EvaluationSampler(DistributedSampler[list[int]]):
    """Lists of indices, one a batch: every row on one of the processes, in as many batches on each.

    torch's `DistributedSampler` repeats rows so that their number divides evenly, and they count twice in every
    metric. Here the row `i` is on the process `i` modulo their number. The last batches are shorter where need be. For
    a data module of your own, of which Lightning then leaves the loaders as they are::

        def test_dataloader(self):
            sampler = EvaluationSampler(self.dataset, batch_size=64)
            return DataLoader(self.dataset, sampler=sampler, batch_size=None)

    The dataset is indexed by a list, and returns a batch, as a `TensorDataset` does. With one process these are the
    usual batches. Two exceptions let every process have as many batches, and none without a row: of single rows
    (`batch_size=1`) some processes have two in their last batch; and if there are fewer rows than processes, each has
    all of them, which leaves means as they are.

    >>> rows = range(9)
    >>> [list(EvaluationSampler(rows, batch_size=2, num_replicas=2, rank=rank)) for rank in (0, 1)]
    [[[0, 2], [4, 6], [8]], [[1, 3], [5], [7]]]

    Args:
        dataset: What has the rows; only its length is asked for.
        batch_size: Rows per batch and process.
        num_replicas: Processes. None: those of the process group, or one where there is none.
        rank: Which of them this is. None: as the process group says.

    Raises:
        ValueError: If `batch_size` is below 1, or `rank` is none of the processes.
    """

    def __init__(
        self, dataset: Sized, batch_size: int, num_replicas: int | None = None, rank: int | None = None
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size!r} must be an integer of at least 1")
        if num_replicas is None and not are_several_processes():
            num_replicas, rank = 1, 0
        super().__init__(cast(Any, dataset), num_replicas, rank, shuffle=False)
        self.batch_size = batch_size
        self._total = len(dataset)

    def __len__(self) -> int:
        """Return the number of batches, the same on every process."""
        shares = [len(self._rows_of(rank)) for rank in (0, self.num_replicas - 1)]  # the longest and the shortest
        return min(-(-shares[0] // self.batch_size), shares[1])

    def __iter__(self) -> Iterator[list[int]]:
        """Return the batches of this process."""
        rows = self._rows_of(self.rank)
        batches = len(self)
        # A batch begins early enough to leave a row for each of those that follow.
        starts = [min(batch * self.batch_size, len(rows) - batches + batch) for batch in range(batches)]
        return (list(rows[start:stop]) for start, stop in pairwise([*starts, len(rows)]))

    def _rows_of(self, rank: int) -> range:
        if self._total < self.num_replicas:
            return range(self._total)
        return range(rank, self._total, self.num_replicas)
