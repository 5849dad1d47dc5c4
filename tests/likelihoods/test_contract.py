"""Facts that hold for all likelihoods: reference densities, draws, shapes, precision, descriptions and errors."""

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, distributions

from lit_bottleneck.functional import bounded_log_var
from lit_bottleneck.hparams import to_config
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
NAMES = [name for name in OBJECTS if name != "gaussian_learned_each"]


def parameters(likelihood: Likelihood, batch: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(batch, 2 * likelihood.numbers_per_output, 3, generator=generator, dtype=dtype)
    if isinstance(likelihood, DiscretizedLogistic):  # not far outside the data, where differences of CDFs cancel
        given[:, :2] = 0.5 + 0.2 * given[:, :2]
    return given


def data(likelihood: Likelihood, batch: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    """Draw values in the support."""
    x = torch.rand(batch, 2, 3, generator=torch.Generator().manual_seed(1), dtype=dtype)
    if isinstance(likelihood, Bernoulli):
        return x.round()
    return (x * 4).round() / 4 if isinstance(likelihood, (Categorical, DiscretizedLogistic)) else x


def independent(likelihood: Likelihood, given: Tensor, x: Tensor) -> Tensor:
    """Return the log-density of every output by torch.distributions."""
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
        base, [distributions.SigmoidTransform().inv, distributions.AffineTransform(first, scale)], validate_args=False
    )
    upper = torch.where(x == 1, 1.0, logistic.cdf(x + 0.125))
    lower = torch.where(x == 0, 0.0, logistic.cdf(x - 0.125))
    return (upper - lower).log()


@pytest.mark.parametrize("name", OBJECTS)
def test_log_prob_is_the_sum_over_outputs_of_the_reference_and_of_the_distribution(name: str) -> None:
    likelihood = OBJECTS[name].eval()
    given, x = parameters(likelihood), data(likelihood)
    found = likelihood.log_prob(given, x)
    assert (found.shape, found.dtype) == ((4,), torch.float64)
    torch.testing.assert_close(found, independent(likelihood, given, x).flatten(1).sum(1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found, likelihood.distribution(given).log_prob(x).flatten(1).sum(1))


@pytest.mark.parametrize("name", OBJECTS)
def test_draws_have_the_mean_and_are_in_the_support(name: str) -> None:
    torch.manual_seed(0)
    likelihood = OBJECTS[name].eval()
    given = parameters(likelihood, batch=1)
    draws = likelihood.sample(given.expand(20_000, *given.shape[1:]))
    likelihood.check(draws)
    assert draws.shape == (20_000, 2, 3)
    distance = (draws.mean(0) - likelihood.mean(given)[0]).abs()
    assert (distance < 4 * draws.std(0) / 20_000**0.5 + 1e-9).all()
    torch.testing.assert_close(likelihood.variance_of(given)[0], draws.var(0), rtol=0.06, atol=1e-9)


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


# --- shapes and precision


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dims", [(6,), (3, 2), (3, 4, 2)])
def test_every_example_has_its_own_density_mean_and_draw(name: str, dims: tuple[int, ...]) -> None:
    likelihood = likelihood_from(name).eval()
    given = torch.randn(5, likelihood.numbers_per_output * dims[0], *dims[1:], requires_grad=True)
    x = torch.ones(5, *dims)
    log_prob = likelihood.log_prob(given, x)
    assert log_prob.shape == (5,)
    one = likelihood.log_prob(given[3:4], x[3:4])
    torch.testing.assert_close(log_prob[3:4], one)
    assert likelihood.log_prob(given[:0], x[:0]).shape == (0,)
    assert likelihood.distribution(given).batch_shape == likelihood.mean(given).shape == x.shape
    draws = likelihood.sample(given)
    assert draws.shape == x.shape
    assert not draws.requires_grad
    likelihood.check(x[:0])


@pytest.mark.parametrize("name", OBJECTS)
def test_autocast_changes_nothing(name: str) -> None:
    likelihood = OBJECTS[name].eval()
    given, x = parameters(likelihood, dtype=torch.float32), data(likelihood, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = likelihood.log_prob(given, x), likelihood.mean(given)
    for found, expected in zip(inside, (likelihood.log_prob(given, x), likelihood.mean(given)), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_the_inputs_alone(name: str, dtype: torch.dtype) -> None:
    likelihood = copy.deepcopy(OBJECTS[name]).eval()
    given, x = parameters(likelihood).to(dtype), data(likelihood).to(dtype)
    found = likelihood.log_prob(given, x)
    torch.testing.assert_close(found, likelihood.log_prob(given.float(), x.float()), rtol=0, atol=0)
    assert found.dtype == likelihood.mean(given).dtype == torch.float32
    assert likelihood.to(dtype).log_prob(given, x).dtype == torch.float32


@pytest.mark.parametrize("name", OBJECTS)
def test_a_state_dict_restores_learned_and_averaged_variances(name: str) -> None:
    moved, again = copy.deepcopy(OBJECTS[name]), likelihood_from(to_config(OBJECTS[name]))
    given, x = parameters(moved), data(moved)
    moved.train().log_prob(given, x)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.sub_(0.5)
    again.load_state_dict(moved.state_dict())
    assert torch.equal(again.eval().log_prob(given, x), moved.eval().log_prob(given, x))


# --- sigma that is learned


# --- names and errors


@pytest.mark.parametrize("name", OBJECTS)
def test_names_and_descriptions_build_the_likelihood(name: str) -> None:
    again = likelihood_from(to_config(OBJECTS[name]))
    assert type(again) is type(OBJECTS[name])
    assert again.arguments == OBJECTS[name].arguments
    assert likelihood_from(again) is again
    if name in NAMES:
        assert type(likelihood_from(name)) is type(again)


def test_unknown_names_and_other_types_are_refused_with_the_known_names() -> None:
    for wrong in ("normal", 3, None):
        message = f"likelihood must be a Likelihood or one of bernoulli, categorical, .*; got {wrong!r}"
        with pytest.raises(ValueError, match=message):
            likelihood_from(wrong)
    with pytest.raises(ValueError, match="class_path"):
        likelihood_from({"class_path": "os.system"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gaussian(0), "sigma must be a finite number above 0"),
        (lambda: Gaussian(math.nan), "sigma must be a finite number above 0"),
        (lambda: Gaussian("1"), "sigma must be a finite number above 0"),
        (lambda: LearnedGaussian(sigma_init=-1), "sigma_init must be a finite number above 0"),
        (lambda: LearnedGaussian(sigma_init=1e-6), "sigma_init must be in"),
        (lambda: OptimalGaussian(1.0), "momentum must be in"),
        (lambda: Categorical(1), "levels must be a whole number, at least 2"),
        (lambda: DiscretizedLogistic(1.5), "levels must be a whole number, at least 2"),
    ],
)
def test_wrong_arguments_are_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


GREY = torch.tensor([[0.0, 0.5, 1.0]])


@pytest.mark.parametrize(
    ("likelihood", "x", "message"),
    [
        (Bernoulli(), GREY, r"must be 0 or 1 for Bernoulli; got 0\.5: .*continuous_bernoulli, gaussian.*binarize"),
        (Bernoulli(), GREY * 255, "outside .* need gaussian"),
        (Bernoulli(), torch.tensor([[0.0, 100 / 255]]), "continuous_bernoulli, categorical, discretized_logistic"),
        (ContinuousBernoulli(), -GREY, r"in \[0, 1\] for ContinuousBernoulli; got -0\.5: .* need gaussian"),
        (Categorical(), GREY, "one of 256 levels, k / 255 for Categorical; got 0.5: .*continuous_bernoulli"),
        (DiscretizedLogistic(4), GREY, "one of 4 levels, k / 3 for DiscretizedLogistic; got 0.5"),
        (Categorical(), torch.arange(256.0)[None], "here 0 to 255, need .* or scaling"),
        (Gaussian(), torch.tensor([[math.nan]]), r"must be finite .* for Gaussian; got nan"),
        (Gaussian(), torch.tensor([[-math.inf, 0.0]]), "must be finite .*; got -inf"),
        (ContinuousBernoulli(), torch.tensor([[math.inf, 0.5]]), "must be finite .*; got inf"),
        (Bernoulli(), torch.tensor([[0.5, math.nan]]), "must be finite .*; got nan"),
        (Categorical(3), torch.tensor([[math.inf]]), "must be finite .*; got inf"),
    ],
)
def test_data_outside_the_support_are_refused_with_likelihoods_that_fit(
    likelihood: Likelihood, x: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        likelihood.check(x)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_of_another_shape_are_refused(name: str) -> None:
    likelihood, x = likelihood_from(name), torch.ones(4, 2, 3)
    n = likelihood.numbers_per_output
    message = f"{type(likelihood).__name__}, with numbers_per_output={n}, needs .* got"
    for shape in ((4, 3 * n, 3), (1, 2 * n, 3), (4, 2 * n, 1), (4, 2 * n), (4, 2 * n, 3, 1)):
        with pytest.raises(ValueError, match=message):
            likelihood.log_prob(torch.zeros(shape), x)
    with pytest.raises(ValueError, match=r"for x of shape \(4,\)"):
        likelihood.log_prob(torch.zeros(4), torch.ones(4))
