"""The VIB regressor on problems whose answer is known: the Gaussian information bottleneck, and ridge regression."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from lit_bottleneck import VIBRegressor
from lit_bottleneck.networks import MLP
from tests.gaussian_bottleneck import ENTROPY_OF_Y, INPUTS, OUTPUTS, Channel, curve, draw, optimum
from tests.linear_gaussian import LinearEncoder
from tests.models.runs import batches, fit
from tests.quiet import trainer
from tests.test_gaussian_bottleneck import INVERSE_BETAS, assert_on_curve, random_channel, raw_of


def linear(b: float, steps: int = 1) -> VIBRegressor:
    torch.manual_seed(1)
    return VIBRegressor(
        LinearEncoder(INPUTS, INPUTS),
        latent_dim=INPUTS,
        target_dims=(OUTPUTS,),
        beta=1 / b,
        optimizer=lambda weights: torch.optim.Adam(weights, lr=0.03),
        lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
        lr_scheduler_interval="step",
    )


@torch.no_grad()
def channel(model: VIBRegressor) -> Channel:
    """Return the learned channel."""
    code = model.encode(torch.zeros(1, INPUTS), sample=False)
    variance = model.likelihood.variance_of(torch.zeros(1, OUTPUTS))[0]
    encoder, decoder = model.encoder.mean, model.decoder
    learned = (encoder.weight, encoder.bias, code.log_var[0].exp(), decoder.weight, decoder.bias, variance)
    return Channel(*(value.double() for value in learned))


@torch.no_grad()
def put(model: VIBRegressor, best: Channel) -> None:
    """Set the parameters to those of a channel, whose variances are at most 1."""
    model.encoder.mean.weight.copy_(best.inward)
    model.encoder.mean.bias.copy_(best.shift)
    model.encoder.raw.copy_(raw_of(best.noise))
    model.decoder.weight.copy_(best.outward)
    model.decoder.bias.copy_(best.offset)
    model.likelihood.raw.copy_(raw_of(best.y_variance))


def assert_measured_on_curve(model: VIBRegressor, b: float, count: int, tolerance: float) -> None:
    """Assert that what the test logs is on the curve: rate, and entropy of y less the sampled nll."""
    torch.manual_seed(0)
    [metrics] = trainer().test(model, batches(*draw(count), size=5000), verbose=False)
    assert metrics["test/rate"] == pytest.approx(curve(b).of_x, abs=tolerance)
    error = 4 * OUTPUTS**0.5 / count**0.5  # of a nll whose standard deviation is below that of two chi-squares
    assert ENTROPY_OF_Y - metrics["test/nll_sampled"] == pytest.approx(curve(b).of_y, abs=tolerance + error)


@pytest.mark.parametrize("b", [2.0, 20.0])
def test_the_logged_numbers_of_the_best_channel_are_those_of_the_theory(b: float) -> None:
    model, best = linear(b), optimum(b)
    put(model, best)
    assert_measured_on_curve(model, b, count=20_000, tolerance=1e-5)
    x, _ = draw(1000)
    with torch.no_grad():
        prediction = model.eval().predict_step(x, 0)
    expected = x.double() @ best.inward.T @ best.outward.T
    torch.testing.assert_close(prediction["mean"].double(), expected, rtol=0, atol=1e-5)
    model.eval_samples = 5000  # y given x has the variance of the likelihood and of the noise of the code
    with torch.no_grad():
        deviation = model.predict_step(x[:10], 0)["deviation"].double()
    variance = best.y_variance + best.outward.square() @ best.noise
    torch.testing.assert_close(deviation, variance.sqrt().expand(10, -1), rtol=0.04, atol=0)


@pytest.mark.parametrize("seed", range(3))
def test_nll_of_a_draw_and_rate_bound_the_entropy_of_the_targets(seed: int) -> None:
    model, count = linear(2.0), 10_000
    put(model, random_channel(seed, INPUTS))
    [metrics] = trainer().test(model, batches(*draw(count), size=5000), verbose=False)
    assert metrics["test/nll_sampled"] + metrics["test/rate"] > ENTROPY_OF_Y
    collapsed = linear(2.0)
    put(collapsed, optimum(1.0))  # no code, and the density of y itself: equality
    [metrics] = trainer().test(collapsed, batches(*draw(count), size=5000), verbose=False)
    assert metrics["test/rate"] == 0
    assert metrics["test/nll_sampled"] == pytest.approx(ENTROPY_OF_Y, rel=1e-5)  # the sample has its moments


def trained(b: float, steps: int) -> Channel:
    model, data = linear(b, steps), TensorDataset(*draw(4000))
    loader = DataLoader(data, sampler=BatchSampler(RandomSampler(data), 500, drop_last=True), batch_size=None)
    trainer(max_epochs=-1, max_steps=steps).fit(model, loader)
    assert_measured_on_curve(model.eval(), b, count=40_000, tolerance=0.02)
    return channel(model)


@pytest.mark.slow
@pytest.mark.parametrize("b", INVERSE_BETAS)
def test_training_reaches_the_gaussian_information_bottleneck(b: float) -> None:
    reached = trained(b, steps=3000)
    assert_on_curve(reached, b, tolerance=0.02)
    assert reached.information.of_x <= reached.rate
    assert reached.information.of_y >= ENTROPY_OF_Y - reached.distortion


# ----------------------------------------------------------------------------------------------------------- diabetes


def diabetes(seed: int) -> tuple[torch.Tensor, ...]:
    """Return rows to train and test on, inputs and targets standardised by the training rows."""
    x, y = load_diabetes(return_X_y=True)
    *inputs, y_train, y_test = train_test_split(x, y[:, None], test_size=0.2, random_state=seed)
    parts = []
    for train, test in (inputs, (y_train, y_test)):
        parts.append([(part - train.mean(0)) / train.std(0) for part in (train, test)])
    return tuple(torch.tensor(part, dtype=torch.float32) for pair in zip(*parts, strict=True) for part in pair)


def diabetes_regressor(seed: int, epochs: int, **kwargs: object) -> float:
    """Train a small network and return the R2 of the test rows."""
    x, y, x_test, y_test = diabetes(seed)
    torch.manual_seed(seed)
    model = VIBRegressor(
        MLP(10, [16], 2 * 4),
        latent_dim=4,
        optimizer=lambda weights: torch.optim.AdamW(weights, lr=2e-3, weight_decay=0.3),
        **kwargs,
    )
    loader = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
    run = fit(model, loader, max_epochs=epochs)
    [metrics] = run.test(model, batches(x_test, y_test, size=50), verbose=False)
    with torch.no_grad():
        assert metrics["test/r2"] == pytest.approx(r2_score(y_test.numpy(), model(x_test).numpy()), abs=1e-5)
    return metrics["test/r2"]


def ridge(seed: int) -> float:
    x, y, x_test, y_test = diabetes(seed)
    return RidgeCV(np.logspace(-2, 3, 20)).fit(x, y).score(x_test, y_test)


def test_a_short_training_explains_part_of_diabetes() -> None:
    assert diabetes_regressor(0, epochs=10, beta=1e-2) > 0.2  # RidgeCV: .33


@pytest.mark.slow
def test_on_diabetes_the_deterministic_twin_is_as_good_as_ridge_regression() -> None:
    seeds = range(10)
    twins = [diabetes_regressor(seed, epochs=30, deterministic=True) for seed in seeds]
    bottlenecks = [diabetes_regressor(seed, epochs=30, beta=1e-2) for seed in seeds]
    ridges = [ridge(seed) for seed in seeds]
    print(f"R2: twin {np.round(twins, 3)}, VIB {np.round(bottlenecks, 3)}, RidgeCV {np.round(ridges, 3)}")
    assert np.mean(twins) >= np.mean(ridges) - 0.02
    assert np.mean(bottlenecks) >= np.mean(ridges) - 0.02
