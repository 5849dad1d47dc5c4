import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, TensorDataset

from lit_bottleneck.data import EvaluationSampler

COUNTS = st.integers(1, 60)
SIZES = st.integers(1, 9)


def batches_of(count: int, batch_size: int, processes: int) -> list[list[list[int]]]:
    """The batches of each process."""
    samplers = [EvaluationSampler(range(count), batch_size, processes, rank) for rank in range(processes)]
    batches = [list(sampler) for sampler in samplers]
    assert [len(of_one) for of_one in batches] == [len(sampler) for sampler in samplers]
    return batches


@given(COUNTS, SIZES)
def test_one_process_has_the_usual_batches(count: int, batch_size: int) -> None:
    usual = list(BatchSampler(SequentialSampler(range(count)), batch_size, drop_last=False))
    assert batches_of(count, batch_size, 1) == [usual]
    assert list(EvaluationSampler(range(count), batch_size)) == usual


@given(COUNTS, SIZES, st.integers(2, 8))
def test_every_row_is_on_one_process_and_all_have_as_many_batches(count: int, batch_size: int, processes: int) -> None:
    batches = batches_of(count, batch_size, processes)
    assert len(set(map(len, batches))) == 1
    assert all(batch for of_one in batches for batch in of_one)
    largest = max(len(batch) for of_one in batches for batch in of_one)
    assert largest <= max(batch_size, 2)
    rows = [[row for batch in of_one for row in batch] for of_one in batches]
    if count < processes:
        assert rows == [list(range(count))] * processes
    else:
        assert rows == [list(range(rank, count, processes)) for rank in range(processes)]


@given(st.integers(1, 9), st.integers(2, 9), st.integers(1, 8))
def test_there_are_no_more_batches_than_the_rows_need(full: int, batch_size: int, processes: int) -> None:
    count = full * batch_size * processes
    assert {len(batch) for of_one in batches_of(count, batch_size, processes) for batch in of_one} == {batch_size}
    assert len(batches_of(count + 1, batch_size, processes)[0]) == full + 1


def test_without_rows_there_are_no_batches() -> None:
    assert batches_of(0, 4, 2) == [[], []]


def test_it_loads_any_dataset_that_is_indexed_by_lists() -> None:
    dataset = TensorDataset(torch.arange(9))
    batches = [
        [batch.tolist() for (batch,) in DataLoader(dataset, sampler=sampler, batch_size=None)]
        for sampler in (EvaluationSampler(dataset, 4, 2, rank) for rank in (0, 1))
    ]
    assert batches == [[[0, 2, 4, 6], [8]], [[1, 3, 5], [7]]]
