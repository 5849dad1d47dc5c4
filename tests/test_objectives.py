"""The objectives: against definitions written out, closed forms, and each other."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from lit_bottleneck.code import gaussian_code
from lit_bottleneck.hparams import to_config
from lit_bottleneck.objectives import ELBO, IWAE, BetaTC, CodedBatch, objective_from, total_correlation


def coded(samples: int = 1, batch: int = 6, width: int = 3, beta: float = 0.7, **kwargs: int) -> CodedBatch:
    torch.manual_seed(0)
    code = gaussian_code(torch.randn(batch, 2 * width, dtype=torch.float64), sample=True)
    draws = code.z[None] if samples == 1 else code.sample(samples)
    distortion = torch.rand(samples, batch, dtype=torch.float64)
    return CodedBatch(code, draws, distortion, beta * code.rate.mean(), beta, **kwargs)


def posterior(batch: CodedBatch) -> Normal:
    return Normal(batch.code.mean, (0.5 * batch.code.log_var).exp())


def test_the_elbo_is_distortion_and_penalty() -> None:
    batch = coded()
    terms = ELBO()(batch)
    assert set(terms) == {"distortion", "rate_penalty"}
    torch.testing.assert_close(sum(terms.values()), batch.distortion.mean() + 0.7 * batch.code.rate.mean())


def test_the_importance_weighted_bound_is_its_definition() -> None:
    batch = coded(samples=5, beta=1.0)
    [bound] = IWAE(5)(batch).values()
    prior = Normal(torch.zeros(3, dtype=torch.float64), 1.0)
    weights = (
        -batch.distortion + prior.log_prob(batch.draws).sum(-1) - posterior(batch).log_prob(batch.draws).sum(-1)
    ).exp()
    torch.testing.assert_close(bound, -weights.mean(0).log().mean())


def test_one_importance_sample_is_the_elbo_in_expectation() -> None:
    torch.manual_seed(1)
    batch = coded(beta=0.7)
    bounds = []
    for _ in range(4000):
        again = CodedBatch(batch.code, batch.code.sample(1), batch.distortion, batch.rate_penalty, 0.7)
        bounds.append(IWAE(1)(again)["negative_iwae"])
    values = torch.stack(bounds)
    elbo = sum(ELBO()(batch).values())
    assert abs(values.mean() - elbo) < 4 * values.std() / len(values) ** 0.5


def test_the_bound_rises_with_the_number_of_samples() -> None:
    batch = coded(samples=2000, beta=1.0)
    batch = CodedBatch(batch.code, batch.draws, (batch.draws - 1).square().sum(-1), batch.rate_penalty, 1.0)
    few = torch.stack(
        [
            IWAE(5)(CodedBatch(batch.code, draws, distortion, batch.rate_penalty, 1.0))["negative_iwae"]
            for draws, distortion in zip(batch.draws.split(5), batch.distortion.split(5), strict=True)
        ]
    )
    assert IWAE(2000)(batch)["negative_iwae"] < few.mean() - few.std() / len(few) ** 0.5


def brute_force(z: Tensor, mean: Tensor, log_var: Tensor, dataset_size: int) -> float:
    """Minibatch-stratified sampling, weight by weight."""
    count = len(z)
    total = 0.0
    for i in range(count):
        densities = torch.stack([Normal(mean[j], (0.5 * log_var[j]).exp()).log_prob(z[i]).exp() for j in range(count)])
        weights = torch.full((count, 1), (dataset_size - 1) / (dataset_size * (count - 1)), dtype=z.dtype)
        weights[i] = 1 / dataset_size
        joint = (weights[:, 0] * densities.prod(1)).sum().log()
        marginals = (weights * densities).sum(0).log().sum()
        total += (joint - marginals).item() / count
    return total


def test_total_correlation_is_that_of_the_weighted_mixture() -> None:
    code = coded().code
    for dataset_size in (6, 50, 10_000):
        found = total_correlation(code.z, code.mean, code.log_var, dataset_size)
        assert found.item() == pytest.approx(brute_force(code.z, code.mean, code.log_var, dataset_size), rel=1e-9)


def test_a_collapsed_encoder_has_no_total_correlation() -> None:
    z = torch.randn(40, 3)
    assert abs(total_correlation(z, torch.zeros(40, 3), torch.zeros(40, 3), 1000)) < 1e-5


def test_the_estimate_of_the_density_is_unbiased() -> None:
    """Over batches that hold the example itself, the weights average to the mixture over all data."""
    torch.manual_seed(2)
    mean, log_var = torch.randn(40, 2, dtype=torch.float64), torch.full((40, 2), -0.5, dtype=torch.float64)
    z = mean[0] + (0.5 * log_var[0]).exp() * torch.randn(2, dtype=torch.float64)
    densities = Normal(mean, (0.5 * log_var).exp()).log_prob(z).sum(1).exp()
    estimates = []
    for _ in range(4000):
        others = densities[1 + torch.randperm(39)[:7]]
        estimates.append(densities[0] / 40 + 39 / (40 * 7) * others.sum())
    values = torch.stack(estimates)
    assert abs(values.mean() - densities.mean()) < 4 * values.std() / len(values) ** 0.5


def test_correlated_codes_have_the_total_correlation_of_their_gaussian() -> None:
    torch.manual_seed(3)
    correlation = torch.tensor([[1.0, 0.8], [0.8, 1.0]])
    noise = 0.05
    mean = MultivariateNormal(torch.zeros(2), correlation - noise * torch.eye(2)).sample((1500,))
    log_var = torch.full_like(mean, math.log(noise))
    z = mean + noise**0.5 * torch.randn_like(mean)
    expected = -0.5 * math.log(1 - 0.8**2)
    assert total_correlation(z, mean, log_var, 1500).item() == pytest.approx(expected, abs=0.08)


def test_total_correlation_presses_codes_apart() -> None:
    """Its gradient, followed, lowers the correlation of the means."""
    torch.manual_seed(4)
    first = torch.randn(200, 1)
    mean = torch.cat([first, first + 0.3 * torch.randn(200, 1)], 1).requires_grad_()
    log_var = torch.full((200, 2), -2.0)
    optimizer = torch.optim.Adam([mean], lr=0.02)
    before = mean.detach().T.corrcoef()[0, 1]
    for _ in range(100):
        optimizer.zero_grad()
        z = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
        total_correlation(z, mean, log_var, 200).backward()
        optimizer.step()
    assert mean.detach().T.corrcoef()[0, 1] < before - 0.3


def test_the_extra_price_is_gamma_times_total_correlation() -> None:
    batch = coded(dataset_size=100)
    terms = BetaTC(gamma=5.0)(batch)
    expected = total_correlation(batch.code.z, batch.code.mean, batch.code.log_var, 100)
    torch.testing.assert_close(terms.pop("total_correlation_penalty"), 5 * expected)
    torch.testing.assert_close(sum(terms.values()), sum(ELBO()(batch).values()))


def test_a_batch_of_one_has_no_total_correlation_and_keeps_its_graph() -> None:
    mean = torch.randn(1, 3, requires_grad=True)
    correlation = total_correlation(mean + 0.1, mean, torch.zeros(1, 3), 50)
    correlation.backward()
    assert (correlation.item(), mean.grad.abs().sum()) == (0, 0)


@pytest.mark.parametrize("objective", [ELBO(), IWAE(3), BetaTC(2.0, dataset_size=40)])
def test_an_objective_is_made_again_of_its_description(objective: object) -> None:
    again = objective_from(to_config(objective))
    assert type(again) is type(objective)
    assert vars(again) == vars(objective)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="num_samples"):
        IWAE(0)
    with pytest.raises(ValueError, match="gamma"):
        BetaTC(-1.0)
    with pytest.raises(ValueError, match="gamma"):
        BetaTC(math.nan)
    with pytest.raises(ValueError, match="dataset_size"):
        BetaTC(1.0, dataset_size=0)
    with pytest.raises(ValueError, match="dataset_size must be at least the batch size, 6; got 5"):
        BetaTC(1.0, dataset_size=5)(coded())
    with pytest.raises(ValueError, match="class_path"):
        objective_from({"class_path": "os.system"})
    with pytest.raises(ValueError, match="objective must be an Objective"):
        objective_from("elbo")
