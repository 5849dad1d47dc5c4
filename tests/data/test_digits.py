from itertools import chain

import numpy as np
import torch
from sklearn.datasets import load_digits

from lit_bottleneck.data import Digits


def rows(dataset):
    return dataset.examples.rows.tolist()


def test_the_digits_are_scikit_learns_pixel_for_pixel():
    bunch = load_digits()
    data = Digits(value_range=(-1, 1))
    for part in ("train", "val", "test"):
        dataset = data.dataset(part)
        x, y = dataset.__getitems__(range(len(dataset)))
        np.testing.assert_allclose(x[:, 0].numpy(), bunch.images[rows(dataset)] / 8 - 1, rtol=0, atol=1e-7)
        assert np.array_equal(y.numpy(), bunch.target[rows(dataset)])


def test_the_parts_are_disjoint_cover_everything_and_are_stratified():
    data = Digits()
    parts = {part: rows(data.dataset(part)) for part in ("train", "val", "test")}
    assert {part: len(chosen) for part, chosen in parts.items()} == {"train": 1294, "val": 144, "test": 359}
    assert sorted(chain(*parts.values())) == list(range(1797))
    labels = torch.from_numpy(load_digits().target)
    share = labels.bincount() / 1797
    for chosen in parts.values():
        torch.testing.assert_close(labels[chosen].bincount(minlength=10) / len(chosen), share, rtol=0, atol=0.006)
