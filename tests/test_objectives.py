"""The objectives against their definitions and closed forms."""

import math
from collections.abc import Callable
from dataclasses import replace

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


def test_the_elbo_is_distortion_and_penalty() -> None:
    batch = coded()
    terms = ELBO()(batch)
    assert set(terms) == {"distortion", "rate_penalty"}
    torch.testing.assert_close(sum(terms.values()), batch.distortion.mean() + 0.7 * batch.code.rate.mean())


@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize("beta", [1.0, 0.7])
def test_the_importance_weighted_bound_is_its_definition(samples: int, beta: float) -> None:
    batch = coded(samples, beta=beta)
    [bound] = IWAE(samples)(batch).values()
    prior, posterior = Normal(torch.zeros(3).double(), 1.0), Normal(batch.code.mean, (0.5 * batch.code.log_var).exp())
    ratio = (prior.log_prob(batch.draws) - posterior.log_prob(batch.draws)).sum(-1)
    weights = (-batch.distortion).exp() * ratio.exp() ** beta
    torch.testing.assert_close(bound, -weights.mean(0).log().mean())


def brute_force(z: Tensor, mean: Tensor, log_var: Tensor, dataset_size: int) -> float:
    """Compute minibatch-stratified sampling weight by weight."""
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


def test_correlated_codes_have_the_total_correlation_of_their_gaussian() -> None:
    torch.manual_seed(3)
    correlation = torch.tensor([[1.0, 0.8], [0.8, 1.0]])
    noise = 0.05
    mean = MultivariateNormal(torch.zeros(2), correlation - noise * torch.eye(2)).sample((1500,))
    log_var = torch.full_like(mean, math.log(noise))
    z = mean + noise**0.5 * torch.randn_like(mean)
    expected = -0.5 * math.log(1 - 0.8**2)
    assert total_correlation(z, mean, log_var, 1500).item() == pytest.approx(expected, abs=0.08)


def test_the_extra_penalty_is_gamma_times_total_correlation() -> None:
    batch = coded(dataset_size=100)
    terms = BetaTC(gamma=5.0)(batch)
    expected = total_correlation(batch.code.z, batch.code.mean, batch.code.log_var, 100)
    torch.testing.assert_close(terms.pop("total_correlation_penalty"), 5 * expected)
    torch.testing.assert_close(sum(terms.values()), sum(ELBO()(batch).values()))


def test_a_large_batch_is_compared_in_parts_of_which_the_mean_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = coded(batch=11, dataset_size=100)
    expected = torch.zeros(())
    for rows in torch.arange(11).tensor_split(3):  # 4, 4 and 3 codes
        part = batch.code[rows]
        expected = expected + len(rows) / 11 * total_correlation(part.z, part.mean, part.log_var, 100)
    found = BetaTC(1.0, max_codes=4)(batch)["total_correlation_penalty"]
    torch.testing.assert_close(found, expected.to(found))
    # Of two processes, the first has 5 examples and the second 6: the middle part has some of both.
    posteriors = torch.stack([batch.code.mean, batch.code.log_var], 1)
    total = 0.0
    for first, count in ((0, 5), (5, 6)):
        monkeypatch.setattr("lit_bottleneck.objectives.gather_rows", lambda ours, first=first: (posteriors, first))
        rows = torch.arange(first, first + count)
        ours = replace(batch, code=batch.code[rows], draws=batch.draws[:, rows])
        total += count / 11 * BetaTC(1.0, max_codes=4)(ours)["total_correlation_penalty"].item()
    assert total == pytest.approx(found.item(), rel=1e-12)


def test_a_batch_of_one_has_zero_total_correlation_and_keeps_its_graph() -> None:
    mean = torch.randn(1, 3, requires_grad=True)
    correlation = total_correlation(mean + 0.1, mean, torch.zeros(1, 3), 50)
    correlation.backward()
    assert (correlation.item(), mean.grad.abs().sum()) == (0, 0)


@pytest.mark.parametrize("objective", [ELBO(), IWAE(3), BetaTC(2.0, dataset_size=40)])
def test_a_description_rebuilds_the_objective(objective: object) -> None:
    again = objective_from(to_config(objective))
    assert type(again) is type(objective)
    assert vars(again) == vars(objective)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: IWAE(0), "num_samples must be"),
        (lambda: BetaTC(-1.0), "gamma must be"),
        (lambda: BetaTC(math.nan), "gamma must be"),
        (lambda: BetaTC(1.0, dataset_size=0), "dataset_size must be"),
        (lambda: BetaTC(1.0, max_codes=2), "max_codes must be"),
        (lambda: BetaTC(1.0, dataset_size=5)(coded()), "dataset_size must be at least the batch size, 6; got 5"),
        (lambda: BetaTC(1.0)(coded()), "dataset_size=.* must be given"),
        (lambda: objective_from({"class_path": "os.system"}), "class_path"),
        (lambda: objective_from("elbo"), "objective must be an Objective"),
    ],
)
def test_wrong_arguments_are_refused_by_name(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
