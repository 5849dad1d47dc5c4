"""Continuous Bernoulli against closed forms and quadrature."""

import math

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from lit_bottleneck.likelihoods import Bernoulli, ContinuousBernoulli


@pytest.mark.parametrize("logit", [0.0, 1e-6, 0.019, 0.021, -0.5, 5.0, -17.0, 60.0, 500.0])
def test_the_continuous_bernoulli_integrates_to_one(logit: float) -> None:
    """torch's own does not beyond a logit of 16."""
    x = torch.linspace(0, 1, 200_001, dtype=torch.float64)[:, None]
    given = torch.full_like(x, logit)
    density = ContinuousBernoulli().log_prob(given, x).exp()
    assert torch.trapezoid(density, dx=1 / 200_000).item() == pytest.approx(1, abs=1e-4)
    mean = torch.trapezoid(density * x[:, 0], dx=1 / 200_000).item()
    assert ContinuousBernoulli().mean(given[:1]).item() == pytest.approx(mean, abs=1e-4)
    single = ContinuousBernoulli().log_prob(given.float(), x.float())
    torch.testing.assert_close(single, density.log().float(), rtol=1e-4, atol=1e-4)


def closed_form(logit: Tensor, x: float) -> tuple[Tensor, Tensor]:
    """Return log-density and mean of the continuous Bernoulli in float64, for logits that are not near 0."""
    size, place = logit.abs(), torch.where(logit > 0, x, 1 - x)
    log_density = size * (place - 1) - torch.log(-torch.expm1(-size)) + size.log()
    mean = -1 / torch.expm1(-size) - 1 / size
    return log_density, torch.where(logit > 0, mean, 1 - mean)


@pytest.mark.parametrize("x", [0.0, 0.25, 1.0])
def test_the_continuous_bernoulli_is_accurate_for_every_logit(x: float) -> None:
    """In single precision torch's own mean is off by 4e-4 at a logit of .005, its density by 1.8 nats at 100."""
    logits = torch.logspace(-3, 4, 400).repeat(2) * torch.tensor([1.0, -1.0]).repeat_interleave(400)
    density, mean = closed_form(logits.double(), x)
    given = logits[:, None].requires_grad_()
    likelihood = ContinuousBernoulli()
    found = likelihood.log_prob(given, torch.full_like(given, x))
    torch.testing.assert_close(found.double(), density, rtol=2e-7, atol=2e-6)
    torch.testing.assert_close(likelihood.mean(given)[:, 0].double(), mean, rtol=0, atol=5e-7)
    (slope,) = torch.autograd.grad(found.sum(), given)
    torch.testing.assert_close(slope[:, 0].double(), x - mean, rtol=0, atol=1e-6)  # that of an exponential family


def test_the_variance_of_the_continuous_bernoulli_is_the_slope_of_its_mean() -> None:
    """In an exponential family; ``1/l^2 - 1/(4 sinh(l/2)^2)`` in float64, and by quadrature."""
    logits = (torch.logspace(-3, 4, 400).repeat(2) * torch.tensor([1.0, -1.0]).repeat_interleave(400))[:, None]
    likelihood, wide = ContinuousBernoulli(), logits.double().requires_grad_()
    (slope,) = torch.autograd.grad(likelihood.mean(wide).sum(), wide)
    torch.testing.assert_close(likelihood.variance_of(logits).double(), slope, rtol=2e-5, atol=0)
    assert likelihood.variance_of(torch.zeros(1, 1)).item() == pytest.approx(1 / 12)
    far = wide.detach()[(wide.abs() > 1) & (wide.abs() < 500)][:, None]
    closed = far.pow(-2) - 0.25 * (far / 2).sinh().pow(-2)
    torch.testing.assert_close(likelihood.variance_of(far), closed, rtol=1e-12, atol=0)
    x = torch.linspace(0, 1, 100_001, dtype=torch.float64)[:, None]
    for logit in (0.019, -0.59, 0.61, 5.0):
        given = torch.full_like(x, logit)
        off = (x - likelihood.mean(given[:1]))[:, 0].square()
        integral = torch.trapezoid(likelihood.log_prob(given, x).exp() * off, dx=1e-5).item()
        assert likelihood.variance_of(given[:1]).item() == pytest.approx(integral, rel=1e-8)


def test_the_continuous_bernoulli_is_smooth_at_zero() -> None:
    given = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    likelihood = ContinuousBernoulli()
    (slope,) = torch.autograd.grad(likelihood.mean(given), given)
    assert slope.item() == pytest.approx(1 / 12)  # the variance of a uniform
    assert torch.autograd.gradcheck(lambda p: likelihood.log_prob(p, torch.full_like(p, 0.2)), given)


@pytest.mark.parametrize("logit", [0.0, 1e-3, -0.5, 20.0, -100.0])
def test_draws_of_the_continuous_bernoulli_have_its_distribution(logit: float) -> None:
    torch.manual_seed(0)
    draws = ContinuousBernoulli().sample(torch.full((5000, 1), logit))[:, 0].double()
    cdf = torch.expm1(logit * draws) / math.expm1(logit) if logit else draws
    assert kstest(cdf.numpy(), "uniform").pvalue > 0.01


def test_binary_data_may_be_of_any_dtype() -> None:
    x = torch.tensor([[0, 1, 1]])
    given = torch.randn(1, 3)
    for dtype in (torch.bool, torch.uint8, torch.float16, torch.float64):
        Bernoulli().check(x.to(dtype))
        assert Bernoulli().log_prob(given, x.to(dtype)) == pytest.approx(Bernoulli().log_prob(given, x.float()).item())
