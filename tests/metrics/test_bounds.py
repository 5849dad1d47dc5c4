"""Bounds of the log-likelihood: a linear Gaussian model with a known likelihood."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal
from torchmetrics import Metric

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.metrics import ELBO, ImportanceWeightedBound
from lit_bottleneck.metrics.elbo import importance_weighted_bound
from tests.metrics.cases import randn


def linear_gaussian(num_samples: int, shift: float) -> tuple[Tensor, Tensor]:
    """Log-weights ``(S, B)`` of ``z ~ N(0, 1), x|z ~ N(w z, I / 2)`` and log q(x), for a wrong posterior."""
    w, x = torch.tensor([1.0, -0.5, 2.0]).double(), randn(20, 3)
    covariance = w[:, None] * w + torch.eye(3) / 2
    truth = MultivariateNormal(torch.zeros(3).double(), covariance).log_prob(x)
    variance = 1 / (1 + 2 * w @ w)
    posterior = Normal(2 * variance * (x @ w) + shift, variance.sqrt() * (1 + shift))
    z = posterior.loc + posterior.scale * randn(num_samples, 20, seed=1)
    likelihood = Normal(z[..., None] * w, math.sqrt(0.5)).log_prob(x).sum(-1)
    return likelihood + Normal(0.0, 1.0).log_prob(z) - posterior.log_prob(z), truth


def test_with_the_exact_posterior_every_bound_is_the_truth() -> None:
    log_weights, truth = linear_gaussian(6, shift=0.0)
    for k in (1, 2, 3, 6):
        torch.testing.assert_close(importance_weighted_bound(log_weights, k), truth, rtol=1e-10, atol=0)
        metric = ImportanceWeightedBound(k)
        metric.update(log_weights)
        torch.testing.assert_close(metric.compute(), truth.mean().float())


def test_the_bound_grows_with_k_towards_the_truth() -> None:
    log_weights, truth = linear_gaussian(4000, shift=0.2)
    bounds = [importance_weighted_bound(log_weights, k) for k in (1, 5, 50, 4000)]
    for smaller, larger in pairwise(bounds):
        assert bool((smaller < larger).all())  # of the same weights, by Jensen's inequality
    assert bounds[0].mean() < truth.mean() - 0.1
    spread = (log_weights - truth).exp().std(0) / math.sqrt(4000)  # of the mean weight, whose logarithm the last one is
    assert bool(((bounds[-1] - truth).abs() < 5 * spread).all())


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 4), st.floats(0, 1e4))
def test_it_is_the_mean_over_the_groups(k: int, groups: int, examples: int, spread: float) -> None:
    log_weights = spread * randn(k * groups, examples, seed=k)
    expected = np.mean(logsumexp(log_weights.numpy().reshape(groups, k, examples), 1) - math.log(k), 0)
    assert importance_weighted_bound(log_weights, k).numpy() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_log_weights_of_minus_infinity_are_weights_of_zero() -> None:
    log_weights = torch.tensor([[0.0, -torch.inf], [-torch.inf, 2.0]])
    assert importance_weighted_bound(log_weights, 2).tolist() == pytest.approx([-math.log(2), 2 - math.log(2)])
    with pytest.raises(ValueError, match="-inf in all 1 samples of a group; 2 of 2 examples"):
        importance_weighted_bound(log_weights, 1)


def test_the_elbo_is_the_mean_over_examples_not_batches() -> None:
    distortion, rate = 100 + randn(10), randn(10, seed=1).square()
    metric = ELBO()
    for rows in (slice(7), slice(7, 7), slice(7, 10)):
        metric.update(distortion[rows], rate[rows])
    found = metric.compute()
    torch.testing.assert_close(found["elbo"], -(distortion + rate).mean().float())
    torch.testing.assert_close(found["distortion"], distortion.mean().float())
    torch.testing.assert_close(found["rate"], rate.mean().float())


BAD = torch.tensor([[0.0, torch.nan, 0.0], [0.0, 0.0, torch.inf]])


@pytest.mark.parametrize(
    ("metric", "arguments", "message"),
    [
        (ImportanceWeightedBound(4), (torch.zeros(6, 2),), "k=4 needs a number of samples that is a multiple of it"),
        *(
            (ImportanceWeightedBound(1), (torch.zeros(shape),), r"log_weights must be \(S, B\), with S at least 1")
            for shape in ((6,), (0, 2), (2, 2, 2))
        ),
        (ImportanceWeightedBound(2), (BAD,), "finite or -inf; 2 of 3 examples have NaN or"),
        (ELBO(), (torch.zeros(3), torch.zeros(2)), r"must be \(B,\).*got \(3,\) and \(2,\)"),
        (ELBO(), (torch.zeros(3, 1), torch.zeros(3, 1)), r"must be \(B,\).*got \(3, 1\) and \(3, 1\)"),
        (ELBO(), (BAD.sum(0), torch.zeros(3)), "distortion must be finite; 2 of 3 rows"),
        (ELBO(), (torch.zeros(3), BAD.sum(0)), "rate must be finite; 2 of 3 rows"),
    ],
)
def test_invalid_values_are_refused(metric: Metric, arguments: tuple[Tensor, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric.update(*arguments)


@pytest.mark.parametrize("make", [ELBO, lambda: ImportanceWeightedBound(1)])
def test_a_mean_needs_examples(make: Callable[[], Metric]) -> None:
    with pytest.raises(ValueError, match="at least 1 example; got 0"), pytest.warns(UserWarning, match="before"):
        make().compute()
    with pytest.raises(ConfigurationError, match="k must be a whole number, at least 1"):
        ImportanceWeightedBound(0)
