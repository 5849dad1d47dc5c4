"""Distances between two sets of features: closed forms, and independent numpy implementations."""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.image.fid import FrechetInceptionDistance

from lit_bottleneck.metrics import FrechetDistance, KernelDistance, PrecisionRecall
from lit_bottleneck.metrics.sample_quality import precision_recall

METRICS: list[Callable[[], Metric]] = [lambda: FrechetDistance(4), KernelDistance, PrecisionRecall]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fed(metric: Metric, real: Tensor, generated: Tensor) -> Metric:
    metric.update(real, real=True)
    metric.update(generated, real=False)
    return metric


def white(rows: int, width: int, seed: int) -> Tensor:
    """Rows whose mean is exactly 0 and whose covariance (with n - 1) exactly 1."""
    x = randn(rows, width, seed=seed).double()
    x = x - x.mean(0)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov()), x.T, upper=False).T


# --- all metrics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", METRICS)
def test_invalid_features_are_refused(make: Callable[[], Metric]) -> None:
    with pytest.raises(ValueError, match=r"must be \(B, F\); got \(2, 1, 4\)"):
        make().update(torch.zeros(2, 1, 4), real=True)
    bad = torch.zeros(5, 4)
    bad[1, 0], bad[3, 2] = torch.nan, torch.inf
    with pytest.raises(ValueError, match="2 of 5 rows"):
        make().update(bad, real=False)


@pytest.mark.parametrize(("make", "needed"), [(METRICS[0], 2), (METRICS[1], 2), (METRICS[2], 4)])
def test_too_few_samples_are_counted(make: Callable[[], Metric], needed: int) -> None:
    for real, generated in ((needed - 1, 9), (9, needed - 1), (9, 0)):
        metric = fed(make(), randn(real, 4), randn(generated, 4))
        words = f"at least {needed} samples of each kind; got {real} real, {generated} generated"
        with pytest.raises(ValueError, match=words):
            metric.compute()
    fed(make(), randn(needed, 4), randn(needed, 4, seed=1)).compute()


def test_features_of_two_widths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"of one width; got \(9, 4\) and \(9, 5\)"):
        precision_recall(randn(9, 4), randn(9, 5))
    with pytest.raises(ValueError, match=r"num_features=4, but the features are \(9, 5\)"):
        FrechetDistance(4).update(randn(9, 5), real=True)


@pytest.mark.parametrize("make", METRICS)
def test_half_precision_features_are_measured_in_float32(make: Callable[[], Metric]) -> None:
    real, generated = randn(40, 4, seed=1).half(), randn(30, 4, seed=2).half()
    in_float32 = fed(make(), real.float(), generated.float()).compute()
    torch.testing.assert_close(fed(make(), real, generated).compute(), in_float32)


# --- Fréchet ----------------------------------------------------------------------------------------------------------


def test_frechet_distance_of_known_gaussians_is_the_known_value() -> None:
    # Diagonal covariances: |m - m'|^2 + sum (s - s')^2 = 9 + 16 + (1 - 3)^2 + (2 - .5)^2
    real = white(50, 2, seed=1) * torch.tensor([1.0, 2.0])
    generated = white(60, 2, seed=2) * torch.tensor([3.0, 0.5]) + torch.tensor([3.0, -4.0])
    assert fed(FrechetDistance(2), real, generated).compute().item() == pytest.approx(31.25, rel=1e-9)


def test_frechet_distance_equals_the_matrix_square_root_of_scipy() -> None:
    real, generated = randn(200, 5, seed=1) @ randn(5, 5, seed=2), randn(150, 5, seed=3) @ randn(5, 5, seed=4) + 1
    mean_r, mean_g = (x.double().numpy().mean(0) for x in (real, generated))
    cov_r, cov_g = (np.cov(x.double().numpy(), rowvar=False) for x in (real, generated))
    root = scipy.linalg.sqrtm(cov_r @ cov_g).real
    expected = ((mean_r - mean_g) ** 2).sum() + np.trace(cov_r + cov_g - 2 * root)
    assert fed(FrechetDistance(5), real, generated).compute().item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("batch", [7, 64])
def test_frechet_distance_far_from_the_origin_is_that_of_fractions(batch: int) -> None:
    """Features of 1e8 and a deviation of 1, as whole quarters, so that float64 holds them and fractions are exact.

    In one dimension the distance is ``(m - m')^2 + (s - s')^2``, with variances by n - 1. Sums of squares of 1e16 have
    steps of 2 in float64.
    """
    real, generated = (1e8 + (4 * (randn(64, 1, seed=i) * (1 + i) + i)).double().round() / 4 for i in (0, 1))
    moments = []
    for x in (real, generated):
        x = [Fraction(number) for number in x[:, 0].tolist()]
        mean = sum(x) / 64
        moments.append((mean, sum((number - mean) ** 2 for number in x) / 63))
    (m, v), (n, w) = moments
    expected = float((m - n) ** 2) + (math.sqrt(v) - math.sqrt(w)) ** 2
    metric = FrechetDistance(1)
    for rows in range(0, 64, batch):
        metric.update(real[rows : rows + batch], real=True)
        metric.update(generated[rows : rows + batch], real=False)
    assert 1 < expected < 4
    assert metric.compute().item() == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_is_that_of_torchmetrics() -> None:
    """Where nothing cancels; its sums are in float64 too."""

    class Identity(torch.nn.Identity):
        num_features = 6

    real, generated = randn(90, 6, seed=1) @ randn(6, 6, seed=2), randn(70, 6, seed=3)
    theirs = FrechetInceptionDistance(Identity()).set_dtype(torch.float64)
    assert fed(FrechetDistance(6), real, generated).compute().item() == pytest.approx(
        fed(theirs, real, generated).compute().item(), rel=1e-6
    )


def test_frechet_distance_of_a_set_from_itself_is_zero_also_with_fewer_samples_than_features() -> None:
    x = randn(20, 50)
    assert 0 <= fed(FrechetDistance(50), x, x).compute().item() < 1e-4


# --- kernel -----------------------------------------------------------------------------------------------------------


def numpy_squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    n = len(x)
    within = sum(kernel(s[i], s[j]) for s in (x, y) for i in range(n) for j in range(n) if i != j)
    across = sum(kernel(a, b) for a in x for b in y)
    return within / (n * (n - 1)) - 2 * across / n**2


def test_kernel_distance_of_all_samples_is_the_unbiased_mmd() -> None:
    real, generated = randn(20, 3, seed=1), 1.5 * randn(20, 3, seed=2) + 0.3
    expected = numpy_squared_mmd(real.double().numpy(), generated.double().numpy())
    for subset_size in (20, 1000):
        metric = fed(KernelDistance(subsets=3, subset_size=subset_size), real, generated)
        assert metric.compute().item() == pytest.approx(expected, rel=1e-5)
        assert metric.subset_size == subset_size


def test_kernel_distance_with_one_outlier_is_that_of_fractions() -> None:
    """Whole features, so that the definition is exact: sums over i != j of ((x_i . x_j + F) / F)^3.

    The outlier's kernel with itself, which is no part of it, is 1e36; with another sample it is 1e18 at most.
    """
    real, generated = ((3 * randn(20, 3, seed=seed)).round() for seed in (1, 2))
    real[4] = torch.tensor([1e6, 0.0, -1e6])
    x, y = ([[Fraction(int(number)) for number in row] for row in rows.tolist()] for rows in (real, generated))

    def kernel(a: list[Fraction], b: list[Fraction]) -> Fraction:
        return (sum(i * j for i, j in zip(a, b, strict=True)) / 3 + 1) ** 3

    within = sum(kernel(s[i], s[j]) for s in (x, y) for i in range(20) for j in range(20) if i != j)
    expected = within / 380 - 2 * sum(kernel(a, b) for a in x for b in y) / 400
    found = fed(KernelDistance(subsets=1), real, generated).compute().item()
    assert found == pytest.approx(float(expected), rel=1e-6)


def test_kernel_distance_of_one_distribution_is_zero_in_the_mean() -> None:
    x = randn(2000, 4)
    same = fed(KernelDistance(50, 200), x[:1000], x[1000:]).compute().item()
    other = fed(KernelDistance(50, 200), x[:1000], x[1000:] + 0.5).compute().item()
    assert abs(same) < 0.03 < 0.5 < other


def test_the_seed_draws_the_subsets() -> None:
    real, generated = randn(50, 4, seed=1), randn(40, 4, seed=2)
    first = fed(KernelDistance(5, 10), real, generated).compute()
    assert torch.equal(fed(KernelDistance(5, 10), real, generated).compute(), first)
    assert not torch.equal(fed(KernelDistance(5, 10, seed=1), real, generated).compute(), first)


def test_subsets_are_as_large_as_the_smaller_side() -> None:
    real, generated = randn(50, 4, seed=1), randn(7, 4, seed=2)
    small, exact = KernelDistance(4, 1000), KernelDistance(4, 7)
    assert torch.equal(fed(small, real, generated).compute(), fed(exact, real, generated).compute())


def test_sizes_out_of_range_are_refused() -> None:
    for name, least in (("subsets", 1), ("subset_size", 2)):
        with pytest.raises(ValueError, match=f"{name} must be a whole number, at least {least}"):
            KernelDistance(**{name: least - 1})
    with pytest.raises(ValueError, match="k must be a whole number, at least 1"):
        PrecisionRecall(0)
    with pytest.raises(ValueError, match="max_samples must be a whole number, at least 4"):
        PrecisionRecall(3, max_samples=3)


# --- precision and recall ---------------------------------------------------------------------------------------------


def brute_force(real: np.ndarray, generated: np.ndarray, k: int) -> tuple[float, float]:
    def covered(points: np.ndarray, centres: np.ndarray) -> float:
        reach = [sorted(np.linalg.norm(c - o) for j, o in enumerate(centres) if j != i)[k - 1]
                 for i, c in enumerate(centres)]  # fmt: skip
        inside = [any(np.linalg.norm(p - c) <= r for c, r in zip(centres, reach, strict=True)) for p in points]
        return float(np.mean(inside))

    return covered(generated, real), covered(real, generated)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("at_once", [1, 64, 2**24])
def test_precision_and_recall_equal_brute_force(k: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_bottleneck.metrics.sample_quality._AT_ONCE", at_once)
    real, generated = randn(40, 3, seed=1), 0.8 * randn(30, 3, seed=2) + 1
    expected = brute_force(real.double().numpy(), generated.double().numpy(), k)
    assert 0 < expected[0] < 1
    assert 0 < expected[1] < 1
    precision, recall = precision_recall(real, generated, k)
    assert (precision.item(), recall.item()) == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(
        fed(PrecisionRecall(k), real, generated).compute(), {"precision": precision, "recall": recall}
    )


def test_of_many_samples_some_are_drawn() -> None:
    real, generated = white(30, 4, 1), white(40, 4, 2)
    whole = fed(PrecisionRecall(), real, generated).compute()
    assert fed(PrecisionRecall(max_samples=40), real, generated).compute() == whole
    few = fed(PrecisionRecall(max_samples=20), real, generated).compute()
    generator = torch.Generator().manual_seed(0)
    some = [features[torch.randperm(len(features), generator=generator)[:20]] for features in (real, generated)]
    assert few == fed(PrecisionRecall(), *some).compute() != whole
    assert few != fed(PrecisionRecall(max_samples=20, seed=1), real, generated).compute()


def test_ties_count_as_within_reach() -> None:
    # A new row of a grid with steps of 0.1, which no float equals: as far from the grid as its rows from each other.
    steps = torch.arange(-1, 8).double() * 0.1 + 7
    points = torch.cartesian_prod(steps, steps[1:])
    precision, recall = precision_recall(points[8:], points[:8], k=1)
    assert precision.item() == 1
    assert recall.item() == pytest.approx(8 / 64)


def test_a_far_sample_widens_no_other_radius() -> None:
    """By hand, with k = 1.

    Real samples at (0..9, 0) have a radius of 1. Those generated, at (-10..-1, 1.2), are at least sqrt(1 + 1.44) from
    the nearest; of their own radius of 1 they reach none. The far sample at (1e6, 0) is real, with a radius of 1e6 - 9;
    those generated are 1e6 from it and more. So all shares are 0. Straight below the first real sample, at
    a distance of 1 + 1e-4, they are 0 too.
    """
    steps = torch.arange(10.0)
    real = torch.stack([steps, torch.zeros(10)], 1)
    far = torch.cat([real, torch.tensor([[1e6, 0.0]])])
    generated = torch.stack([steps - 10, torch.full((10,), 1.2)], 1)
    assert [share.item() for share in precision_recall(real, generated, k=1)] == [0, 0]
    assert [share.item() for share in precision_recall(far, generated, k=1)] == [0, 0]
    below = torch.stack([torch.zeros(2), torch.tensor([-1 - 1e-4, -1 - 2e-4])], 1)
    assert precision_recall(far, below, k=1)[0].item() == precision_recall(real, below, k=1)[0].item() == 0


@pytest.mark.parametrize("place", [0.0, 1e6])
def test_precision_and_recall_of_a_bad_ring_with_a_far_sample_equal_brute_force(place: float) -> None:
    """Brute force takes each difference by itself, so that no large square cancels."""
    angle = randn(120, seed=1).double() * 3
    ring = torch.stack([angle.cos(), angle.sin()], 1) + 0.02 * randn(120, 2, seed=2) + place
    bad = 1.1 * (ring - place)[randn(120, seed=3).argsort()] + 0.02 * randn(120, 2, seed=4) + place
    ring[7] += torch.tensor([1e6, -1e6])
    expected = brute_force(ring.numpy(), bad.numpy(), 3)
    assert 0.1 < min(expected) < max(expected) < 0.95
    assert [share.item() for share in precision_recall(ring, bad)] == pytest.approx(expected, abs=1e-6)


def test_a_set_covers_itself_and_nothing_far_away() -> None:
    x = randn(50, 6)
    assert [share.item() for share in precision_recall(x, x.flip(0))] == [1, 1]
    assert [share.item() for share in precision_recall(x, x + 1000)] == [0, 0]
    same = torch.full((9, 6), 0.3)  # a collapsed model: every radius is 0
    assert [share.item() for share in precision_recall(same, same)] == [1, 1]


def test_a_dropped_mode_costs_recall_and_an_invented_one_precision() -> None:
    modes = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0], [100.0, 100.0]])
    all_four = (modes[:, None] + randn(4, 50, 2, seed=1)).flatten(0, 1)
    one = modes[0] + 0.5 * randn(200, 2, seed=2)
    precision, recall = precision_recall(all_four, one)
    assert precision > 0.95
    assert recall <= 0.25
    precision, recall = precision_recall(one, all_four)
    assert precision <= 0.25
    assert recall > 0.95
