"""A VIB of jointly Gaussian inputs and outputs reaches the curve of the information bottleneck."""

import math
from typing import Any, Self

import numpy as np
import pytest
import torch
from lightning import LightningModule
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from lit_bottleneck import GaussianBottleneck
from lit_bottleneck.likelihoods import LearnedGaussian
from lit_bottleneck.metrics.marginal_moments import marginal_moments
from lit_bottleneck.metrics.mutual_information import MutualInformation
from tests.gaussian_bottleneck import (
    CORRELATIONS,
    ENTROPY_OF_Y,
    INPUTS,
    OUTPUTS,
    Channel,
    Information,
    cross_covariance,
    curve,
    draw,
    optimum,
)
from tests.linear_gaussian import LinearEncoder
from tests.quiet import trainer

INVERSE_BETAS = [1.5, 2.0, 5.0, 20.0]  # b = 1 / beta
ROWS = 20_000


class LinearRegressor(GaussianBottleneck, LightningModule):
    """A regressor as a user would write it."""

    def __init__(self, beta: float, latent_dim: int = INPUTS) -> None:
        super().__init__(beta=beta)
        self.encoder = LinearEncoder(INPUTS, latent_dim)
        self.decoder = nn.Linear(latent_dim, OUTPUTS)
        self.likelihood = LearnedGaussian(dims=(OUTPUTS,))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        code = self.bottleneck(self.encoder(x))
        distortion = -self.likelihood.log_prob(self.decoder(code.z), y)
        loss: Tensor = distortion.mean() + self.rate_penalty(code.rate)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.03)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @torch.no_grad()
    def channel(self) -> Channel:
        """Return the learned channel."""
        code = self.bottleneck(self.encoder(torch.zeros(1, INPUTS)), sample=False)
        sigma = self.likelihood.distribution(torch.zeros(1, OUTPUTS)).stddev[0]
        encoder, decoder = self.encoder.mean, self.decoder
        learned = (encoder.weight, encoder.bias, code.log_var[0].exp(), decoder.weight, decoder.bias, sigma**2)
        return Channel(*(value.double() for value in learned))

    @torch.no_grad()
    def put(self, channel: Channel) -> Self:
        """Set the parameters to those of a channel, whose variances are at most 1."""
        self.encoder.mean.weight.copy_(channel.inward)
        self.encoder.mean.bias.copy_(channel.shift)
        self.encoder.raw.copy_(raw_of(channel.noise))
        self.decoder.weight.copy_(channel.outward)
        self.decoder.bias.copy_(channel.offset)
        self.likelihood.raw.copy_(raw_of(channel.y_variance))
        return self


def raw_of(variance: Tensor) -> Tensor:
    """Invert ``bounded_log_var``, for variances of at most 1."""
    log_var = variance.log()
    return log_var / (1 - (log_var / 14) ** 2).sqrt()


def fit(b: float, steps: int) -> LinearRegressor:
    torch.manual_seed(1)
    data = TensorDataset(*draw(4000))
    batches = DataLoader(data, sampler=BatchSampler(RandomSampler(data), 500, drop_last=True), batch_size=None)
    module = LinearRegressor(beta=1 / b)
    trainer(max_epochs=-1, max_steps=steps).fit(module, batches)
    return module.eval()


def random_channel(seed: int, latent_dim: int = 3) -> Channel:
    """Return a channel whose marginal is not the prior and whose decoder is not optimal."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return Channel(
        inward=normal(latent_dim, INPUTS),
        shift=0.3 * normal(latent_dim),
        noise=torch.sigmoid(normal(latent_dim)),
        outward=0.5 * normal(OUTPUTS, latent_dim),
        offset=0.3 * normal(OUTPUTS),
        y_variance=torch.sigmoid(normal(OUTPUTS)),
    )


def information_by_determinants(inward: np.ndarray, noise: np.ndarray) -> Information:
    """``1/2 log(det A det B / det joint)`` of the joint covariances of (x, z) and of (z, y), in numpy."""
    cross = cross_covariance().numpy()
    x, y, z = np.eye(INPUTS), np.eye(OUTPUTS), inward @ inward.T + np.diag(noise)

    def information(a: np.ndarray, b: np.ndarray, between: np.ndarray) -> float:
        joint = np.block([[a, between], [between.T, b]])
        return 0.5 * float(sum(np.linalg.slogdet(part)[1] for part in (a, b)) - np.linalg.slogdet(joint)[1])

    return Information(information(x, z, inward.T), information(z, y, inward @ cross.T))


def assert_on_curve(channel: Channel, b: float, tolerance: float) -> None:
    """Assert that informations and their variational bounds are on the curve."""
    expected, true = curve(b), channel.information
    variational = Information(channel.rate, ENTROPY_OF_Y - channel.distortion)
    for reached in (true, variational):
        assert reached.of_x == pytest.approx(expected.of_x, abs=tolerance)
        assert reached.of_y == pytest.approx(expected.of_y, abs=tolerance)


# ---------------------------------------------------------------------------------------------------- the closed forms


def test_the_curve_has_the_values_of_the_theory() -> None:
    for b, of_x, of_y in ((2.0, 0.725005, 0.483792), (5.0, 1.823617, 0.830366)):
        assert curve(b).of_x == pytest.approx(of_x, abs=1e-6)
        assert curve(b).of_y == pytest.approx(of_y, abs=1e-6)


@pytest.mark.parametrize("rho", CORRELATIONS)
def test_a_component_is_coded_from_its_critical_beta_on_without_a_jump(rho: float) -> None:
    assert curve(rho**-2 * (1 - 1e-9), (rho,)) == Information(0.0, 0.0)
    above = curve(rho**-2 * (1 + 1e-9), (rho,))
    assert 0 < above.of_y < above.of_x < 1e-7


def test_at_beta_zero_the_code_has_all_information_of_the_inputs_about_y() -> None:
    everything = -0.5 * sum(math.log(1 - rho**2) for rho in CORRELATIONS)
    assert curve(1e9).of_y == pytest.approx(everything, abs=1e-8)


@pytest.mark.parametrize("b", INVERSE_BETAS)
def test_the_slope_of_the_curve_is_beta(b: float) -> None:
    below, above = curve(b - 1e-5), curve(b + 1e-5)
    assert (above.of_y - below.of_y) / (above.of_x - below.of_x) == pytest.approx(1 / b, rel=1e-6)


@pytest.mark.parametrize("b", INVERSE_BETAS)
def test_no_linear_code_found_by_a_general_optimizer_is_better(b: float) -> None:
    def loss(inward: np.ndarray) -> float:
        information = information_by_determinants(inward.reshape(INPUTS, INPUTS), np.ones(INPUTS))
        return information.of_x / b - information.of_y

    found = minimize(loss, np.random.default_rng(0).normal(size=INPUTS**2), method="BFGS", options={"gtol": 1e-6})
    assert found.fun == pytest.approx(curve(b).of_x / b - curve(b).of_y, abs=1e-6)


def test_the_sample_has_the_second_moments_of_the_gaussian() -> None:
    rows = torch.cat(draw(1000), dim=1).double()
    identity, cross = torch.eye(INPUTS + OUTPUTS, dtype=torch.float64), cross_covariance()
    identity[INPUTS:, :INPUTS], identity[:INPUTS, INPUTS:] = cross, cross.T
    torch.testing.assert_close(rows.T @ rows / 1000, identity, rtol=0, atol=1e-6)
    torch.testing.assert_close(rows.mean(0), torch.zeros(INPUTS + OUTPUTS, dtype=torch.float64), rtol=0, atol=1e-6)
    singular = torch.linalg.svdvals(cross)  # of white variables: the canonical correlations
    torch.testing.assert_close(singular, torch.tensor(CORRELATIONS, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_bounds_the_information_of_any_linear_code(seed: int) -> None:
    channel = random_channel(seed)
    expected = information_by_determinants(channel.inward.numpy(), channel.noise.numpy())
    assert channel.information.of_x == pytest.approx(expected.of_x, abs=1e-10)
    assert channel.information.of_y == pytest.approx(expected.of_y, abs=1e-10)
    assert channel.rate > expected.of_x + 0.01
    assert ENTROPY_OF_Y - channel.distortion < expected.of_y - 0.01


@pytest.mark.parametrize("b", [1.2, *INVERSE_BETAS])
def test_with_this_prior_and_decoder_the_bounds_are_tight_at_the_optimum(b: float) -> None:
    assert_on_curve(optimum(b), b, tolerance=1e-12)


# --------------------------------------------------------------------------------------------------------- the library


@pytest.mark.parametrize("channel", [random_channel(0, INPUTS), optimum(2.0), optimum(20.0)])
def test_rate_and_distortion_are_those_of_the_theory(channel: Channel) -> None:
    module, (x, y) = LinearRegressor(beta=0.5).put(channel), draw(ROWS)
    torch.manual_seed(0)
    with torch.no_grad():
        code = module.bottleneck(module.encoder(x), sample=True)
        distortion = -module.likelihood.log_prob(module.decoder(code.z), y)
    assert code.rate.double().mean().item() == pytest.approx(channel.rate, abs=1e-5)  # the sample has no error
    standard_error = distortion.std().item() / ROWS**0.5
    assert distortion.mean().item() == pytest.approx(channel.distortion, abs=4 * standard_error)
    torch.testing.assert_close(module.channel().noise, channel.noise, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(module.channel().y_variance, channel.y_variance, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("channel", [random_channel(0, INPUTS), optimum(1.2), optimum(2.0), optimum(5.0)])
def test_metrics_estimate_the_information_about_the_inputs(channel: Channel) -> None:
    module, (x, _), count = LinearRegressor(beta=0.5).put(channel), draw(1500), 1500
    with torch.no_grad():
        code = module.bottleneck(module.encoder(x), sample=False)
    moments = marginal_moments(code.mean, code.log_var)
    information = channel.information.of_x
    # The code is Gaussian, and the sample has its moments: this bound is the truth.
    assert (moments["rate"] - moments["marginal_kl"]).item() == pytest.approx(information, abs=1e-5)
    metric = MutualInformation()
    metric.update(code.mean, code.log_var)
    bounds = metric.compute()
    # The variance of the information density of a Gaussian channel: the sum of its squared canonical correlations.
    variance = torch.linalg.solve(channel.covariance, channel.signal).trace().item()
    tolerance = 4 * (variance / count) ** 0.5 + 1e-6
    for name in ("lower", "upper"):
        assert bounds[name].item() == pytest.approx(information, abs=tolerance)
    assert not bounds["saturated"]


def test_a_short_training_reaches_the_curve() -> None:
    assert_on_curve(fit(5.0, steps=300).channel(), 5.0, tolerance=0.02)


def test_above_the_critical_beta_nothing_is_coded() -> None:
    torch.manual_seed(1)
    assert LinearRegressor(beta=1 / 1.2).channel().rate > 0.1  # before training
    collapsed = fit(1.2, steps=250).channel()  # 1.2 < 1 / .81
    assert 0 <= collapsed.information.of_x <= collapsed.rate < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("b", INVERSE_BETAS)
def test_training_reaches_the_curve(b: float) -> None:
    channel = fit(b, steps=3000).channel()
    assert_on_curve(channel, b, tolerance=0.02)
    assert channel.information.of_x <= channel.rate
    assert channel.information.of_y >= ENTROPY_OF_Y - channel.distortion
