"""Coverage of modes: constructed points, and the mixture itself."""

import math

import pytest
import torch
from torch import Tensor

from lit_bottleneck.metrics import ModeCoverage
from lit_bottleneck.metrics.mode_coverage import mode_coverage
from tests.metrics.cases import values

RING = torch.tensor([[math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)] for k in range(8)])


def drawn(std: float, per_mode: int, seed: int = 0, modes: Tensor = RING) -> Tensor:
    noise = torch.randn(per_mode, *modes.shape, generator=torch.Generator().manual_seed(seed))
    return (modes + std * noise).flatten(0, 1)


def test_points_with_known_answers() -> None:
    modes = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = torch.tensor(
        [
            [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0],  # variance 2/3 in both, about the mode
            [10.0, 2.0], [10.0, 3.0],  # variance 0 and 1/2, about 2.5
            [0.0, 13.0],  # one point, just good
            [0.0, 13.1], [5.0, 5.0], [torch.nan, 0.0], [torch.inf, 0.0], [-3.0, -3.0],  # five points that are not good
        ]
    )  # fmt: skip
    assert values(mode_coverage(points, modes, std=1.0)) == pytest.approx(
        {"good": 7 / 12, "modes": 3, "smallest_mode": 1 / 7, "spread_min": 0, "spread_max": math.sqrt(2 / 3)}
    )
    scaled = mode_coverage(100 * points, 100 * modes, std=100.0)
    assert values(scaled) == pytest.approx(values(mode_coverage(points, modes, std=1.0)))


def test_spread_is_that_of_torch_about_the_points_own_mean() -> None:
    points = drawn(0.01, 20) + torch.tensor([0.005, -0.01])
    groups = points.double().reshape(20, 8, 2)
    expected = groups.var(0).mean(1).sqrt() / 0.02
    coverage = values(mode_coverage(points, RING, std=0.02))
    assert coverage["good"] == 1
    assert coverage["spread_min"] == pytest.approx(expected.min().item(), rel=1e-6)
    assert coverage["spread_max"] == pytest.approx(expected.max().item(), rel=1e-6)


def test_nothing_cancels_where_the_modes_are_far_from_zero() -> None:
    points = drawn(1e-3, 100).double()
    near = values(mode_coverage(points, RING, std=1e-3))
    far = values(mode_coverage(points + 1e6, RING.double() + 1e6, std=1e-3))
    assert far == pytest.approx(near, rel=1e-4)


def test_the_mixture_itself_has_the_shares_of_the_docstring() -> None:
    coverage = values(mode_coverage(drawn(0.05, 40_000), RING, std=0.05))
    assert coverage["good"] == pytest.approx(1 - math.exp(-4.5), abs=1e-3)
    truncated = math.sqrt(1 - 4.5 / math.expm1(4.5))
    assert round(truncated, 3) == 0.974
    assert coverage["spread_min"] == pytest.approx(truncated, abs=0.01)
    assert coverage["spread_max"] == pytest.approx(truncated, abs=0.01)
    assert coverage["modes"] == 8
    assert coverage["smallest_mode"] == pytest.approx(1 / 8, abs=1e-3)


@pytest.mark.parametrize(("of_last", "held"), [(0, 1), (4, 1), (5, 2)])
def test_a_mode_needs_five_percent_of_the_good_points(of_last: int, held: int) -> None:
    points = torch.cat([torch.zeros(100 - of_last, 2), torch.full((of_last, 2), 9.0), torch.full((50, 2), 4.0)])
    coverage = values(mode_coverage(points, torch.tensor([[0.0, 0.0], [9.0, 9.0]]), std=0.1))
    assert coverage["modes"] == held
    assert coverage["smallest_mode"] == pytest.approx(of_last / 100)


def test_without_a_good_point_everything_is_zero() -> None:
    assert set(values(mode_coverage(torch.full((4, 2), 50.0), RING, std=0.1)).values()) == {0}
    assert set(values(mode_coverage(torch.full((4, 2), torch.nan), RING, std=0.1)).values()) == {0}


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"modes must be .*got \(8,\)"):
        ModeCoverage(RING[:, 0], 0.1)
    for std in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="std must be a finite number above 0"):
            ModeCoverage(RING, std)
    with pytest.raises(ValueError, match=r"points must be \(B, 2\).*got \(5, 3\)"):
        ModeCoverage(RING, 0.1).update(torch.zeros(5, 3))
    with pytest.raises(ValueError, match="at least 1 point; got 0"):
        mode_coverage(torch.zeros(0, 2), RING, 0.1)
