"""Moments of the marginal: closed forms of Gaussians, scikit-learn's regressions, and degenerate codes."""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import digamma
from sklearn.linear_model import LinearRegression
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from lit_bottleneck.metrics.marginal_moments import MarginalMoments, marginal_moments
from lit_bottleneck.metrics.rate import rate
from tests.metrics.cases import exact, randn


def white(rows: int, width: int, seed: int = 0) -> Tensor:
    """Rows whose mean is exactly 0 and whose covariance (divided by N) exactly 1."""
    x = randn(rows, width, seed=seed)
    x = x - x.mean(0)
    root = torch.linalg.cholesky(x.T @ x / rows)
    return torch.linalg.solve_triangular(root, x.T, upper=False).T


def with_covariance(covariance: Tensor, rows: int = 200) -> Tensor:
    return white(rows, len(covariance)) @ torch.linalg.cholesky(covariance).T


def moments(mean: Tensor, log_var: Tensor) -> dict[str, float]:
    return exact(MarginalMoments(), (mean, log_var))


def noiseless(mean: Tensor, batch_size: int = 1000) -> dict[str, float]:
    """Moments of codes without noise."""
    return exact(MarginalMoments(), *((batch, torch.full_like(batch, -torch.inf)) for batch in mean.split(batch_size)))


def linear_channel() -> tuple[Tensor, Tensor]:
    """Codes of a linear Gaussian channel, for inputs with exactly its moments."""
    x = with_covariance(torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64))
    weight = torch.tensor([[0.6, 0.0], [0.3, 0.8]], dtype=torch.float64)
    mean = x @ weight.T + torch.tensor([0.2, -0.1])
    return mean, torch.tensor([0.5, 0.25]).double().log().expand_as(mean)


def test_the_linear_channel_has_its_known_terms() -> None:
    found = moments(*linear_channel())
    assert found["rate"] == pytest.approx(1.329721, abs=1e-6)
    assert found["marginal_kl"] == pytest.approx(0.183171, abs=1e-6)
    assert found["total_correlation"] == pytest.approx(0.127610, abs=1e-6)
    assert found["dimension_wise_kl"] == pytest.approx(0.055561, abs=1e-6)
    assert found["information_upper"] == pytest.approx(1.146550, abs=1e-6)


def test_moments_equal_torch_distributions_and_numpy() -> None:
    mean, log_var = randn(60, 4) @ randn(4, 4, seed=1) + 2, randn(60, 4, seed=2)
    covariance = np.cov(mean.numpy(), rowvar=False, bias=True) + np.diag(log_var.exp().mean(0).numpy())
    marginal = MultivariateNormal(mean.mean(0), torch.from_numpy(covariance))
    prior = MultivariateNormal(torch.zeros(4).double(), torch.eye(4).double())
    found = moments(mean, log_var)
    assert found["marginal_kl"] == pytest.approx(kl_divergence(marginal, prior).item(), rel=1e-10)
    scale = np.sqrt(np.diag(covariance))
    correlation = covariance / scale[:, None] / scale
    assert found["total_correlation"] == pytest.approx(-0.5 * np.log(np.linalg.det(correlation)), rel=1e-10)
    assert found["largest_correlation"] == pytest.approx(np.abs(correlation - np.eye(4)).max(), rel=1e-10)
    assert found["marginal_kl"] == pytest.approx(found["total_correlation"] + found["dimension_wise_kl"], rel=1e-12)
    p = np.linalg.solve(covariance, np.cov(mean.numpy(), rowvar=False, bias=True))
    bias = (np.trace(p) ** 2 + np.trace(p @ p) + 2 * np.trace(p)) / (4 * 60)
    assert found["marginal_kl_bias"] == pytest.approx(bias, rel=1e-10)
    assert found["information_upper"] == pytest.approx(found["rate"] - found["marginal_kl"], rel=1e-10)
    assert found["rate"] == pytest.approx(rate(mean, log_var)["rate"].item(), rel=1e-6)


def test_equicorrelated_codes() -> None:
    covariance = torch.full((4, 4), 0.5).double().fill_diagonal_(1)
    mean = with_covariance(covariance - 0.25 * torch.eye(4))  # noise brings the diagonal back to 1
    found = moments(mean, torch.full_like(mean, math.log(0.25)))
    assert found["predictability"] == pytest.approx(0.375, rel=1e-9)
    assert found["predictability_max"] == pytest.approx(0.375, rel=1e-9)
    assert found["total_correlation"] == pytest.approx(0.581575, abs=1e-6)
    assert found["largest_correlation"] == pytest.approx(0.5, rel=1e-9)
    assert found["dimension_wise_kl"] == pytest.approx(0, abs=1e-12)


def test_predictability_is_that_of_a_linear_regression() -> None:
    mean = randn(80, 4) @ randn(4, 4, seed=1)
    found = noiseless(mean)
    x = mean.numpy()
    splits = [(np.delete(x, j, 1), x[:, j]) for j in range(4)]
    scores = [LinearRegression().fit(*split).score(*split) for split in splits]
    assert found["predictability"] == pytest.approx(np.mean(scores), rel=1e-9)
    assert found["predictability_max"] == pytest.approx(max(scores), rel=1e-9)


def test_the_bias_is_about_the_excess_of_the_plug_in() -> None:
    # Three active dimensions of sixteen: the true marginal is N(0, I), its KL 0.
    signal = torch.zeros(16).double()
    signal[:3] = 0.9
    log_var = (1 - signal).log()
    runs = [moments(randn(1000, 16, seed=seed) * signal.sqrt(), log_var.expand(1000, 16)) for seed in range(100)]
    plug_ins, biases = ([run[name] for run in runs] for name in ("marginal_kl", "marginal_kl_bias"))
    error = np.std(plug_ins) / math.sqrt(100)
    assert 0.003 < np.mean(biases) < 0.005
    assert abs(np.mean(plug_ins) - np.mean(biases)) < 4 * error
    assert error < 0.1 * np.mean(biases)


@pytest.mark.parametrize("log_var", [-math.inf, -30.0])
def test_the_bias_of_independent_codes_is_that_of_wishart_or_infinite(log_var: float) -> None:
    """The expected excess of the plug-in in closed form, for N codes that are draws of N(0, I) in K dimensions.

    The mean of ``tr C + |m|^2 - K`` is 0. N C is a Wishart matrix with N - 1 degrees of freedom, of which the mean of
    ``log det`` is ``sum_{i=1..K} digamma((N - i) / 2) + K log 2`` (Bishop, B.81), so that the bias is
    ``1/2 (K log N - K log 2 - sum_i digamma((N - i) / 2))``: 3.33 for K = 32 and N = 96, where it is reported as 3.09.
    """
    wishart = {n: 16 * math.log(n / 2) - digamma((n - np.arange(1, 33)) / 2).sum() / 2 for n in (33, 64, 96, 320)}
    assert wishart[96] == pytest.approx(3.332, abs=1e-3)
    for n, expected in wishart.items():
        runs = [moments(randn(n, 32, seed=seed), torch.full((n, 32), log_var)) for seed in range(20)]
        excess = np.array([run["marginal_kl"] for run in runs])
        assert excess.mean() == pytest.approx(expected, abs=4 * excess.std() / math.sqrt(20))
        biases = {run["marginal_kl_bias"] for run in runs}
        if n < 96:
            assert biases == {math.inf}
        else:
            assert max(biases) == pytest.approx(min(biases)) == pytest.approx((32**2 + 3 * 32) / (4 * n))
            assert 0.85 * expected < max(biases) < expected


def test_the_bias_of_five_noisy_codes_of_32_dimensions_is_infinite() -> None:
    """Of N(0, I), half of its variance noise: the KL is 0, its plug-in about 7; the formula has 1.07."""
    runs = [moments(randn(5, 32, seed=i) / math.sqrt(2), torch.full((5, 32), -math.log(2))) for i in range(30)]
    assert np.mean([run["marginal_kl"] for run in runs]) == pytest.approx(7.14, abs=0.4)
    assert {run["marginal_kl_bias"] for run in runs} == {math.inf}


@pytest.mark.parametrize("spread", [0.0, 0.01])
def test_dimensions_that_are_not_in_use_need_no_codes(spread: float) -> None:
    """Of 100 dimensions two carry something: P has 2 eigenvalues of .9, and 98 of 1e-4; 20 codes are enough."""
    scale = torch.full((100,), spread).double()
    scale[:2] = math.sqrt(0.9)
    found = moments(white(400, 100) * scale, (1 - scale.square()).log().expand(400, 100))
    few = moments(randn(20, 100) * scale, (1 - scale.square()).log().expand(20, 100))
    trace, squares = 1.8 + 98 * spread**2, 1.62 + 98 * spread**4
    assert found["marginal_kl_bias"] == pytest.approx((trace**2 + squares + 2 * trace) / 1600, rel=1e-6)
    assert 0.05 < few["marginal_kl_bias"] < 0.15


def test_a_nearly_collapsed_code_needs_few_codes() -> None:
    """100 dimensions with a signal of .01 and noise of .99: the true KL is 0, so that the plug-in is all bias.

    20 codes use up to 20 dimensions, but P is .01 of the identity and tr P = 1: what the formula leaves out is of the
    order (tr P) / N = .05 of it.
    """
    log_var = torch.full((20, 100), math.log(0.99))
    runs = [moments(0.1 * randn(20, 100, seed=seed), log_var) for seed in range(100)]
    excess, biases = (np.array([run[name] for run in runs]) for name in ("marginal_kl", "marginal_kl_bias"))
    assert 0.85 < biases.mean() / excess.mean() < 1
    assert 10 * biases.std() < biases.mean() < 0.05


@pytest.mark.parametrize("log_var", [0.0, -14.0])
@pytest.mark.parametrize("place", [0, 17, 59])
def test_the_total_correlation_with_one_far_code_has_all_its_digits(log_var: float, place: int) -> None:
    """Beside ``1/2 (sum log C_jj - log det C)`` with 60 digits, of the very float64 numbers.

    One code at 1e9 in every dimension makes correlations of 1 - 1e-16: C is about ``1e18 / N u u^T + I``, so that each
    dimension but one adds about ``log(1e9 / sqrt(N)) = 19`` nats. Products of 1e18 have steps of 128 in float64.
    """
    mean = randn(60, 3, seed=5)
    mean[place] = 1e9
    found = exact(MarginalMoments(), *((part, torch.full_like(part, log_var)) for part in mean.split(16)))
    with mpmath.workdps(60):
        x = [[mpmath.mpf(number) for number in column] for column in mean.T.tolist()]
        centred = [[number - mpmath.fsum(column) / 60 for number in column] for column in x]
        covariance = mpmath.matrix(
            [[mpmath.fsum(a * b for a, b in zip(p, q, strict=True)) / 60 for q in centred] for p in centred]
        ) + mpmath.exp(log_var) * mpmath.eye(3)
        variances = mpmath.fsum(mpmath.log(covariance[j, j]) for j in range(3))
        expected = float((variances - mpmath.log(mpmath.det(covariance))) / 2)
    assert 36 < expected < 41
    assert found["total_correlation"] == pytest.approx(expected, rel=1e-7)


def test_wide_codes_have_the_same_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond some width the sums are of products instead of roots."""
    mean, log_var = randn(60, 4) @ randn(4, 4, seed=1) + 1e4, randn(60, 4, seed=2)
    batches = list(zip(mean.split(16), log_var.split(16), strict=True))
    plain = exact(MarginalMoments(), *batches)
    monkeypatch.setattr("lit_bottleneck.metrics.scatter._WIDEST_ROOT", 3)
    assert exact(MarginalMoments(), *batches) == pytest.approx(plain, rel=1e-9)


@given(st.lists(st.floats(-8, 8), min_size=3, max_size=3), st.lists(st.floats(-100, 100), min_size=3, max_size=3))
def test_correlations_do_not_depend_on_scale_and_shift(exponents: list[float], places: list[float]) -> None:
    scale = 10 ** torch.tensor(exponents).double()
    mean, log_var = randn(50, 3) @ randn(3, 3, seed=1), randn(50, 3, seed=2) - 1
    plain = moments(mean, log_var)
    moved = moments((mean + torch.tensor(places)) * scale, log_var + 2 * scale.log())
    for name in ("total_correlation", "predictability", "predictability_max", "largest_correlation"):
        assert moved[name] == pytest.approx(plain[name], rel=1e-8)
    assert moved["marginal_kl_bias"] == pytest.approx(plain["marginal_kl_bias"], rel=1e-8)


@given(st.integers(2, 30), st.integers(1, 6), st.integers(0, 1000), st.floats(-12, 6), st.floats(0, 50))
def test_results_keep_their_ranges(n: int, width: int, seed: int, log_var: float, spread: float) -> None:
    found = moments(spread * randn(n, width, seed=seed), log_var + randn(n, width, seed=seed + 1))
    assert found.pop("marginal_kl_bias") >= 0  # infinite for too few codes
    assert all(math.isfinite(value) for value in found.values())
    assert found["total_correlation"] >= 0
    assert found["dimension_wise_kl"] >= -1e-12
    assert 0 <= found["predictability"] <= found["predictability_max"] <= 1
    assert 0 <= found["largest_correlation"] <= 1
    assert found["marginal_kl"] <= found["rate"] + 1e-9
    assert 0 <= found["information_upper"] <= found["rate"]


def test_one_dimension_has_no_correlation() -> None:
    found = moments(randn(10, 1), torch.zeros(10, 1))
    names = ("total_correlation", "predictability", "predictability_max", "largest_correlation")
    assert [found[name] for name in names] == [0, 0, 0, 0]


def test_codes_without_noise_are_described_by_their_means() -> None:
    mean = with_covariance(torch.tensor([[2.0, 1.0], [1.0, 3.0]]).double(), rows=50)
    found = noiseless(mean)
    assert found["rate"] == found["information_upper"] == math.inf
    assert found["total_correlation"] == pytest.approx(-0.5 * math.log(5 / 6), rel=1e-9)
    assert found["marginal_kl"] == pytest.approx(0.5 * (5 - 2 - math.log(5)), rel=1e-9)
    assert found["marginal_kl_bias"] == pytest.approx(2 * 5 / (4 * 50), rel=1e-9)  # P is the identity


def test_too_few_codes_without_noise_are_counted() -> None:
    with pytest.raises(ValueError, match="without noise in 3 dimensions need at least 4; got 3"):
        marginal_moments(randn(3, 3), torch.full((3, 3), -torch.inf))
    marginal_moments(randn(4, 3), torch.full((4, 3), -torch.inf))
    some = torch.zeros(3, 3)
    some[:, 0] = -torch.inf
    marginal_moments(randn(3, 3), some)


@pytest.mark.parametrize("place", [0.0, 1 / 3, 1e6 + 0.1])
@pytest.mark.parametrize("batch_size", [7, 30])
def test_a_constant_dimension_without_noise_is_uncorrelated(place: float, batch_size: int) -> None:
    mean = randn(30, 2) @ randn(2, 2, seed=1)
    plain = noiseless(mean)
    more = torch.cat([mean, torch.full((30, 1), place).double()], 1)
    found = noiseless(more, batch_size)
    assert found["marginal_kl"] == found["dimension_wise_kl"] == found["information_upper"] == math.inf
    for name in ("total_correlation", "predictability_max", "largest_correlation"):
        assert found[name] == pytest.approx(plain[name], rel=1e-9)
    assert found["predictability"] == pytest.approx(plain["predictability"] * 2 / 3, rel=1e-9)


@pytest.mark.parametrize("rows", [10, 20_000])
@pytest.mark.parametrize("place", [0.0, 1000.0])
def test_exact_dependence_has_infinite_total_correlation(rows: int, place: float) -> None:
    free = randn(rows, 3)
    mean = torch.cat([free[:, :2], free[:, :1] - 2 * free[:, 1:2], free[:, 2:]], 1) + place
    found = noiseless(mean, batch_size=256)
    assert found["total_correlation"] == found["marginal_kl"] == math.inf
    assert math.isfinite(found["dimension_wise_kl"])
    assert found["predictability_max"] == pytest.approx(1, abs=1e-9)
    split = free[:, :2].numpy(), free[:, 2].numpy()
    last = LinearRegression().fit(*split).score(*split)
    assert found["predictability"] == pytest.approx((3 + last) / 4, abs=1e-9)


def test_a_little_noise_prevents_exact_dependence() -> None:
    mean = randn(100, 1).expand(100, 2)
    found = moments(mean, torch.full_like(mean, -14.0))
    variance = mean[:, 0].var(correction=0).item()
    correlation = variance / (variance + math.exp(-14))
    assert found["total_correlation"] == pytest.approx(-0.5 * math.log1p(-(correlation**2)), rel=1e-6)
