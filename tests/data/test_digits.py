import numpy as np
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
