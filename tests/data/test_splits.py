import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data.splits import stratified_split, validation_count


@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.data())
def test_a_split_is_disjoint_complete_and_of_the_requested_size(labels, data):
    held_out = data.draw(st.integers(0, len(labels) - 1))
    kept, held = stratified_split(torch.tensor(labels), held_out, seed=data.draw(st.integers(0, 2**32 - 1)))
    assert len(held) == held_out
    assert sorted(kept.tolist() + held.tolist()) == list(range(len(labels)))
    assert kept.tolist() == sorted(kept.tolist())


def test_each_label_has_its_share_in_both_parts():
    labels = torch.arange(10).repeat_interleave(torch.arange(10, 110, 10))  # 10 to 100 of each
    _, held = stratified_split(labels, held_out=len(labels) // 10, seed=3)
    assert labels[held].bincount().tolist() == list(range(1, 11))


def test_the_split_depends_on_the_seed_alone():
    labels = torch.arange(100) % 10
    first, again, other = (stratified_split(labels, 20, seed)[1] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("labels", [[0, 0, 0, 1], [0, 1, 2, 0, 1, 2]], ids=["lone label", "fewer rows than labels"])
def test_labels_that_cannot_be_stratified_are_split_at_random(labels):
    kept, held = stratified_split(torch.tensor(labels), held_out=2, seed=0)
    assert len(held) == 2
    assert len(kept) == len(labels) - 2


@pytest.mark.parametrize(
    ("val_size", "total", "count"),
    [(0, 10, 0), (0.0, 10, 0), (1, 10, 1), (9, 10, 9), (0.25, 10, 2), (0.26, 10, 3), (0.001, 10, 1)],
)
def test_counts_and_fractions(val_size, total, count):
    assert validation_count(val_size, total) == count


@pytest.mark.parametrize("val_size", [10, 11, 0.99])
def test_holding_out_all_rows_is_refused(val_size):
    with pytest.raises(ConfigurationError, match=rf"val_size={val_size}.*of 10 rows"):
        validation_count(val_size, 10)
