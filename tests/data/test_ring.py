"""Points of a mixture: means, standard deviations and counts of its modes."""

import cmath
import itertools
import math

import pytest
import torch
from torch import Tensor

from lit_bottleneck.data import Ring


def ring(**kwargs: object) -> Ring:
    return Ring(**{"num_examples": 400, "test_size": 80, "batch_size": 50} | kwargs)


def rows(data: Ring, part: str) -> tuple[Tensor, Tensor]:
    dataset = data.dataset(part)
    return dataset.__getitems__(list(range(len(dataset))))


@pytest.mark.parametrize(("num_modes", "radius"), [(1, 2.0), (4, 1.0), (8, 2.0), (25, 0.5)])
def test_the_means_of_a_ring_are_roots_of_unity(num_modes: int, radius: float) -> None:
    roots = [radius * cmath.exp(2j * math.pi * k / num_modes) for k in range(num_modes)]
    expected = torch.tensor([[root.real, root.imag] for root in roots])
    torch.testing.assert_close(ring(num_modes=num_modes, radius=radius).modes, expected, rtol=0, atol=1e-6)


def test_the_means_of_a_grid_are_equally_spaced_row_by_row() -> None:
    modes = ring(layout="grid", num_modes=25, radius=4).modes
    assert modes.dtype == torch.float32
    assert modes.tolist() == [[x, y] for y, x in itertools.product([-4, -2, 0, 2, 4], repeat=2)]
    assert ring(layout="grid", num_modes=1).modes.tolist() == [[0, 0]]


@pytest.mark.parametrize("arguments", [{}, {"layout": "grid", "num_modes": 9, "radius": 1, "std": 0.5}])
def test_points_have_the_means_and_standard_deviations_of_their_modes(arguments: dict[str, object]) -> None:
    """Within five standard errors; the modes overlap in the second case, so that only the labels tell them apart."""
    data = Ring(val_size=0, test_size=9_000, **arguments)
    for part in ("train", "test"):
        points, labels = rows(data, part)
        noise = (points - data.modes[labels]).double() / data.std
        for mode in range(data.num_modes):
            of_mode = noise[labels == mode]
            assert of_mode.mean(0).abs().max() < 5 / math.sqrt(len(of_mode))
            covariance = of_mode.T.cov() - torch.eye(2, dtype=torch.float64)
            assert covariance.abs().max() < 5 * math.sqrt(2 / len(of_mode))


def test_every_mode_has_the_same_number_of_points() -> None:
    data = ring()
    for part, each in (("train", 45), ("val", 5), ("test", 10)):
        assert rows(data, part)[1].bincount().tolist() == [each] * 8
    assert rows(ring(test_size=83), "test")[1].bincount().tolist() == [11] * 3 + [10] * 5
    assert rows(ring(test_size=3), "test")[1].sort().values.tolist() == [0, 1, 2]


def test_modes_come_in_random_order() -> None:
    """One label in eight equals the label before it: neither sorted nor in turn."""
    labels = rows(Ring(val_size=0), "train")[1]
    repeats = (labels[1:] == labels[:-1]).double().mean().item()
    assert repeats == pytest.approx(1 / 8, abs=5 * math.sqrt(7 / 64 / 25_600))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_point_is_in_two_parts(seed: int) -> None:
    data = ring(seed=seed)
    together = torch.cat([rows(data, part)[0] for part in ("train", "val", "test")])
    assert len(together.unique(dim=0)) == 480
    kept, held = (data.dataset(part).examples.rows.tolist() for part in ("train", "val"))
    assert sorted(kept + held) == list(range(400))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_test_noise_is_not_the_training_noise(seed: int) -> None:
    """From one stream of random numbers, equally many points would be the same."""
    data = ring(seed=seed, test_size=400, val_size=0)
    train, test = (rows(data, part) for part in ("train", "test"))
    noise = [points - data.modes[labels] for points, labels in (train, test)]
    assert torch.stack([part.flatten() for part in noise]).corrcoef()[0, 1].abs() < 5 / math.sqrt(800)
