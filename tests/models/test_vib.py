"""The VIB classifier: loss, metrics, predictions, errors, and training on real digits."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning import LightningDataModule
from sklearn.metrics import accuracy_score, log_loss
from torch import Tensor, nn
from torch.distributions import Categorical, Normal, kl_divergence
from torch.utils.data import DataLoader
from torchvision.models import resnet18

from lit_bottleneck import VIBClassifier
from lit_bottleneck.beta import DualBeta
from lit_bottleneck.data import Digits
from lit_bottleneck.networks import MLP
from tests.models.runs import batches, fit, flat
from tests.quiet import trainer

CLASSES, WIDTH, INPUTS = 3, 4, 6


def classifier(seed: int = 0, encoder: nn.Module | None = None, **kwargs: Any) -> VIBClassifier:
    torch.manual_seed(seed)
    encoder = MLP(INPUTS, [16], 2 * WIDTH) if encoder is None else encoder
    return VIBClassifier(encoder, **{"latent_dim": WIDTH, "num_classes": CLASSES, "beta": 0.1} | kwargs)


def adam(lr: float) -> Any:
    return lambda weights: torch.optim.Adam(weights, lr=lr)


def blobs(rows: int, seed: int = 0, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return equally many rows of each class, with the centres two apart."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(rows) % CLASSES
    centres = math.sqrt(2) * F.one_hot(torch.arange(CLASSES), INPUTS).float()
    return centres[y] + spread * torch.randn(rows, INPUTS, generator=generator), y


def measure(model: VIBClassifier, rows: tuple[Tensor, ...], size: int) -> dict[str, float]:
    [metrics] = trainer().validate(model, batches(*rows, size=size), verbose=False)
    return metrics


def posterior(model: VIBClassifier, x: Tensor) -> Normal:
    """Return ``p(z|x)`` by the formula of the bounded scale."""
    with torch.no_grad():
        mean, raw = model.encoder(x).chunk(2, dim=1)
    bound = torch.where(raw < 0, 14.0, 8.0)
    log_var = raw / (1 + (raw / bound) ** 2).sqrt()
    return Normal(mean, log_var.exp().sqrt())


def rate(code: Normal) -> Tensor:
    return kl_divergence(code, Normal(0.0, 1.0)).sum(1)


# ------------------------------------------------------------------------------------------------------ the formulas


def test_forward_reads_the_mean_code_in_both_modes() -> None:
    model = classifier(decoder=nn.Sequential(nn.Linear(WIDTH, 5), nn.Tanh(), nn.Linear(5, CLASSES)))
    x, _ = blobs(9)
    expected = model.decoder(model.encoder(x)[:, :WIDTH])
    assert torch.equal(model(x), expected)
    assert torch.equal(model.eval()(x), expected)


@pytest.mark.parametrize("beta", [0.0, 0.1, 2.5])
def test_the_training_loss_is_cross_entropy_of_a_draw_plus_beta_times_the_mean_rate(beta: float) -> None:
    model = classifier(beta=beta)
    x, y = blobs(12)
    code = posterior(model, x)
    torch.manual_seed(7)
    z = code.sample()
    cross_entropy = -Categorical(logits=model.decoder(z)).log_prob(y).mean()
    torch.manual_seed(7)
    loss = model.training_step((x, y), 0)
    torch.testing.assert_close(loss, cross_entropy + beta * rate(code).mean())
    assert loss.requires_grad


def test_the_rate_penalty_has_a_gradient_in_the_encoder_only() -> None:
    model = classifier()
    x, _ = blobs(12)
    code = model.encode(x)
    model.rate_penalty(code.rate).backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.encoder.parameters())
    assert all(weight.grad is None for weight in model.decoder.parameters())


def test_evaluation_averages_the_probabilities_of_the_draws() -> None:
    model = classifier(eval_samples=5).eval()
    x, _ = blobs(7)
    code = posterior(model, x)
    torch.manual_seed(3)
    expected = torch.stack([model.decoder(z).softmax(-1) for z in code.sample((5,))]).mean(0)
    torch.manual_seed(3)
    with torch.no_grad():
        torch.testing.assert_close(model.predict_step(x, 0)["probabilities"], expected)


def test_draws_of_many_examples_are_averaged_a_few_examples_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier(eval_samples=5).eval()
    x, _ = blobs(7)
    with torch.no_grad():
        code = model.encode(x)
        torch.manual_seed(3)
        expected = torch.cat([model.log_probabilities(code[rows]) for rows in torch.arange(7).split(2)])
        monkeypatch.setattr("lit_bottleneck.models.vib._NUMBERS_AT_ONCE", 2 * 5 * WIDTH)
        decoded = record_rows(model.decoder)
        torch.manual_seed(3)
        torch.testing.assert_close(model.log_probabilities(code), expected, rtol=0, atol=0)
        assert model.log_probabilities(code[:0]).shape == (0, CLASSES)
    assert decoded == [10, 10, 10, 5, 0]


def record_rows(module: nn.Module) -> list[int]:
    """Return a list of the number of rows in each batch that the module takes from now on."""
    rows: list[int] = []
    module.register_forward_hook(lambda module, arguments, output: rows.append(len(output)))
    return rows


def test_many_draws_converge_to_the_predictive_distribution_and_not_to_that_of_the_mean_logits() -> None:
    model = classifier(eval_samples=20_000).eval()
    with torch.no_grad():
        model.decoder.weight.mul_(6)  # so that the two averages differ
    x, _ = blobs(5)
    code = posterior(model, x)
    rng = np.random.default_rng(0)
    draws = code.mean.numpy() + code.stddev.numpy() * rng.standard_normal((40_000, 5, WIDTH))
    logits = draws @ model.decoder.weight.detach().numpy().T + model.decoder.bias.detach().numpy()
    probabilities = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities /= probabilities.sum(-1, keepdims=True)
    deviation = probabilities.std(0)
    standard_error = deviation * math.sqrt(1 / 20_000 + 1 / 40_000)
    with torch.no_grad():
        found = model.predict_step(x, 0)["probabilities"].numpy()
        at_mean_logits = model(x).softmax(-1).numpy()  # a linear decoder's mean logits are those of the mean
    assert (abs(found - probabilities.mean(0)) < 5 * standard_error).all()  # 15 numbers: false alarm 1 in 100 000
    assert (abs(at_mean_logits - found) > 20 * standard_error).any()


def test_without_draws_evaluation_uses_the_mean_code_and_no_random_numbers() -> None:
    model = classifier(eval_samples=0).eval()
    x, y = blobs(10)
    before = torch.random.get_rng_state()
    with torch.no_grad():
        prediction = model.predict_step((x, y), 0)
        expected = model(x).softmax(-1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.testing.assert_close(prediction["probabilities"], expected)


def test_metrics_of_the_mean_code_do_not_depend_on_the_seed() -> None:
    model, rows = classifier(), blobs(20)
    torch.manual_seed(1)
    first = measure(model, rows, 10)
    torch.manual_seed(2)
    assert measure(model, rows, 10) == first


def test_appended_dimensions_without_information_change_neither_loss_nor_rate() -> None:
    class Padded(nn.Module):
        def __init__(self, encoder: nn.Module, extra: int) -> None:
            super().__init__()
            self.encoder, self.extra = encoder, extra

        def forward(self, x: Tensor) -> Tensor:
            mean, raw = self.encoder(x).chunk(2, dim=1)
            nothing = mean.new_zeros(len(mean), self.extra)
            return torch.cat([mean, nothing, raw, nothing], dim=1)

    narrow = classifier()
    wide = classifier(encoder=Padded(narrow.encoder, 5), latent_dim=WIDTH + 5)
    with torch.no_grad():
        wide.decoder.weight.zero_()[:, :WIDTH] = narrow.decoder.weight
        wide.decoder.bias.copy_(narrow.decoder.bias)
    rows = blobs(9)
    for x, y in zip(*rows, strict=True):  # one row at a time, so that the first random numbers agree
        torch.manual_seed(5)
        loss = narrow.training_step((x[None], y[None]), 0)
        torch.manual_seed(5)
        torch.testing.assert_close(wide.training_step((x[None], y[None]), 0), loss)
    assert torch.equal(wide.encode(rows[0]).rate, narrow.encode(rows[0]).rate)
    assert measure(wide, rows, 9) == pytest.approx(measure(narrow, rows, 9), rel=1e-6)


# ----------------------------------------------------------------------------------------------- deterministic=True


def test_a_deterministic_model_is_the_plain_classifier_step_by_step() -> None:
    model = classifier(deterministic=True, beta=0.5)
    encoder, decoder = copy.deepcopy(model.encoder), copy.deepcopy(model.decoder)
    data = batches(*blobs(50), size=8)
    assert fit(model, data, max_epochs=3).global_step == 21

    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
    for _ in range(3):
        for x, y in data:
            optimizer.zero_grad()
            F.cross_entropy(decoder(encoder(x)[:, :WIDTH]), y).backward()
            optimizer.step()
    torch.testing.assert_close(model.encoder.state_dict(), encoder.state_dict())
    torch.testing.assert_close(model.decoder.state_dict(), decoder.state_dict())
    metrics = measure(model, blobs(50), 8)
    assert metrics["val/rate"] == 0
    assert metrics["val/loss"] == metrics["val/cross_entropy"]


# ------------------------------------------------------------------------------------------------------- measurements


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    weighted = [
        (place == b).mean() * abs(right[place == b].mean() - confidence[place == b].mean()) for b in np.unique(place)
    ]
    return float(sum(weighted))


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_the_metrics_of_a_ragged_split_are_those_of_its_rows(beta: float) -> None:
    model = classifier(beta=beta)
    x, y = blobs(10, seed=4)
    found = measure(model, (x, y), 7)  # 7 + 3 rows
    assert found == pytest.approx(measure(model, (x, y), 10), rel=1e-6)

    with torch.no_grad():
        probabilities = model.decoder(posterior(model, x).mean).softmax(-1).double().numpy()
    cross_entropy = log_loss(y, probabilities, labels=range(CLASSES))
    rates = rate(posterior(model, x)).double()
    assert found == pytest.approx(
        {
            "val/loss": cross_entropy + beta * rates.mean().item(),
            "val/cross_entropy": cross_entropy,
            "val/rate": rates.mean().item(),
            "val/accuracy": accuracy_score(y, probabilities.argmax(1)),
            "val/calibration_error": calibration_error(probabilities, y.numpy()),
        },
        rel=1e-5,
    )


def test_the_test_split_is_measured_like_the_validation_split() -> None:
    model, rows = classifier(), blobs(10)
    [tested] = trainer().test(model, batches(*rows, size=7), verbose=False)
    validated = measure(model, rows, 7)
    del tested["test/cross_entropy_sampled"]
    assert {name.replace("test/", "val/"): value for name, value in tested.items()} == validated


def test_the_cross_entropy_of_draws_is_of_one_draw_each() -> None:
    model, (x, y) = classifier(), blobs(20_000)
    [logged] = trainer().test(model, batches(x, y, size=3000), verbose=False)
    with torch.no_grad():
        each = F.cross_entropy(model.decoder(model.encode(x, sample=True).z), y, reduction="none")
    standard_error = (each.std() / math.sqrt(len(y))).item()  # of our draws, and as much of the others
    assert logged["test/cross_entropy_sampled"] == pytest.approx(each.mean().item(), abs=4 * 2**0.5 * standard_error)
    assert logged["test/cross_entropy_sampled"] > logged["test/cross_entropy"]

    plain = classifier(deterministic=True)
    [logged] = trainer().test(plain, batches(*blobs(200), size=200), verbose=False)
    assert logged["test/cross_entropy_sampled"] == pytest.approx(logged["test/cross_entropy"], rel=1e-6)


def test_two_measurements_in_a_row_do_not_add_up() -> None:
    model = classifier()
    measure(model, blobs(30, seed=1), 10)
    assert measure(model, blobs(10, seed=2), 10) == measure(classifier(), blobs(10, seed=2), 10)


@pytest.mark.parametrize("stage", ["training", "validation"])
def test_parts_of_a_batch_after_x_and_y_are_ignored(stage: str) -> None:
    x, y = blobs(10)
    extra = torch.full((10,), float("nan"))
    if stage == "validation":
        assert measure(classifier(), (x, y, extra), 10) == measure(classifier(), (x, y), 10)
        return
    losses = []
    for batch in [(x, y), [x, y], (x, y, extra), (x, y, ["any"], {"thing": 1})]:
        torch.manual_seed(0)
        losses.append(classifier().training_step(batch, 0).item())
    assert len(set(losses)) == 1


# ---------------------------------------------------------------------------------- bounds of information theory


def bound(model: VIBClassifier, x: Tensor, y: Tensor, beta: float = 1.0) -> tuple[float, float]:
    """Return the mean of ``CE + beta R`` with one draw per row over 40 passes, and its standard error."""
    model.eval()
    values = []
    with torch.no_grad():
        for _ in range(40):
            code = model.encode(x, sample=False)
            cross_entropy = F.nll_loss(model.log_probabilities(code), y)
            values.append((cross_entropy + beta * code.rate.mean()).item())
    return float(np.mean(values)), float(np.std(values) / math.sqrt(len(values)))


@pytest.fixture(scope="module")
def trained() -> dict[float, VIBClassifier]:
    models = {}
    for beta in (1e-3, 0.1):
        model = classifier(beta=beta, eval_samples=1, optimizer=adam(0.01))
        fit(model, batches(*blobs(600, spread=0.3), size=50), max_epochs=8)
        models[beta] = model
    return models


@pytest.mark.parametrize("seed", range(3))
def test_cross_entropy_and_rate_of_one_draw_bound_the_entropy_of_the_labels(seed: int) -> None:
    mean, error = bound(classifier(seed, eval_samples=1), *blobs(300))
    assert mean > math.log(CLASSES) - 4 * error


@pytest.mark.parametrize("beta", [1e-3, 0.1])
def test_a_trained_model_obeys_the_bound_too(beta: float, trained: dict[float, VIBClassifier]) -> None:
    rows = blobs(300, seed=9, spread=0.3)
    mean, error = bound(trained[beta], *rows)
    assert mean > math.log(CLASSES) - 4 * error
    metrics = measure(trained[beta], rows, 100)
    assert metrics["val/accuracy"] > 0.9
    assert metrics["val/cross_entropy"] < math.log(CLASSES) - 0.4  # it has learnt, so the bound is not trivial
    assert metrics["val/cross_entropy"] + metrics["val/rate"] > math.log(CLASSES) - 4 * error * math.sqrt(40)


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_from_beta_one_on_the_collapsed_code_is_the_better_optimum(
    beta: float, trained: dict[float, VIBClassifier]
) -> None:
    collapsed = classifier(beta=beta, eval_samples=1)
    for weight in collapsed.parameters():
        nn.init.zeros_(weight)
    rows = blobs(300, seed=9, spread=0.3)
    metrics = measure(collapsed, rows, 100)
    assert metrics["val/loss"] == pytest.approx(math.log(CLASSES), rel=1e-6)
    assert metrics["val/rate"] == 0
    for informative in trained.values():
        mean, error = bound(informative, *rows, beta=beta)
        assert mean > metrics["val/loss"] + 4 * error
    mean, error = bound(trained[1e-3], *rows, beta=1e-3)
    assert mean < metrics["val/loss"] - 0.4  # at a small beta the informative code is better


# --------------------------------------------------------------------------------------------------------- predictions


@pytest.mark.parametrize("samples", [0, 4])
def test_a_prediction_holds_probabilities_rate_mean_and_label(samples: int) -> None:
    model = classifier(eval_samples=samples).eval()
    x, y = blobs(8)
    with torch.no_grad():
        prediction = model.predict_step([x, y], 0)
    assert {name: tuple(value.shape) for name, value in prediction.items()} == {
        "probabilities": (8, CLASSES),
        "rate": (8,),
        "mean": (8, WIDTH),
        "label": (8,),
    }
    torch.testing.assert_close(prediction["probabilities"].sum(1), torch.ones(8))
    torch.testing.assert_close(prediction["rate"], rate(posterior(model, x)))
    torch.testing.assert_close(prediction["mean"], posterior(model, x).mean)
    assert torch.equal(prediction["label"], y)


def test_a_prediction_needs_no_labels() -> None:
    model = classifier().eval()
    x, _ = blobs(8)
    with torch.no_grad():
        from_tensor, from_tuple = model.predict_step(x, 0), model.predict_step((x,), 0)
    assert set(from_tensor) == set(from_tuple) == {"probabilities", "rate", "mean"}
    assert all(torch.equal(from_tensor[name], from_tuple[name]) for name in from_tensor)
    [prediction] = trainer().predict(model, batches(x, size=8))
    torch.testing.assert_close(prediction["probabilities"], from_tensor["probabilities"])


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("label", [-1, -100, CLASSES, 12])
def test_a_label_out_of_range_is_named(label: int) -> None:
    x, y = blobs(6)
    y[4] = label
    model = classifier()
    with pytest.raises(ValueError, match=f"num_classes=3 needs labels 0 to 2; got {label}$"):
        model.training_step((x, y), 0)
    with pytest.raises(ValueError, match=f"got {label}$"):
        measure(model, (x, y), 6)


@pytest.mark.parametrize(
    "encoder",
    [
        lambda: MLP(INPUTS, [16], 9),
        lambda: nn.Linear(INPUTS, 9),
        lambda: nn.Sequential(nn.Linear(INPUTS, 16), nn.ReLU(), nn.Linear(16, 9)),
        lambda: nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(INPUTS, 16), nn.Linear(16, 9))),
    ],
    ids=["MLP", "Linear", "Sequential", "nested"],
)
def test_an_encoder_of_a_known_wrong_width_is_refused_at_construction(encoder: Any) -> None:
    with pytest.raises(ValueError, match="latent_dim=4 needs an encoder that returns 8 numbers per example; got 9"):
        classifier(encoder=encoder())


class Silent(nn.Module):
    """An encoder of unknown width, with everything in it that a dry run could disturb."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.frozen = nn.BatchNorm1d(INPUTS).eval()
        self.layers = nn.Sequential(nn.Linear(INPUTS, 16), nn.BatchNorm1d(16), nn.Dropout(), nn.Linear(16, width))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layers(self.frozen(x))


class Rows(LightningDataModule):
    """A datamodule with ``dims`` and ``num_classes``."""

    def __init__(self, dims: tuple[int, ...] = (INPUTS,), num_classes: int = CLASSES) -> None:
        super().__init__()
        self.dims, self.num_classes = dims, num_classes

    def train_dataloader(self) -> DataLoader:
        return batches(torch.randn(12, *self.dims), torch.arange(12) % self.num_classes, size=4)

    test_dataloader = train_dataloader


@pytest.mark.parametrize("data", [lambda: Rows(), lambda: batches(*blobs(12), size=4)], ids=["setup", "first batch"])
def test_an_encoder_whose_width_is_unknown_is_refused_after_one_call(data: Any) -> None:
    encoder = Silent(9)
    with pytest.raises(ValueError, match="needs an encoder that returns 8 numbers per example; got 9"):
        fit(classifier(encoder=encoder), data())
    assert encoder.calls == 1


def test_a_residual_network_is_an_encoder_of_half_its_width() -> None:
    kwargs = {"latent_dim": 256, "num_classes": 2}
    data = Rows(dims=(3, 32, 32), num_classes=2)
    model = classifier(encoder=resnet18(num_classes=512), **kwargs)
    assert fit(model, data, max_steps=1).global_step == 1
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 2)
    with pytest.raises(ValueError, match=r"latent_dim=256 needs an encoder that returns 512 numbers .* got 500"):
        fit(classifier(encoder=resnet18(num_classes=500), **kwargs), data)


def test_setup_leaves_modes_statistics_and_random_numbers_as_they_were() -> None:
    model = classifier(encoder=Silent(2 * WIDTH))
    modes = {name: module.training for name, module in model.named_modules()}
    state = copy.deepcopy(model.state_dict())
    random = torch.random.get_rng_state()
    run = trainer()
    run.datamodule = Rows()
    model.trainer = run
    model.setup("fit")
    assert {name: module.training for name, module in model.named_modules()} == modes
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_a_model_in_another_precision_is_set_up_again(precision: Any) -> None:
    run = fit(classifier(encoder=Silent(2 * WIDTH)), Rows(), precision=precision, max_steps=1)
    [metrics] = run.test(run.model, datamodule=Rows(), verbose=False)
    assert metrics["test/rate"] > 0


def test_a_datamodule_with_more_classes_is_refused_and_with_fewer_is_not() -> None:
    with pytest.raises(ValueError, match="num_classes=3, but the labels of Rows have 4 values"):
        fit(classifier(), Rows(num_classes=4))
    assert fit(classifier(), Rows(num_classes=2)).global_step == 3


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [("latent_dim", 0, 1), ("latent_dim", -2, 1), ("num_classes", 1, 2), ("eval_samples", -1, 0)],
)
def test_sizes_out_of_range_are_named(name: str, value: int, least: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a whole number, at least {least}; got {value}"):
        classifier(**{name: value})


@pytest.mark.parametrize(
    ("poison", "terms"),
    [(float("nan"), "cross_entropy, rate_penalty of"), (1e25, "rate_penalty of")],
    ids=["nan", "overflow"],
)
def test_a_loss_that_is_not_finite_stops_training_before_beta_and_weights_move(poison: float, terms: str) -> None:
    x, y = blobs(24)
    x[16:] = poison
    finite, poisoned = (classifier(beta=DualBeta(capacity=0.5, ema=0.0)) for _ in range(2))
    for model in (finite, poisoned):
        with torch.no_grad():
            model.encoder[-1].weight[WIDTH:].zero_()  # so that the scale stays finite
            model.decoder.weight.mul_(1e-3)
    torch.manual_seed(1)
    fit(finite, batches(x[:16], y[:16], size=8))
    assert finite.beta != 1e-3
    torch.manual_seed(1)
    with pytest.raises(FloatingPointError, match=f"not finite at step 2: {terms}"):
        fit(poisoned, batches(x, y, size=8))
    assert poisoned.beta == finite.beta
    assert torch.equal(flat(poisoned), flat(finite))


# ------------------------------------------------------------------------------------------------------------- digits


def digits(beta: Any) -> tuple[VIBClassifier, dict[str, float]]:
    torch.manual_seed(0)
    model = VIBClassifier(MLP(64, [128], 32), latent_dim=16, num_classes=10, beta=beta, optimizer=adam(3e-3))
    run, data = trainer(max_epochs=10), Digits(batch_size=64)
    run.fit(model, datamodule=data)
    [metrics] = run.test(model, datamodule=data, verbose=False)
    return model, metrics


def test_beta_trades_rate_for_accuracy_on_real_digits() -> None:
    _, cheap = digits(1e-3)
    dual, held = digits(DualBeta(capacity=4.0, gain=0.06))
    assert cheap["test/accuracy"] > 0.93
    assert held["test/accuracy"] > 0.93
    assert cheap["test/rate"] > 20
    assert 3 < held["test/rate"] < 5
    assert dual.beta > 0.01


@pytest.mark.parametrize("eval_samples", [0, 1, 7, 49])
def test_certain_and_right_predictions_are_perfectly_calibrated_for_any_number_of_draws(eval_samples: int) -> None:
    """torchmetrics would take probabilities for logits if one was rounded to 1 + 1e-7."""
    model = VIBClassifier(nn.Linear(3, 4), latent_dim=2, num_classes=3, eval_samples=eval_samples).eval()
    with torch.no_grad():
        model.decoder.weight.zero_()
        model.decoder.bias.copy_(torch.tensor([100.0, 0.0, 0.0]))
        log_probabilities = model.log_probabilities(model.encode(torch.randn(8, 3)))
    metric = model.metrics["test"].calibration_error
    metric.update(log_probabilities.exp(), torch.zeros(8, dtype=torch.long))

    assert log_probabilities.max() <= 0
    assert metric.compute().item() == pytest.approx(0.0, abs=1e-6)
