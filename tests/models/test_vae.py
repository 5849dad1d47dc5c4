"""The VAE: closed forms of the linear Gaussian case, invariants, logged values and errors."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.distributions import MultivariateNormal
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from lit_bottleneck import ELBO, IWAE, VAE, BetaTC
from lit_bottleneck.beta import GECO, CapacityBeta, DualBeta
from lit_bottleneck.likelihoods import Gaussian, LearnedGaussian
from lit_bottleneck.networks import MLP, MLPDecoder
from tests.linear_gaussian import LinearEncoder, draw, expectations
from tests.models.runs import batches, checkpoint_of, fit, logged
from tests.quiet import trainer


def linear(sigma: float = 0.8, **kwargs: Any) -> VAE:
    """Return a linear Gaussian VAE with random weights."""
    torch.manual_seed(3)
    vae = VAE(LinearEncoder(5, 2), nn.Linear(2, 5), latent_dim=2, likelihood=Gaussian(sigma), **kwargs)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    return vae.eval()


def images(**kwargs: Any) -> VAE:
    """Return a VAE of binary 4 x 4 images."""
    torch.manual_seed(4)
    decoder = nn.Sequential(MLP(3, [16], 16), nn.Unflatten(1, (1, 4, 4)))
    return VAE(MLP(16, [16], 6), **{"decoder": decoder, "latent_dim": 3, "likelihood": "bernoulli"} | kwargs)


def binary(count: int = 20) -> Tensor:
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(5)).lt(0.4).float()


# ------------------------------------------------------------------------------------------------------- closed forms


def test_the_elbo_of_the_linear_case_is_its_closed_form() -> None:
    vae, sigma = linear(), 0.8
    x = draw(20_000)
    with torch.no_grad():
        code = vae.encode(x, sample=True)
        elbo = -(vae.distortion(code.z, x) + code.rate)
    standard_error = elbo.std() / len(x) ** 0.5
    assert abs(elbo.mean() - expectations(vae, sigma).elbo) < 4 * standard_error
    assert standard_error < 0.1


def test_the_log_likelihood_of_the_linear_case_is_that_of_its_marginal() -> None:
    vae, sigma = linear(), 0.8
    x = draw(40)
    outward = vae.decoder.weight.detach()
    marginal = MultivariateNormal(vae.decoder.bias.detach(), outward @ outward.T + sigma**2 * torch.eye(5))
    # With the true posterior every importance weight is the marginal itself, and one sample is exact.
    precision = torch.eye(2) + outward.T @ outward / sigma**2
    with torch.no_grad():
        vae.encoder.mean.weight.copy_(torch.linalg.solve(precision, outward.T / sigma**2))
        vae.encoder.mean.bias.copy_(-vae.encoder.mean.weight @ vae.decoder.bias)
    posterior = torch.linalg.inv(precision)
    # The posterior is diagonal only in its own axes: turn the code into them.
    _, axes = torch.linalg.eigh(posterior)
    with torch.no_grad():
        vae.decoder.weight.copy_(outward @ axes)
        vae.encoder.mean.weight.copy_(axes.T @ vae.encoder.mean.weight)
        vae.encoder.mean.bias.copy_(axes.T @ vae.encoder.mean.bias)
        log_var = (axes.T @ posterior @ axes).diagonal().log()
        vae.encoder.raw.copy_(log_var / (1 - (log_var / 14) ** 2).sqrt())  # the inverse of bounded_log_var below zero
    torch.testing.assert_close(vae.log_likelihood(x, 1), marginal.log_prob(x), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        vae.encoder.raw.add_(0.3)  # a wrong posterior: many samples still find the marginal
        vae.encoder.mean.bias.add_(0.1)
    torch.manual_seed(0)
    torch.testing.assert_close(vae.log_likelihood(x, 20_000), marginal.log_prob(x), rtol=0, atol=0.05)


def test_more_samples_do_not_lower_the_log_likelihood() -> None:
    vae, x = linear(), draw(400)
    torch.manual_seed(0)
    few, some, many = (vae.log_likelihood(x, count) for count in (1, 10, 200))
    for less, more in ((few, some), (some, many)):
        difference = more - less
        assert difference.mean() > -2 * difference.std() / len(x) ** 0.5
    assert many.mean() > few.mean() + 0.1


def test_the_log_likelihood_is_the_same_computed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    vae, x = linear(), draw(8)
    torch.manual_seed(0)
    whole = vae.log_likelihood(x, 3000)
    monkeypatch.setattr("lit_bottleneck.models.vae._NUMBERS_AT_ONCE", 5 * 50)
    parts: list[int] = []
    vae.decoder.register_forward_pre_hook(lambda module, inputs: parts.append(len(inputs[0])))
    torch.manual_seed(0)  # torch draws the same numbers in parts that are multiples of 16, as 6 x 8 x 2 are
    in_parts = vae.log_likelihood(x, 3000)
    assert max(parts) <= 50
    assert sum(parts) == 8 * 3000
    torch.testing.assert_close(in_parts, whole)
    monkeypatch.setattr("lit_bottleneck.models.vae._NUMBERS_AT_ONCE", 15)  # fewer than the examples
    assert vae.log_likelihood(x, 2).shape == (8,)
    assert max(parts[-6:]) <= 3


def fit_linear(likelihood: Any, beta: float) -> VAE:
    torch.manual_seed(1)
    vae = VAE(
        LinearEncoder(5, 2),
        nn.Linear(2, 5),
        latent_dim=2,
        likelihood=likelihood,
        beta=beta,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=2e-2),
        lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12 * 200),
        lr_scheduler_interval="step",
    )
    data = TensorDataset(draw(100_000))
    sampler = BatchSampler(RandomSampler(data), 500, drop_last=False)
    fit(vae, DataLoader(data, sampler=sampler, batch_size=None), max_epochs=12)
    return vae.eval()


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["gaussian_learned", "gaussian_optimal"])
def test_training_finds_probabilistic_pca(likelihood: str) -> None:
    vae = fit_linear(likelihood, beta=1.0)
    sigma = vae.likelihood.distribution(torch.zeros(1, 5)).scale.flatten()[0].item()
    reached = expectations(vae, sigma)
    assert sigma**2 == pytest.approx(2 / 3, abs=0.02)
    assert reached.elbo == pytest.approx(-7.526216, abs=0.02)
    assert reached.rate == pytest.approx(1.445186, abs=0.02)


@pytest.mark.slow
def test_beta_2_has_the_rate_of_the_theory() -> None:
    vae = fit_linear(Gaussian(0.5**0.5), beta=2.0)
    assert expectations(vae, 0.5**0.5).rate == pytest.approx(1.039721, abs=0.02)


# ------------------------------------------------------------------------------------------------ codes and beta


def test_a_deterministic_vae_is_a_plain_autoencoder() -> None:
    vae, x = images(deterministic=True, beta=5.0), binary()
    vae.train()
    code = vae.encode(x)
    assert torch.equal(code.z, code.mean)
    loss = vae.training_step(x, 0)
    logits = vae.decoder(vae.encoder(x)[:, :3])
    expected = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1).mean()
    torch.testing.assert_close(loss, expected)
    with pytest.raises(RuntimeError, match="no density"):
        vae.log_likelihood(x, 2)


def test_dimensions_below_free_bits_cost_the_threshold() -> None:
    x = binary()
    plain, free = (images(beta=DualBeta(1.0, beta_init=2.0), free_bits=nats) for nats in (0.0, 0.3))
    torch.manual_seed(0)
    plain_loss = plain.training_step(x, 0)
    torch.manual_seed(0)
    free_loss = free.training_step(x, 0)
    kl = plain.encode(x, sample=False).kl.mean(0)
    assert (kl < 0.3).any()
    torch.testing.assert_close(free_loss - plain_loss, 2 * (kl.clamp(min=0.3) - kl).sum(), rtol=1e-4, atol=1e-4)
    for model in (free, plain):
        model.step_beta()
    assert free.beta == plain.beta != 2.0  # the raw rate moves it


@pytest.mark.parametrize("beta", [DualBeta(capacity=1.0), CapacityBeta(weight=1.0, capacity=1.0), GECO(5.0)])
def test_every_controller_trains(beta: Any) -> None:
    vae = images(beta=beta)
    fit(vae, batches(binary(), size=5), max_epochs=2)
    assert math.isfinite(vae.beta)


# ------------------------------------------------------------------------------------------ outputs


def test_the_forward_pass_decodes_the_mean_code() -> None:
    vae, x = images(), binary()
    expected = vae.decoder(vae.encoder(x)[:, :3]).sigmoid()
    torch.testing.assert_close(vae.train()(x), expected)
    torch.testing.assert_close(vae.reconstruct(x), expected)
    assert vae.training


def test_a_flat_decoder_reconstructs_in_the_shape_of_the_data() -> None:
    vae = VAE(MLP(16, [8], 6), MLP(3, [8], 16), 3, "bernoulli")
    x = binary()
    assert vae(x).shape == x.shape
    assert vae.interpolate(x, x, 3).shape == (3, *x.shape)
    assert vae.log_likelihood(x, 2).shape == (len(x),)


def test_samples_are_decoded_draws_of_the_prior() -> None:
    vae = linear(sigma=0.3)
    torch.manual_seed(0)
    outputs = vae.sample(50_000, draw_outputs=True)
    outward = vae.decoder.weight.detach()
    expected = outward @ outward.T + 0.3**2 * torch.eye(5)
    torch.testing.assert_close(outputs.mean(0), vae.decoder.bias.detach(), rtol=0, atol=0.02)
    torch.testing.assert_close(outputs.T.cov(), expected, rtol=0, atol=0.04)
    means = vae.sample(50_000)
    torch.testing.assert_close(means.T.cov(), outward @ outward.T, rtol=0, atol=0.04)


@pytest.mark.parametrize("mode", ["linear", "slerp", "variance_preserving"])
def test_an_interpolation_begins_and_ends_with_the_reconstructions(mode: Any) -> None:
    vae, x = images(), binary()
    path = vae.interpolate(x[:8], x[8:16], steps=5, mode=mode)
    assert path.shape == (5, 8, 1, 4, 4)
    torch.testing.assert_close(path[0], vae.reconstruct(x[:8]))
    torch.testing.assert_close(path[-1], vae.reconstruct(x[8:16]))
    assert not torch.allclose(path[2], path[0])


def test_a_prediction_holds_mean_rate_elbo_log_likelihood_and_label() -> None:
    vae, x = images(likelihood_samples=500, eval_samples=300).eval(), binary()
    predicted = vae.predict_step((x, torch.arange(20)), 0)
    assert {name: tuple(value.shape) for name, value in predicted.items()} == {
        "mean": (20, 3),
        "rate": (20,),
        "elbo": (20,),
        "log_likelihood": (20,),
        "label": (20,),
    }
    assert (predicted["log_likelihood"] > predicted["elbo"] - 0.1).all()


def test_logged_parts_are_not_weighted_by_beta(tmp_path: Path) -> None:
    vae = images(beta=7.0, likelihood_samples=20)
    run = trainer(max_epochs=2, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    data = batches(binary(), torch.full((20,), 9), size=5)  # labels are ignored
    run.fit(vae, data, data)
    run.test(vae, data, verbose=False)
    rows = logged(tmp_path)
    for stage in ("train", "val", "test"):
        values = [{name: row[f"{stage}/{name}"] for name in ("elbo", "distortion", "rate", "loss")} for row in rows]
        values = [{name: float(value) for name, value in row.items()} for row in values if row["elbo"]]
        assert values
        for row in values:
            assert row["elbo"] == pytest.approx(-(row["distortion"] + row["rate"]), rel=1e-4)
            assert row["loss"] == pytest.approx(row["distortion"] + 7 * row["rate"], rel=1e-4)
    assert float(rows[-1]["test/log_likelihood"]) > float(rows[-1]["test/elbo"]) - 1


def test_metrics_are_not_rounded_to_the_precision_of_the_weights() -> None:
    vae, x = images(eval_samples=50), binary(60)
    run = trainer(precision="bf16-true")
    [measured] = run.test(vae, batches(x, size=5), verbose=False)
    vae = vae.float()
    expected = vae.predict_step(x, 0)["elbo"].mean().item()
    assert measured["test/elbo"] == pytest.approx(expected, abs=0.2)
    assert measured["test/elbo"] != float(torch.tensor(measured["test/elbo"]).bfloat16())


@pytest.mark.parametrize("objective", [ELBO(), IWAE(4), BetaTC(3.0)])
def test_a_checkpoint_holds_likelihood_and_objective(objective: Any, tmp_path: Path) -> None:
    vae = VAE(MLP(16, [], 6), MLP(3, [], 16), 3, Gaussian(0.7), objective=objective)
    path = checkpoint_of(vae, batches(torch.randn(20, 1, 4, 4), size=5), tmp_path)
    again = VAE.load_from_checkpoint(path, weights_only=True, encoder=MLP(16, [], 6), decoder=MLP(3, [], 16))
    assert type(again.objective) is type(objective)
    assert again.objective.arguments == objective.arguments
    assert again.likelihood.arguments == {"sigma": 0.7}
    x = torch.randn(4, 1, 4, 4)
    assert torch.equal(again.reconstruct(x), vae.reconstruct(x))


# ------------------------------------------------------------------------------------------ invalid inputs


@pytest.mark.parametrize(
    ("likelihood", "pixel", "words"),
    [("bernoulli", 0.5, "continuous_bernoulli"), ("gaussian", math.nan, "finite"), ("gaussian", math.inf, "finite")],
)
def test_pixels_outside_of_the_likelihoods_support_are_refused_at_the_first_batch(
    likelihood: str, pixel: float, words: str
) -> None:
    x = binary()
    x[3, 0, 1, 1] = pixel
    with pytest.raises(ValueError, match=words):
        fit(images(likelihood=likelihood), batches(x, size=5))


OTHER_WIDTH = "latent_dim=3 needs a decoder of codes of that width; got one of 4"
ONE_NUMBER = {"decoder": MLPDecoder(3, [], (1, 4, 4)), "likelihood": "gaussian_per_output"}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: images(decoder=MLPDecoder(4, [], (1, 4, 4))), OTHER_WIDTH),
        (lambda: images(decoder=nn.Linear(4, 16)), OTHER_WIDTH),
        (lambda: images(**ONE_NUMBER), "PerOutputGaussian needs a decoder with numbers_per_output=2; got 1"),
        (lambda: VAE(MLP(16, [], 5), MLP(3, [], 16), 3, "bernoulli"), "latent_dim=3 needs an encoder that returns 6"),
        (lambda: images().log_likelihood(binary(), 0), "num_samples"),
        (lambda: images(eval_samples=0), "eval_samples"),
        (lambda: images().interpolate(binary(), binary(), 1), "steps"),
        (lambda: images().interpolate(binary(4), binary(5), 3), "x1 and x2"),
        (lambda: images(free_bits=-0.1), "free_bits"),
        (lambda: images(likelihood="gausian"), "bernoulli"),
        (lambda: images(objective=IWAE(3), beta=CapacityBeta(weight=1.0, capacity=2.0)), "CapacityBeta"),
        (lambda: images(objective=IWAE(3), free_bits=0.1), "free_bits"),
        (lambda: images(objective=BetaTC(3.0), deterministic=True), "deterministic"),
        (lambda: images(objective=BetaTC(3.0)).training_step(binary(), 0), "dataset_size"),
    ],
)
def test_invalid_arguments_are_named(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_a_decoder_of_the_wrong_shape_is_refused() -> None:
    x = torch.randn(2, 1, 4, 4)
    for decoder, likelihood in ((MLP(3, [], 15), "gaussian"), (MLP(3, [], 16), "gaussian_per_output")):
        vae = VAE(MLP(16, [], 6), decoder, 3, likelihood)
        with pytest.raises(ValueError, match=r"\(1, 4, 4\).*number.*per output.*got \(1"):
            vae(x)


def test_a_learned_sigma_becomes_that_of_the_data() -> None:
    vae = VAE(MLP(16, [], 6), MLP(3, [], 16), 3, LearnedGaussian())
    x = 0.1 * torch.randn(200, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(vae.parameters(), lr=0.05)
    for _ in range(160):
        optimizer.zero_grad()
        vae.training_step(x, 0).backward()
        optimizer.step()
        vae.step_beta()
    sigma = vae.likelihood.distribution(torch.zeros(1, 1, 4, 4)).scale.flatten()[0].item()
    assert sigma == pytest.approx(0.1, abs=0.03)
