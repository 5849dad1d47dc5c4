"""Likelihoods of grey levels: total probability, tails, and the grid of the data."""

import math

import pytest
import torch

from lit_bottleneck.likelihoods import Categorical, DiscretizedLogistic, likelihood_from


@pytest.mark.parametrize("levels", [2, 5, 256])
@pytest.mark.parametrize("kind", [Categorical, DiscretizedLogistic])
def test_the_probabilities_of_the_levels_sum_to_one(kind: type, levels: int) -> None:
    likelihood = kind(levels)
    x = torch.linspace(0, 1, levels, dtype=torch.float64)[:, None]
    for spread in (0.1, 3.0, 100.0):
        torch.manual_seed(0)
        given = spread * torch.randn(1, likelihood.numbers_per_output, dtype=torch.float64)
        log_probs = likelihood.log_prob(given.expand(levels, -1), x)
        assert log_probs.exp().sum().item() == pytest.approx(1, abs=1e-9)
        mean = (log_probs.exp() * x[:, 0]).sum()
        assert likelihood.mean(given).item() == pytest.approx(mean.item(), abs=1e-9)
        variance = (log_probs.exp() * (x[:, 0] - mean).square()).sum().item()
        assert likelihood.variance_of(given).item() == pytest.approx(variance, rel=1e-6, abs=1e-12)
        single = likelihood.variance_of(given.float()).item()
        assert single == pytest.approx(variance, rel=1e-3, abs=1e-6 / (levels - 1) ** 2)


def test_far_in_the_tail_the_discretized_logistic_falls_like_an_exponential() -> None:
    """There ``log(s(a) - s(b)) = a + log(1 - exp(b - a))``, while the difference underflows to 0."""
    mean, width = 50.0, 1 / 255 / 0.1  # in scales of .1
    upper = (100.5 / 255 - mean) / 0.1
    given, x = torch.tensor([[mean, 0.0]]), torch.tensor([[100 / 255]])
    expected = upper + math.log(-math.expm1(-width))
    assert DiscretizedLogistic().log_prob(given, x).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", [Categorical, DiscretizedLogistic])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_levels_are_recognised_in_half_precision(kind: type, dtype: torch.dtype) -> None:
    levels, likelihood = torch.arange(256)[:, None] / 255, kind()
    given = torch.randn(256, likelihood.numbers_per_output, generator=torch.Generator().manual_seed(0))
    likelihood.check(levels.to(dtype))
    torch.testing.assert_close(likelihood.log_prob(given, levels.to(dtype)), likelihood.log_prob(given, levels))


def test_levels_of_another_grid_are_refused() -> None:
    for shift in (torch.rand(1, 9) / 255, torch.full((1, 9), 0.5 / 255)):
        for dtype in (torch.float32, torch.float16):
            with pytest.raises(ValueError, match="for Categorical; got"):
                Categorical().check((torch.arange(9)[None] / 255 + shift).to(dtype))
    with pytest.raises(ValueError, match="for Categorical; got"):
        Categorical().check(torch.arange(256)[None] / 256)


def test_bytes_over_255_are_levels() -> None:
    x = torch.arange(256, dtype=torch.uint8)[None].float() / 255
    for kind in (Categorical, DiscretizedLogistic):
        kind().check(x)
    for name in ("continuous_bernoulli", "gaussian"):
        likelihood_from(name).check(x)
