"""The rate of codes: closed forms, torch.distributions, numpy."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from lit_bottleneck.metrics.rate import Rate, rate


def codes(n: int = 50, width: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mean, raw = (torch.randn(n, width, generator=generator, dtype=torch.float64) for _ in range(2))
    return mean * torch.tensor([2.0, 1.0, 0.3, 0.01]), raw - 1


def test_rate_of_the_known_code() -> None:
    mean, variance = torch.tensor([[1.0, -0.5, 0.0]]), torch.tensor([[0.25, 1.0, 4.0]])
    found = rate(mean, variance.log(), per_dimension=True)
    assert found["rate"].item() == pytest.approx(1.75, rel=1e-6)
    assert found["rate_per_dimension"].tolist() == pytest.approx([0.818147, 0.125, 0.806853], abs=1e-6)


def test_rate_equals_torch_distributions_and_active_units_numpy() -> None:
    mean, log_var = codes()
    metric = Rate(per_dimension=True)
    metric.update(mean, log_var)
    expected = kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(0.0, 1.0)).mean(0)
    torch.testing.assert_close(metric.in_float64()["rate_per_dimension"], expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(metric.in_float64()["rate"], expected.sum(), rtol=1e-12, atol=0)
    variances = np.var(mean.numpy(), axis=0)
    for threshold in (0.0, 0.01, 0.5, 100.0):
        assert rate(mean, log_var, threshold)["active_units"].item() == (variances > threshold).sum()
    assert rate(mean, log_var)["active_units"] == 3


def test_bits_are_nats_divided_by_log_2() -> None:
    nats, bits = (rate(*codes(), bits=bits, per_dimension=True) for bits in (False, True))
    for name in ("rate", "rate_per_dimension"):
        torch.testing.assert_close(bits[name], nats[name] / math.log(2))
    assert bits["active_units"] == nats["active_units"]


def test_a_constant_dimension_far_from_zero_is_not_active() -> None:
    mean, log_var = torch.full((1000, 2), 1e6) + torch.tensor([0.1, 0.0]), torch.zeros(1000, 2)
    assert rate(mean, log_var, threshold=0.0)["active_units"] == 0
    mean = mean.double()
    mean[::2, 0] += 0.21  # variance .105 ** 2 = .011025
    assert rate(mean, log_var)["active_units"] == 1


def test_dimensions_that_equal_the_prior_change_nothing() -> None:
    mean, log_var = codes()
    more = torch.cat([mean, torch.zeros(50, 3)], 1), torch.cat([log_var, torch.zeros(50, 3)], 1)
    assert rate(*more) == rate(mean, log_var)


def test_a_code_without_noise_has_an_infinite_rate() -> None:
    found = rate(torch.zeros(2, 2), torch.tensor([[0.0, -torch.inf], [0.0, 0.0]]), per_dimension=True)
    assert found["rate"] == torch.inf
    assert found["rate_per_dimension"].tolist() == [0, torch.inf]


def test_bad_arguments_are_named() -> None:
    for threshold in (-0.1, math.nan):
        with pytest.raises(ValueError, match="threshold must be a finite number that is not negative"):
            Rate(threshold=threshold)
        with pytest.raises(ValueError, match="threshold must be a finite number that is not negative"):
            rate(*codes(), threshold=threshold)
    with pytest.raises(ValueError, match="at least 1 code; got 0"):
        rate(torch.zeros(0, 2), torch.zeros(0, 2))


@pytest.mark.parametrize("batches", [[[0, 1], [2, 3]], [[2, 3], [0, 1]], [[0], [1, 2], [3]], [[0, 1, 2, 3]]])
def test_active_units_are_those_of_all_batches_far_from_the_origin_too(batches: list[list[int]]) -> None:
    """Four codes, two at 0 and two at d: the variance is d^2 / 4, so .25 and .140625; a shift by 1e8 changes nothing.

    (1e8 + .75)^2 has steps of 2 in float64. Within the first batches nothing varies.
    """
    steps = torch.tensor([0.0, 0.0, 1.0, 1.0]).double()
    mean = torch.stack([steps, 0.75 * steps, 1e8 + steps, 1e8 + 0.75 * steps], 1)
    for threshold, active in ((0.14, 4), (0.1407, 2), (0.2501, 0)):
        metric = Rate(threshold)
        for rows in batches:
            metric.update(mean[rows], torch.zeros_like(mean[rows]))
        assert metric.compute()["active_units"] == active
