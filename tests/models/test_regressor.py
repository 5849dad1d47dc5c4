"""The VIB regressor: loss, metrics, predictions and units, against torch.distributions, numpy and scikit-learn."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from torch import Tensor
from torch.distributions import Categorical as Weights
from torch.distributions import MixtureSameFamily, Normal, kl_divergence
from torch.utils.data import DataLoader, TensorDataset

from lit_bottleneck import VIBRegressor
from lit_bottleneck.beta import GECO, DualBeta
from lit_bottleneck.export import deterministic_path
from lit_bottleneck.likelihoods import (
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    LearnedGaussian,
    Likelihood,
    OptimalGaussian,
    PerOutputGaussian,
)
from lit_bottleneck.networks import MLP
from tests.models.runs import batches, checkpoint_of, fit
from tests.models.test_vib import posterior
from tests.quiet import trainer

WIDTH, INPUTS, TARGETS = 4, 6, 2
SIGMA = (0.5, 2.0)


def regressor(seed: int = 0, **kwargs: Any) -> VIBRegressor:
    torch.manual_seed(seed)
    given = {"latent_dim": WIDTH, "target_dims": (TARGETS,), "beta": 0.1}
    return VIBRegressor(kwargs.pop("encoder", None) or MLP(INPUTS, [16], 2 * WIDTH), **given | kwargs)


def with_sigma(**kwargs: Any) -> VIBRegressor:
    """Return a regressor of the default likelihood, with known standard deviations."""
    model = regressor(**kwargs)
    with torch.no_grad():
        for raw, sigma in zip(model.likelihood.raw, SIGMA, strict=True):
            raw.copy_(LearnedGaussian(sigma_init=sigma).raw)
    return model


def rows(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, INPUTS, generator=generator)
    noise = torch.randn(count, TARGETS, generator=generator)
    return x, torch.stack([x[:, 0] - x[:, 1], 3 + x[:, 2] * x[:, 3]], 1) + 0.3 * noise


def measure(model: VIBRegressor, data: tuple[Tensor, ...], size: int) -> dict[str, float]:
    [metrics] = trainer().validate(model, batches(*data, size=size), verbose=False)
    return metrics


def rate(code: Normal) -> Tensor:
    return kl_divergence(code, Normal(0.0, 1.0)).sum(1)


# ------------------------------------------------------------------------------------------------------ the formulas


@pytest.mark.parametrize("beta", [0.0, 0.1, 2.5])
def test_the_training_loss_is_the_nll_of_a_draw_plus_beta_times_the_mean_rate(beta: float) -> None:
    model, (x, y) = with_sigma(beta=beta), rows(12)
    code = posterior(model, x)
    torch.manual_seed(7)
    nll = -Normal(model.decoder(code.sample()), torch.tensor(SIGMA)).log_prob(y).sum(1).mean()
    torch.manual_seed(7)
    loss = model.training_step((x, y), 0)
    torch.testing.assert_close(loss, nll + beta * rate(code).mean())
    loss.backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())


def test_the_default_likelihood_learns_one_sigma_for_each_target() -> None:
    assert regressor(target_dims=(3, 2)).likelihood.raw.shape == (3, 2)
    assert regressor().likelihood.distribution(torch.zeros(1, TARGETS)).stddev.tolist() == [[1.0] * TARGETS]


def test_forward_is_the_mean_of_the_targets_at_the_mean_code_in_both_modes() -> None:
    x, _ = rows(9)
    model = regressor(target_dims=(3, 2), likelihood="gaussian_per_output", eval_samples=5)
    mean = model.decoder(posterior(model, x).mean).reshape(9, 6, 2)[:, :3]
    torch.testing.assert_close(model(x), mean)
    torch.testing.assert_close(model.eval()(x), mean)
    shares = regressor(likelihood="bernoulli")
    torch.testing.assert_close(shares(x), shares.decoder(posterior(shares, x).mean).sigmoid())


@pytest.mark.parametrize("samples", [1, 5])
def test_evaluation_averages_the_densities_of_the_draws(samples: int) -> None:
    model, (x, y) = with_sigma(eval_samples=samples), rows(7)
    torch.manual_seed(3)
    means = model.eval().decoder(posterior(model, x).sample((samples,)))  # (S, B, T)
    mixtures = MixtureSameFamily(
        Weights(torch.ones(7, samples)),
        torch.distributions.Independent(Normal(means.movedim(0, 1), torch.tensor(SIGMA)), 1),
    )
    torch.manual_seed(3)
    loader = DataLoader(TensorDataset(x, y), batch_size=7, generator=torch.Generator())  # draws its seed from there
    [metrics] = trainer().validate(model, loader, verbose=False)
    assert metrics["val/nll"] == pytest.approx(-mixtures.log_prob(y).mean().item(), rel=1e-5)
    assert metrics["val/rmse"] == pytest.approx(((mixtures.mean - y) ** 2).mean().sqrt().item(), rel=1e-5)
    torch.manual_seed(3)
    with torch.no_grad():
        prediction = model.predict_step((x, y), 0)
    torch.testing.assert_close(prediction["mean"], mixtures.mean)
    torch.testing.assert_close(prediction["deviation"], mixtures.stddev)


def test_deviation_of_a_linear_decoder_is_that_of_the_gaussian_channel() -> None:
    """y = W z + b + noise has the covariance W diag(sigma^2) W^T plus that of the noise."""
    model, (x, _) = with_sigma(eval_samples=40_000).eval(), rows(3)
    with torch.no_grad():
        code, weight = posterior(model, x), model.decoder.weight
        variance = (code.variance @ weight.square().T) + torch.tensor(SIGMA).square()
        mean = model.decoder(code.mean)
        prediction = model.predict_step(x, 0)
    torch.testing.assert_close(prediction["deviation"], variance.sqrt(), rtol=0.02, atol=0)  # 4 / sqrt(2 * 40 000)
    assert ((prediction["mean"] - mean).abs() < 5 * variance.sqrt() / 200).all()


LIKELIHOODS: list[Likelihood] = [
    *(Categorical(5), DiscretizedLogistic(5), ContinuousBernoulli()),
    *(PerOutputGaussian(), OptimalGaussian(), LearnedGaussian(sigma_init=0.3)),
]


@pytest.mark.parametrize("likelihood", [*LIKELIHOODS, "bernoulli", "gaussian"], ids=str)
def test_mean_and_deviation_are_those_of_draws_of_any_likelihood(likelihood: Any) -> None:
    model, (x, _) = regressor(likelihood=likelihood, eval_samples=0).eval(), rows(3)
    with torch.no_grad():
        prediction = model.predict_step(x, 0)
        parameters = model._read(model.encode(x).z)
        draws = torch.stack([model.likelihood.sample(parameters) for _ in range(4000)])
    error = draws.std(0) / 4000**0.5
    assert ((draws.mean(0) - prediction["mean"]).abs() < 5 * error + 1e-6).all()
    torch.testing.assert_close(prediction["deviation"], draws.std(0), rtol=0.12, atol=1e-6)
    assert torch.equal(prediction["mean"], model(x).detach())


def test_without_draws_evaluation_uses_the_mean_code_and_no_random_numbers() -> None:
    model, data = regressor(eval_samples=0), rows(20)
    before = torch.random.get_rng_state()
    first = measure(model, data, 10)
    torch.manual_seed(9)
    assert measure(model, data, 10) == first
    torch.random.set_rng_state(before)
    with torch.no_grad():
        model.eval().predict_step(data, 0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_deterministic_model_is_plain_least_squares_step_by_step() -> None:
    model = regressor(deterministic=True, likelihood="gaussian", eval_samples=5)
    encoder, decoder = copy.deepcopy(model.encoder), copy.deepcopy(model.decoder)
    data = batches(*rows(50), size=8)
    assert fit(model, data, max_epochs=3).global_step == 21
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
    for _ in range(3):
        for x, y in data:
            optimizer.zero_grad()
            (0.5 * (decoder(encoder(x)[:, :WIDTH]) - y).square().sum(1).mean()).backward()
            optimizer.step()
    torch.testing.assert_close(model.encoder.state_dict(), encoder.state_dict())
    torch.testing.assert_close(model.decoder.state_dict(), decoder.state_dict())
    metrics = measure(model, rows(9), 9)
    assert metrics["val/rate"] == 0
    assert metrics["val/loss"] == pytest.approx(metrics["val/nll"])


# -------------------------------------------------------------------------------------------------------- measurements


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_the_metrics_of_a_ragged_split_are_those_of_its_rows(beta: float) -> None:
    model, (x, y) = with_sigma(beta=beta), rows(10, seed=4)
    found = measure(model, (x, y), 7)  # 7 + 3 rows
    assert found == pytest.approx(measure(model, (x, y), 10), rel=1e-6)
    code = posterior(model, x)
    with torch.no_grad():
        mean = model.decoder(code.mean)
        nll = -Normal(mean, torch.tensor(SIGMA)).log_prob(y).sum(1).mean().item()
    truth, predicted = y.double().numpy(), mean.double().numpy()
    expected = {
        "val/loss": nll + beta * rate(code).mean().item(),
        "val/nll": nll,
        "val/rate": rate(code).mean().item(),
        "val/rmse": root_mean_squared_error(truth.ravel(), predicted.ravel()),
        "val/mae": mean_absolute_error(truth, predicted),
        "val/r2": r2_score(truth, predicted),
    }
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_test_split_is_measured_like_the_validation_split_and_by_draws() -> None:
    model, data = with_sigma(), rows(20_000)
    [tested] = trainer().test(model, batches(*data, size=3000), verbose=False)
    sampled, (x, y) = tested.pop("test/nll_sampled"), data
    assert {name.replace("test/", "val/"): value for name, value in tested.items()} == measure(model, data, 3000)
    each = -Normal(model.decoder(posterior(model, x).sample()), torch.tensor(SIGMA)).log_prob(y).sum(1)
    assert sampled == pytest.approx(each.mean().item(), abs=4 * 2**0.5 * each.std().item() / 20_000**0.5)


def test_nll_is_logged_in_training_under_the_same_name() -> None:
    run = fit(regressor(), batches(*rows(16), size=8))
    logged = {name: value.item() for name, value in run.callback_metrics.items()}
    assert {"train/loss", "train/nll", "train/rate", "train/beta"} <= set(logged)
    assert logged["train/loss"] == pytest.approx(logged["train/nll"] + 0.1 * logged["train/rate"], rel=1e-5)


# ---------------------------------------------------------------------------------------------- predictions and files


def test_a_prediction_holds_mean_deviation_rate_code_and_label() -> None:
    model, (x, y) = regressor(eval_samples=3).eval(), rows(8)
    with torch.no_grad():
        prediction, unlabelled = model.predict_step([x, y], 0), model.predict_step(x, 0)
    shapes = {"mean": (8, TARGETS), "deviation": (8, TARGETS), "rate": (8,), "code": (8, WIDTH), "label": (8, TARGETS)}
    assert {name: tuple(value.shape) for name, value in prediction.items()} == shapes
    assert set(unlabelled) == shapes.keys() - {"label"}
    torch.testing.assert_close(prediction["rate"], rate(posterior(model, x)))
    torch.testing.assert_close(prediction["code"], posterior(model, x).mean)
    assert torch.equal(prediction["label"], y)


@pytest.mark.parametrize("likelihood", ["gaussian_learned", Categorical(3)], ids=str)
def test_a_checkpoint_brings_likelihood_targets_and_sigma(likelihood: Any, tmp_path: Path) -> None:
    x, y = rows(16)
    model = regressor(likelihood=likelihood, eval_samples=2)
    path = checkpoint_of(model, batches(x, (y > 0).float(), size=8), tmp_path)
    loaded = VIBRegressor.load_from_checkpoint(path, weights_only=True, encoder=MLP(INPUTS, [16], 2 * WIDTH))
    assert (loaded.target_dims, loaded.eval_samples) == ((TARGETS,), 2)
    assert repr(loaded.likelihood) == repr(model.likelihood)
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert torch.equal(loaded(x), model(x))


@pytest.mark.parametrize("part", ["code", "prediction"])
def test_the_exported_parts_are_mean_code_and_mean_of_the_targets(part: str) -> None:
    model, (x, _) = regressor(likelihood=PerOutputGaussian()).eval(), rows(5)
    exported = deterministic_path(model, part)
    expected = {"code": lambda: model.encode(x).mean, "prediction": lambda: model(x)}[part]()
    torch.testing.assert_close(exported(x), expected)


@pytest.mark.parametrize("beta", [DualBeta(capacity=0.5), GECO(target_distortion=3.0)], ids=["dual", "geco"])
def test_controllers_are_driven_by_rate_or_nll(beta: Any) -> None:
    model = regressor(beta=beta)
    fit(model, batches(*rows(32), size=8))
    assert model.beta != regressor(beta=copy.deepcopy(beta)).beta
