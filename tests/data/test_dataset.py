import pickle

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data.dataset import BatchedDataset, Examples, keep_batch


class Squares:
    """Rows made on request: row r is (r, r * r)."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, rows: Tensor) -> Tensor:
        return torch.stack([rows, rows * rows], dim=1)


LABELS = torch.tensor([0, 1, 0, 1, 0, 1])


@pytest.mark.parametrize("inputs", [Squares(), Squares()[torch.arange(6)]], ids=["made", "tensor"])
def test_a_selection_of_a_selection_indexes_the_first(inputs):
    chosen = Examples.of(inputs, LABELS).select(torch.tensor([5, 3, 1])).select(torch.tensor([2, 0]))
    assert len(chosen) == 2
    x, y = chosen.take(torch.tensor([0, 1]))
    assert x.tolist() == [[1, 1], [5, 25]]
    assert y.tolist() == [1, 1]


def test_a_selection_shares_the_memory_of_the_inputs():
    images = torch.zeros(6, 2)
    chosen = Examples.of(images, LABELS).select(torch.tensor([0]))
    assert chosen.inputs is images


def test_inputs_without_labels_are_refused():
    with pytest.raises(ConfigurationError, match="inputs and labels differ in number: 6 and 5"):
        Examples.of(Squares(), LABELS[:5])


@pytest.mark.parametrize("inputs", [Squares(), Squares()[torch.arange(6)]], ids=["made", "tensor"])
def test_a_batch_equals_its_examples_stacked(inputs):
    dataset = BatchedDataset(Examples.of(inputs, LABELS))
    x, y = dataset.__getitems__([4, 0, -1])
    singles = [dataset[4], dataset[0], dataset[-1]]
    assert torch.equal(x, torch.stack([single for single, _ in singles]))
    assert torch.equal(y, torch.stack([label for _, label in singles]))
    assert y.dtype == torch.int64


def test_a_dataset_can_be_iterated_and_ends():
    assert [int(label) for _, label in BatchedDataset(Examples.of(Squares(), LABELS))] == LABELS.tolist()


def test_a_loader_gives_every_example_once_with_and_without_workers():
    dataset = BatchedDataset(Examples.of(Squares(), LABELS))
    for num_workers in (0, 1):
        batches = list(DataLoader(dataset, batch_size=4, num_workers=num_workers, collate_fn=keep_batch))
        assert [len(y) for _, y in batches] == [4, 2]
        assert torch.equal(torch.cat([x for x, _ in batches]), Squares()[torch.arange(6)])


def test_dataset_and_collate_function_pickle():
    dataset, collate = pickle.loads(pickle.dumps((BatchedDataset(Examples.of(Squares(), LABELS)), keep_batch)))
    assert torch.equal(dataset[3][0], torch.tensor([3, 9]))
    assert collate is keep_batch
