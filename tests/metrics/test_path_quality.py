"""Paths between codes: predictions made by hand, the chi distribution of scipy, draws of the prior."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from lit_bottleneck.functional import InterpolationMode, interpolate
from lit_bottleneck.metrics.path_quality import PathQuality, cycle_error, path_quality, shell_distance
from tests.metrics.cases import values


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def certain(*paths: list[int], num_classes: int = 4) -> Tensor:
    """Log-probabilities ``(T, B, C)`` of paths that are certainly of these classes."""
    return nn.functional.one_hot(torch.tensor(paths).T, num_classes).double().log()


def prior_path(mode: InterpolationMode, k: int, count: int = 4000, steps: int = 11) -> Tensor:
    first, last = randn(count, k, seed=1, dtype=torch.float64), randn(count, k, seed=2, dtype=torch.float64)
    return torch.stack([interpolate(first, last, t, mode) for t in torch.linspace(0, 1, steps).tolist()])


# --- predictions ------------------------------------------------------------------------------------------------------


def test_certain_predictions() -> None:
    quality = values(path_quality(certain([0, 0, 1, 1, 1], [0, 2, 2, 3, 1], [2, 2, 2, 2, 2])))
    assert quality == pytest.approx({"end_classes": 6 / 9, "switches": (1 + 3 + 0) / 3, "entropy": 0})


def test_labels_replace_the_predicted_ends() -> None:
    paths = certain([0, 0, 1, 1], [3, 3, 3, 3])
    labels = torch.tensor([[0, 1], [2, 2]])
    assert values(path_quality(paths))["end_classes"] == 1
    by_label = values(path_quality(paths, labels=labels))
    assert by_label["end_classes"] == pytest.approx(1 / 4)  # a constant classifier gains nothing
    assert by_label["switches"] == values(path_quality(paths))["switches"] == 1 / 2


def test_entropy_is_that_of_scipy_at_the_points_between_the_ends() -> None:
    logs = randn(6, 5, 7, seed=3).log_softmax(-1)
    expected = scipy.stats.entropy(logs[1:-1].double().exp().numpy(), axis=-1).mean()
    assert values(path_quality(logs))["entropy"] == pytest.approx(expected, rel=1e-6)
    moved = logs.clone()
    moved[[0, -1]] = certain(*[[0, 1]] * 5, num_classes=7).float()  # the ends alone
    assert values(path_quality(moved))["entropy"] == pytest.approx(expected, rel=1e-6)


def test_uniform_predictions_have_the_highest_entropy() -> None:
    uniform = torch.full((3, 2, 10), -math.log(10))
    assert values(path_quality(uniform))["entropy"] == pytest.approx(math.log(10), rel=1e-6)
    assert values(path_quality(uniform.bfloat16()))["entropy"] == pytest.approx(math.log(10), rel=1e-2)


def test_a_reversed_path_has_the_same_quality() -> None:
    logs, codes = randn(7, 9, 4, seed=4).log_softmax(-1), randn(7, 9, 3, seed=5)
    forwards, backwards = values(path_quality(logs, codes)), values(path_quality(logs.flip(0), codes.flip(0)))
    assert backwards == pytest.approx(forwards, rel=1e-6)


# --- the shell --------------------------------------------------------------------------------------------------------


def moments_of_the_norm(k: int) -> tuple[float, float]:
    """Return mean and standard deviation that ``shell_distance`` assumes, from its values at a norm of 0 and of 1."""
    z = torch.zeros(2, k, dtype=torch.float64)
    z[1, -1] = 1
    at_zero, at_one = shell_distance(z).tolist()
    std = 1 / (at_one - at_zero)
    return -at_zero * std, std


@pytest.mark.parametrize("k", [1, 2, 3, 10, 128, 255, 256, 784, 4096, 100_000])
def test_moments_of_the_norm_are_those_of_the_chi_distribution(k: int) -> None:
    (mean, std), (next_mean, _) = moments_of_the_norm(k), moments_of_the_norm(k + 1)
    assert mean * next_mean == pytest.approx(k, rel=1e-9)  # by the recurrence of the gamma function
    assert mean**2 + std**2 == pytest.approx(k, rel=1e-9)
    if k >= 128:
        assert std**2 == pytest.approx(1 / 2 - 1 / (8 * k) - 1 / (16 * k**2), rel=1e-6)
    elif k <= 2:
        assert mean == pytest.approx(math.sqrt(2 / math.pi) if k == 1 else math.sqrt(math.pi / 2), rel=1e-9)


@pytest.mark.parametrize("k", [1, 2, 16, 128])
def test_draws_of_the_prior_have_mean_zero_and_variance_one(k: int) -> None:
    distances = shell_distance(randn(40_000, k, seed=6))
    assert distances.mean().item() == pytest.approx(0, abs=4 / 200)
    assert distances.std().item() == pytest.approx(1, abs=0.02)


def test_halfway_between_two_draws_a_straight_line_is_far_inside() -> None:
    first, last = randn(4000, 128, seed=1), randn(4000, 128, seed=2)
    straight = shell_distance(interpolate(first, last, 0.5, "linear")).mean().item()
    kept = shell_distance(interpolate(first, last, 0.5, "variance_preserving")).mean().item()
    mean, variance = (float(moment) for moment in scipy.stats.chi.stats(128, moments="mv"))
    assert straight == pytest.approx((mean / math.sqrt(2) - mean) / math.sqrt(variance), abs=0.05)
    assert round(straight, 1) == -4.7
    assert kept == pytest.approx(0, abs=4 / math.sqrt(4000))


def test_interpolations_that_keep_the_prior_stay_on_its_shell() -> None:
    k = 64
    mean, variance = (float(moment) for moment in scipy.stats.chi.stats(k, moments="mv"))
    t = np.linspace(0, 1, 11)[1:-1]
    inside = ((np.sqrt(t**2 + (1 - t) ** 2) - 1) * mean / math.sqrt(variance)).mean()
    logs = torch.zeros(11, 4000, 1)
    straight = values(path_quality(logs, prior_path("linear", k)))
    assert straight["shell_distance"] == pytest.approx(inside, abs=0.05)
    assert inside < -2
    kept = values(path_quality(logs, prior_path("variance_preserving", k)))
    assert kept["shell_distance"] == pytest.approx(0, abs=0.05)
    assert kept["shell_distance_abs"] == pytest.approx(math.sqrt(2 / math.pi), abs=0.02)  # nearly a normal variable


def test_a_code_of_any_scale_and_precision_is_measured() -> None:
    z = randn(5, 32, seed=7)
    expected = (np.linalg.norm(z.double().numpy(), axis=-1) - scipy.stats.chi.mean(32)) / scipy.stats.chi.std(32)
    assert shell_distance(z).numpy() == pytest.approx(expected, rel=1e-5)
    assert shell_distance(z.half()).dtype == torch.float32
    huge = shell_distance(torch.full((4,), 1e38))  # its square is not in float32
    assert huge.item() == pytest.approx(2e38 / scipy.stats.chi.std(4), rel=1e-6)


# --- cycle ------------------------------------------------------------------------------------------------------------


def test_a_decoder_that_the_encoder_inverts_has_no_cycle_error() -> None:
    z, matrix = randn(50, 6, dtype=torch.float64), randn(6, 6, seed=1, dtype=torch.float64)
    assert cycle_error(lambda x: x, lambda z: z, z) == 0
    there_and_back = cycle_error(lambda x: torch.linalg.solve(matrix, x, left=False), lambda z: z @ matrix, z)
    assert there_and_back.item() == pytest.approx(0, abs=1e-20)


def test_the_cycle_error_of_a_collapsed_encoder_is_the_variance_of_the_prior() -> None:
    z = randn(4000, 8)
    assert cycle_error(torch.zeros_like, lambda z: z, z).item() == pytest.approx(1, abs=0.05)
    assert cycle_error(lambda x: randn(4000, 8, seed=1), lambda z: z, z).item() == pytest.approx(2, abs=0.05)
    assert cycle_error(lambda x: x + 3, lambda z: z, z).item() == pytest.approx(9, rel=1e-5)


def test_codes_of_another_shape_or_none_have_no_cycle_error() -> None:
    with pytest.raises(ValueError, match=r"shape of z, \(5, 4\); got \(5, 3\)"):
        cycle_error(lambda x: x[:, :3], lambda z: z, randn(5, 4))
    with pytest.raises(ValueError, match=r"z must be \(B, K\).*got \(0, 4\)"):
        cycle_error(lambda x: x, lambda z: z, randn(0, 4))


# --- the metric -------------------------------------------------------------------------------------------------------


def test_paths_without_codes_do_not_weaken_the_shell_of_those_with() -> None:
    logs, codes = randn(5, 8, 4, seed=8).log_softmax(-1), randn(5, 8, 3, seed=9)
    metric = PathQuality()
    metric.update(logs)
    assert set(metric.compute()) == {"end_classes", "switches", "entropy"}
    metric.update(logs, codes)
    both, alone = metric.compute(), path_quality(logs, codes)
    torch.testing.assert_close(both, alone)


LOGS, FIRST = torch.zeros(3, 2, 4).log_softmax(-1), torch.tensor([0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3, 4),), r"log_probabilities must be \(T, B, C\), with T at least 3; got \(3, 4\)"),
        ((torch.zeros(2, 5, 4),), r"with T at least 3; got \(2, 5, 4\)"),
        ((torch.zeros(3, 2, 0),), r"with T at least 3; got \(3, 2, 0\)"),
        ((torch.zeros(3, 2, 4),), "at 6 of 6 points they do not: pass log_softmax"),
        *(((LOGS.index_fill(1, FIRST, bad),), "at 3 of 6 points") for bad in (math.nan, math.inf, -math.inf)),
        *(((LOGS, torch.zeros(shape)), r"codes must be \(3, 2, K\); got") for shape in ((3, 2), (3, 3, 5), (4, 2, 5))),
        ((LOGS, torch.full((3, 2, 5), math.nan)), "codes must be finite; 6 of 6 rows"),
        ((LOGS[:, :0],), "at least 1 path; got 0"),
        ((LOGS, None, torch.zeros(2, 3).long()), r"labels must be integers \(2, 2\); got torch.int64 \(2, 3\)"),
        ((LOGS, None, torch.zeros(2, 2)), r"labels must be integers \(2, 2\); got torch.float32"),
        ((LOGS, None, torch.tensor([[0, 1], [-1, 3]])), r"labels must be in \[0, 4\); got -1 to 3"),
        ((LOGS, None, torch.tensor([[0, 1], [4, 3]])), r"labels must be in \[0, 4\); got 0 to 4"),
    ],
)
def test_invalid_paths_are_refused(arguments: tuple[Tensor, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        path_quality(*arguments)
    with pytest.raises(ValueError, match=r"K of at least 1; got \(3, 0\)"):
        shell_distance(torch.zeros(3, 0))
