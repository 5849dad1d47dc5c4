"""Every likelihood: against torch.distributions or its definition, its total probability, its mean and draws."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, distributions

from lit_bottleneck.described import description_of
from lit_bottleneck.functional import bounded_log_var
from lit_bottleneck.likelihoods import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    Gaussian,
    LearnedGaussian,
    Likelihood,
    OptimalGaussian,
    PerOutputGaussian,
    likelihood_from,
)

KINDS = {
    "bernoulli": Bernoulli,
    "categorical": Categorical,
    "continuous_bernoulli": ContinuousBernoulli,
    "discretized_logistic": DiscretizedLogistic,
    "gaussian": Gaussian,
    "gaussian_learned": LearnedGaussian,
    "gaussian_optimal": OptimalGaussian,
    "gaussian_per_output": PerOutputGaussian,
}
OBJECTS: dict[str, Likelihood] = {
    "gaussian": Gaussian(0.7),
    "gaussian_learned": LearnedGaussian(sigma_init=0.3),
    "gaussian_learned_each": LearnedGaussian(dims=(2, 3), sigma_init=0.3),
    "gaussian_per_output": PerOutputGaussian(),
    "gaussian_optimal": OptimalGaussian(),
    "bernoulli": Bernoulli(),
    "continuous_bernoulli": ContinuousBernoulli(),
    "categorical": Categorical(5),
    "discretized_logistic": DiscretizedLogistic(5),
}


def parameters(likelihood: Likelihood, batch: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(batch, 2 * likelihood.numbers_per_output, 3, generator=generator, dtype=dtype)
    if isinstance(likelihood, DiscretizedLogistic):  # not far outside the data, where differences of CDFs cancel
        given[:, :2] = 0.5 + 0.2 * given[:, :2]
    return given


def data(likelihood: Likelihood, batch: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    """Values in the support."""
    x = torch.rand(batch, 2, 3, generator=torch.Generator().manual_seed(1), dtype=dtype)
    if isinstance(likelihood, Bernoulli):
        return x.round()
    return (x * 4).round() / 4 if isinstance(likelihood, (Categorical, DiscretizedLogistic)) else x


def independent(likelihood: Likelihood, given: Tensor, x: Tensor) -> Tensor:
    """The log-density of every output, by torch.distributions or by the definition."""
    first, second = given.chunk(2, 1) if likelihood.numbers_per_output == 2 else (given, None)
    if isinstance(likelihood, Gaussian):
        return distributions.Normal(given, 0.7).log_prob(x)
    if isinstance(likelihood, LearnedGaussian):
        return distributions.Normal(given, 0.3).log_prob(x)
    if isinstance(likelihood, OptimalGaussian):
        return distributions.Normal(given, 1.0).log_prob(x)
    if isinstance(likelihood, PerOutputGaussian):
        return distributions.Normal(first, bounded_log_var(second).exp().sqrt()).log_prob(x)
    if isinstance(likelihood, Bernoulli):
        return distributions.Bernoulli(logits=given).log_prob(x)
    if isinstance(likelihood, ContinuousBernoulli):
        return distributions.ContinuousBernoulli(logits=given).log_prob(x)
    if isinstance(likelihood, Categorical):
        logits = torch.stack(given.chunk(5, 1), -1)
        return distributions.Categorical(logits=logits).log_prob((x * 4).round())
    scale = 0.1 * bounded_log_var(second).exp().sqrt()
    base = distributions.Uniform(torch.zeros_like(x), torch.ones_like(x), validate_args=False)
    logistic = distributions.TransformedDistribution(
        base,
        [distributions.SigmoidTransform().inv, distributions.AffineTransform(first, scale)],
        validate_args=False,
    )
    upper = torch.where(x == 1, 1.0, logistic.cdf(x + 0.125))
    lower = torch.where(x == 0, 0.0, logistic.cdf(x - 0.125))
    return (upper - lower).log()


@pytest.mark.parametrize("name", OBJECTS)
def test_log_prob_is_the_sum_over_outputs_of_an_independent_one(name: str) -> None:
    likelihood = OBJECTS[name].eval()
    given, x = parameters(likelihood), data(likelihood)
    found = likelihood.log_prob(given, x)
    assert (found.shape, found.dtype) == ((4,), torch.float64)
    torch.testing.assert_close(found, independent(likelihood, given, x).flatten(1).sum(1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", OBJECTS)
def test_draws_have_the_mean_and_are_in_the_support(name: str) -> None:
    torch.manual_seed(0)
    likelihood = OBJECTS[name].eval()
    given = parameters(likelihood, batch=1)
    draws = likelihood.sample(given.expand(20_000, *given.shape[1:]))
    likelihood.check(draws)
    assert draws.shape == (20_000, 2, 3)
    distance = (draws.mean(0) - likelihood.mean(given)[0]).abs()
    assert (distance < 5 * draws.std(0) / 20_000**0.5 + 1e-9).all()


@pytest.mark.parametrize("levels", [2, 5, 256])
@pytest.mark.parametrize("kind", [Categorical, DiscretizedLogistic])
def test_the_levels_have_all_the_probability(kind: type, levels: int) -> None:
    likelihood = kind(levels)
    x = torch.linspace(0, 1, levels, dtype=torch.float64)[:, None]
    for spread in (0.1, 3.0, 100.0):
        torch.manual_seed(0)
        given = spread * torch.randn(1, likelihood.numbers_per_output, dtype=torch.float64)
        log_probs = likelihood.log_prob(given.expand(levels, -1), x)
        assert log_probs.exp().sum().item() == pytest.approx(1, abs=1e-9)
        assert likelihood.mean(given).item() == pytest.approx((log_probs.exp() * x[:, 0]).sum().item(), abs=1e-9)


@pytest.mark.parametrize("logit", [0.0, 1e-6, 0.019, 0.021, -0.5, 5.0, -17.0, 60.0, 500.0])
def test_the_continuous_bernoulli_integrates_to_one(logit: float) -> None:
    """torch's own does not, from a logit of 16 on."""
    x = torch.linspace(0, 1, 200_001, dtype=torch.float64)[:, None]
    given = torch.full_like(x, logit)
    density = ContinuousBernoulli().log_prob(given, x).exp()
    assert torch.trapezoid(density, dx=1 / 200_000).item() == pytest.approx(1, abs=1e-4)
    mean = torch.trapezoid(density * x[:, 0], dx=1 / 200_000).item()
    assert ContinuousBernoulli().mean(given[:1]).item() == pytest.approx(mean, abs=1e-4)
    single = ContinuousBernoulli().log_prob(given.float(), x.float())
    torch.testing.assert_close(single, density.log().float(), rtol=1e-4, atol=1e-4)


def test_the_optimal_sigma_has_the_gradient_of_the_profiled_likelihood() -> None:
    x = torch.randn(6, 3, dtype=torch.float64)
    first, second = (torch.ones(6, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    likelihood = OptimalGaussian()
    density = likelihood.log_prob(first, x).sum()
    error = (x - second).square().mean()
    profiled = -9 * (math.log(2 * math.pi) + error.log() + 1)
    torch.testing.assert_close(density, profiled)
    density.backward()
    profiled.backward()
    torch.testing.assert_close(first.grad, second.grad)


def test_the_optimal_sigma_of_evaluation_is_that_of_training() -> None:
    torch.manual_seed(0)
    likelihood = OptimalGaussian(momentum=0.9)
    assert likelihood.eval().distribution(torch.zeros(1, 1)).scale == 1
    likelihood.train()
    likelihood.log_prob(torch.zeros(2, 1), torch.full((2, 1), 3.0))
    assert likelihood.variance.item() == pytest.approx(9)  # the first step alone
    for _ in range(200):
        likelihood.log_prob(torch.zeros(500, 4), 0.2 * torch.randn(500, 4))
    likelihood.eval()
    assert likelihood.variance.sqrt().item() == pytest.approx(0.2, rel=0.02)
    before = likelihood.log_prob(torch.zeros(1, 1), torch.full((1, 1), 5.0))
    assert before == likelihood.log_prob(torch.zeros(1, 1), torch.full((1, 1), 5.0))
    again = OptimalGaussian()
    again.load_state_dict(likelihood.state_dict())
    assert again.variance == likelihood.variance


def test_equal_outputs_have_a_finite_density() -> None:
    likelihood, x = OptimalGaussian(), torch.zeros(3, 2)
    assert likelihood.log_prob(x, x).isfinite().all()
    assert likelihood.eval().log_prob(x, x).isfinite().all()


@given(
    name=st.sampled_from(sorted(OBJECTS)),
    magnitude=st.sampled_from([0.0, 1.0, 50.0, 1e4]),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
)
def test_extreme_parameters_have_finite_densities_and_gradients(
    name: str, magnitude: float, seed: int, dtype: torch.dtype
) -> None:
    likelihood = OBJECTS[name].eval()
    generator = torch.Generator().manual_seed(seed)
    given = magnitude * torch.randn(4, 2 * likelihood.numbers_per_output, 3, generator=generator)
    given = given.to(dtype).requires_grad_()
    density = likelihood.log_prob(given, data(likelihood, dtype=torch.float32))
    assert density.dtype == torch.float32
    density.sum().backward()
    assert density.isfinite().all()
    if dtype != torch.float16:  # too small for the gradient (x - mean) / sigma^2
        assert given.grad.isfinite().all()
    assert likelihood.mean(given).isfinite().all()


# -------------------------------------------------------------------------------------------- names and bad arguments


@pytest.mark.parametrize("name", KINDS)
def test_each_has_its_name(name: str) -> None:
    assert type(likelihood_from(name)) is KINDS[name]


@pytest.mark.parametrize("name", OBJECTS)
def test_a_likelihood_is_made_again_of_its_description(name: str) -> None:
    again = likelihood_from(description_of(OBJECTS[name]))
    assert type(again) is type(OBJECTS[name])
    assert again.arguments == OBJECTS[name].arguments
    assert likelihood_from(again) is again


def test_unknown_names_are_told_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'normal' is unknown; it is one of bernoulli, categorical"):
        likelihood_from("normal")
    with pytest.raises(ValueError, match="class_path"):
        likelihood_from({"class_path": "os.system"})
    with pytest.raises(TypeError, match="likelihood"):
        likelihood_from(3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gaussian(0), "sigma must be positive"),
        (lambda: Gaussian(math.nan), "sigma must be positive"),
        (lambda: LearnedGaussian(sigma_init=-1), "sigma_init must be positive"),
        (lambda: LearnedGaussian(sigma_init=1e-6), "sigma_init must be in"),
        (lambda: OptimalGaussian(1.0), "momentum must be in"),
        (lambda: Categorical(1), "levels must be a whole number, at least 2"),
        (lambda: DiscretizedLogistic(1.5), "levels must be a whole number, at least 2"),
    ],
)
def test_bad_arguments_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


GREY = torch.tensor([[0.0, 0.5, 1.0]])


@pytest.mark.parametrize(
    ("likelihood", "x", "message"),
    [
        (Bernoulli(), GREY, r"Bernoulli gives 0\.5 no density: .*continuous_bernoulli, gaussian.*binarize"),
        (Bernoulli(), GREY * 255, "outside .* need gaussian"),
        (Bernoulli(), torch.tensor([[0.0, 100 / 255]]), "continuous_bernoulli, categorical, discretized_logistic"),
        (ContinuousBernoulli(), -GREY, r"ContinuousBernoulli gives -0\.5 no density.* need gaussian"),
        (Categorical(), GREY, "Categorical gives 0.5 no density.*continuous_bernoulli"),
        (DiscretizedLogistic(4), GREY, "DiscretizedLogistic gives 0.5"),
        (Gaussian(), torch.tensor([[math.nan]]), "not finite: nan"),
        (Bernoulli(), torch.tensor([[0.0, math.nan]]), "not finite: nan"),
        (Categorical(3), torch.tensor([[math.inf]]), "not finite: inf"),
    ],
)
def test_data_outside_the_support_are_told_what_fits(likelihood: Likelihood, x: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        likelihood.check(x)


def test_bytes_over_255_are_levels() -> None:
    x = torch.arange(256, dtype=torch.uint8)[None].float() / 255
    for kind in (Categorical, DiscretizedLogistic):
        kind().check(x)
    for name in ("continuous_bernoulli", "gaussian"):
        likelihood_from(name).check(x)


def test_parameters_of_the_wrong_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"PerOutputGaussian needs 2 numbers per output.*got \(4, 3\)"):
        PerOutputGaussian().log_prob(torch.zeros(4, 3), torch.zeros(4, 3))
