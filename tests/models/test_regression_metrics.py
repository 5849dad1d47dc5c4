"""R2 and the form of targets: against scikit-learn and exact arithmetic, where sums cancel and where rows are few."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score
from torch import Tensor

from lit_bottleneck.models.targets import R2, TargetUnits, merge_moments


def exact(truth: Tensor, predicted: Tensor) -> float:
    """Return the R2 of one target by rational arithmetic on the given floating-point numbers."""
    ys, ps = ([Fraction(value) for value in column.flatten().tolist()] for column in (truth, predicted))
    mean = sum(ys) / len(ys)
    squares = sum((y - mean) ** 2 for y in ys)
    return float(1 - sum((y - p) ** 2 for y, p in zip(ys, ps, strict=True)) / squares)


def found(truth: Tensor, predicted: Tensor, size: int) -> float:
    metric = R2(truth[0].numel())
    for y, p in zip(truth.split(size), predicted.split(size), strict=True):
        metric.update(p, y)
    return metric.compute().item()


@pytest.mark.parametrize("size", [1, 7, 50])
@pytest.mark.parametrize("targets", [1, 3])
def test_r2_is_scikit_learns_however_the_rows_are_batched(size: int, targets: int) -> None:
    generator = torch.Generator().manual_seed(targets)
    truth = torch.randn(50, targets, generator=generator) * torch.logspace(-2, 2, targets)
    predicted = truth + torch.randn(50, targets, generator=generator) * torch.logspace(-3, 2, targets)
    assert found(truth, predicted, size) == pytest.approx(r2_score(truth.numpy(), predicted.numpy()), rel=1e-6)


@pytest.mark.parametrize(
    ("mean", "deviation"), [(1e8, 1.0), (-3e6, 0.5), (0.0, 1e-6), (0.0, 1e6)], ids=["far", "years", "tiny", "huge"]
)
def test_r2_is_exact_for_targets_far_from_zero_and_of_any_scale(mean: float, deviation: float) -> None:
    """A sum of squares less a squared sum has no correct digit at 1e8; a tolerance of 1e-4 takes tiny errors for 0."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(40, 2, generator=generator, dtype=torch.float64)
    truth, predicted = mean + deviation * noise[:, :1], mean + deviation * (0.8 * noise[:, :1] + 0.3 * noise[:, 1:])
    assert found(truth, predicted, 9) == pytest.approx(exact(truth, predicted), abs=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e8])
def test_r2_leaves_out_targets_that_do_not_vary(value: float) -> None:
    constant, varying = torch.full((30, 1), value, dtype=torch.float64), torch.randn(30, 1, dtype=torch.float64)
    for off in (0, 1):
        assert math.isnan(found(constant, constant + off, 7))
        both, predicted = torch.cat([constant, varying], 1), torch.cat([constant + off, 0.9 * varying], 1)
        assert found(both, predicted, 7) == pytest.approx(r2_score(varying.numpy(), 0.9 * varying.numpy()))


def test_r2_needs_two_rows_and_takes_empty_batches() -> None:
    metric = R2(2)
    metric.update(torch.zeros(0, 2), torch.zeros(0, 2))
    metric.update(torch.zeros(1, 2), torch.ones(1, 2))
    assert math.isnan(metric.compute())
    metric.update(torch.zeros(1, 2), torch.zeros(1, 2))
    assert metric.compute() == pytest.approx(r2_score([[1, 1], [0, 0]], [[0, 0], [0, 0]]))
    metric.reset()
    assert math.isnan(metric.compute())


def test_parts_merge_in_any_order_to_the_whole() -> None:
    values = torch.randn(30, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 1e6
    parts = []
    for part in (*values.split([1, 12, 17]), values[:0]):
        mean = part.mean(0).nan_to_num()
        squares = (part - mean).square().sum(0)
        parts.append(torch.stack([torch.full_like(mean, len(part)), mean, squares, squares]))
    whole = torch.stack([torch.tensor([30.0]), values.mean(0), *[(values - values.mean(0)).square().sum(0)] * 2])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]):
        merged = merge_moments(torch.stack([parts[place] for place in order]))
        torch.testing.assert_close(merged[:3], whole[:3].double(), rtol=1e-9, atol=0)
    nested = merge_moments(torch.stack([merge_moments(torch.stack(parts[:2])), merge_moments(torch.stack(parts[2:]))]))
    torch.testing.assert_close(nested, merge_moments(torch.stack(parts)), rtol=1e-9, atol=0)


def test_units_are_kept_in_float32_whatever_is_cast() -> None:
    units = TargetUnits((2,))
    assert not units.are_given
    units.take([152.1335, 3.0], np.array([77.09301, 0.1]))
    assert units.are_given
    for cast in (units.bfloat16(), units.half(), units.double()):
        restored = cast.restore(torch.tensor([[1.0, -1.0]], dtype=torch.float64))
        torch.testing.assert_close(restored, torch.tensor([[229.22651, 2.9]], dtype=torch.float64), rtol=1e-6, atol=0)
