"""Gaussian likelihoods: learned and optimal standard deviations."""

import math

import pytest
import torch

from lit_bottleneck.likelihoods import LearnedGaussian, OptimalGaussian


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


def test_the_optimal_sigma_in_evaluation_is_the_average_of_training() -> None:
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


def test_perfect_reconstructions_have_a_finite_density() -> None:
    likelihood, x = OptimalGaussian(), torch.zeros(3, 2)
    assert likelihood.log_prob(x, x).isfinite().all()
    assert likelihood.eval().log_prob(x, x).isfinite().all()


def test_a_sigma_per_output_converges_to_the_standard_deviation_of_its_output() -> None:
    torch.manual_seed(0)
    truth = torch.tensor([0.05, 0.5, 2.0])
    likelihood, x = LearnedGaussian(dims=(3,)), truth * torch.randn(5000, 3)
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        (-likelihood.log_prob(torch.zeros_like(x), x).mean()).backward()
        optimizer.step()
    sigma = likelihood.distribution(torch.zeros(1, 3)).stddev[0]
    torch.testing.assert_close(sigma, x.square().mean(0).sqrt(), rtol=1e-3, atol=0)


def test_a_sigma_per_output_fits_a_flat_decoder_too() -> None:
    likelihood = LearnedGaussian(dims=(1, 2, 3), sigma_init=0.3)
    with torch.no_grad():
        likelihood.raw.add_(torch.randn(1, 2, 3))
    given, x = torch.randn(4, 1, 2, 3), torch.randn(4, 1, 2, 3)
    torch.testing.assert_close(
        likelihood.log_prob(given, x), likelihood.log_prob(given.flatten(1), x.flatten(1)), rtol=1e-6, atol=1e-6
    )
    for wrong in (torch.zeros(4, 3, 2, 3), torch.zeros(4, 5)):  # the first would be broadcast
        with pytest.raises(ValueError, match=r"LearnedGaussian\(dims=\(1, 2, 3\)\) needs"):
            likelihood.log_prob(wrong, wrong)


def test_a_learned_sigma_stays_above_its_minimum_for_constant_data() -> None:
    likelihood, x = LearnedGaussian(), torch.zeros(3, 2)
    optimizer = torch.optim.SGD(likelihood.parameters(), lr=1e4)
    for _ in range(20):
        optimizer.zero_grad()
        (-likelihood.log_prob(x, x).mean()).backward()
        optimizer.step()
    assert likelihood.raw.isfinite()
    assert math.exp(-7) * 0.999 <= likelihood.distribution(x).stddev.min() < 0.001
    assert likelihood.raw.grad != 0


def test_the_average_variance_is_the_same_in_every_precision() -> None:
    """In bfloat16 it would stop 40 % above a falling variance."""
    torch.manual_seed(0)
    kept = [OptimalGaussian().to(dtype) for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)]
    for sigma in (0.3, 0.2):
        for _ in range(600):
            x = sigma * torch.randn(8, 20)
            for likelihood in kept:
                likelihood.log_prob(torch.zeros_like(x), x)
    assert {likelihood.variance.item() for likelihood in kept} == {kept[0].variance.item()}
    assert kept[0].variance.item() == pytest.approx(0.04, rel=0.03)
    assert kept[3].to(torch.float16).to("meta").to_empty(device="cpu").error.device.type == "cpu"


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_an_infinite_or_nan_error_leaves_the_average_as_it_is(value: float) -> None:
    likelihood, x = OptimalGaussian(), torch.ones(3, 2)
    likelihood.log_prob(3 * x, x)
    likelihood.log_prob(torch.full_like(x, value), x)
    assert likelihood.variance == 4
    assert likelihood.weight == pytest.approx(0.01)


def test_evaluation_leaves_the_average_as_it_is() -> None:
    likelihood, x = OptimalGaussian(), torch.ones(3, 2)
    likelihood.train().log_prob(3 * x, x)
    likelihood.mean(x), likelihood.sample(x), likelihood.distribution(x)
    likelihood.log_prob(x[:0], x[:0])
    likelihood.eval().log_prob(9 * x, x)
    assert likelihood.variance == 4
