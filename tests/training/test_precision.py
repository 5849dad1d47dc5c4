"""All models under all precisions of the trainer: what half precision rounds, and what stays exact."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import Metric

from lit_bottleneck import IWAE, VAE, VDBGAN, BetaTC, VIBClassifier
from lit_bottleneck.adversarial import R1
from lit_bottleneck.beta import DualBeta
from lit_bottleneck.callbacks import WeightEMA
from lit_bottleneck.likelihoods import LearnedGaussian
from lit_bottleneck.networks import MLP, MLPDecoder
from lit_bottleneck.training.evaluating import evaluating
from lit_bottleneck.training.precision import Mean
from tests.models.runs import Record, average, batches, flat
from tests.quiet import trainer

PRECISIONS = ["32-true", "bf16-mixed", "16-mixed", "64-true", "bf16-true"]
WEIGHTS = {"bf16-true": torch.bfloat16, "64-true": torch.float64}  # of all others: float32
EXACT = {"64-true": torch.float64}  # codes, rates, prices, losses and averages; of all others: float32
ROWS = 768


def run(precision: str, **kwargs: Any) -> Trainer:
    """Return a trainer; 16-mixed uses float16 and a scaler on the CPU too, where Lightning would take bfloat16."""
    if precision == "16-mixed":
        return trainer(plugins=[MixedPrecision("16-mixed", "cpu")], **kwargs)
    return trainer(precision=precision, **kwargs)


# --- tasks ----------------------------------------------------------------------------------------------------------


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def labelled() -> tuple[Tensor, ...]:
    y = torch.arange(ROWS) % 3
    return 2 * nn.functional.one_hot(y, 6).float() + normal(ROWS, 6), y


def near_a_line() -> tuple[Tensor, ...]:
    return (normal(ROWS, 1) * torch.tensor([1.0, -1.0] * 4) + 0.2 * normal(8, ROWS).T,)


def signs() -> tuple[Tensor, ...]:
    return ((near_a_line()[0] > 0).float(),)


def cluster() -> tuple[Tensor, ...]:
    return (torch.tensor([1.0, -1.0]) + 0.3 * normal(ROWS, 2),)


def adam(**kwargs: Any) -> Any:
    return lambda parameters: torch.optim.Adam(parameters, **{"lr": 0.03} | kwargs)


def encoder(name: str) -> nn.Module:
    return {"vib": MLP(6, [16], 8), "gan": MLP(2, [16], 6, activation="leaky_relu")}.get(name, MLP(8, [16], 4))


def decoder() -> nn.Module:
    return MLP(2, [16], 8)


def generator() -> nn.Module:
    return MLPDecoder(4, [16], [2], activation="leaky_relu")


def vae(likelihood: str = "gaussian", **kwargs: Any) -> VAE:
    return VAE(
        encoder("vae"), decoder(), 2, likelihood, **{"beta": DualBeta(1.5, beta_init=0.5), "optimizer": adam()} | kwargs
    )


def gan() -> VDBGAN:
    return VDBGAN(
        generator(),
        encoder("gan"),
        latent_dim=3,
        noise_dim=4,
        beta=DualBeta(1.0),
        gradient_penalty=R1(1.0),
        spectral_norm=True,
        generator_ema=0.9,
        optimizer=adam(lr=0.01, betas=(0.5, 0.9)),
    )


def classifier() -> VIBClassifier:
    return VIBClassifier(encoder("vib"), 4, 3, beta=DualBeta(2.0, beta_init=0.01), optimizer=adam())


# A model and its data.
TASKS: dict[str, tuple[Callable[[], Any], Callable[[], tuple[Tensor, ...]]]] = {
    "vib": (classifier, labelled),
    "vae": (vae, near_a_line),
    "vae gaussian_learned": (lambda: vae("gaussian_learned"), near_a_line),
    "vae bernoulli": (lambda: vae("bernoulli"), signs),
    "vae iwae": (lambda: vae(objective=IWAE(4), beta=1.0), near_a_line),
    "vae tc": (lambda: vae(objective=BetaTC(1.0)), near_a_line),
    "gan": (gan, cluster),
}
MODELS = [(name, precision) for name in ("vib", "vae", "gan") for precision in PRECISIONS]
VARIANTS = [name for name in TASKS if name.startswith("vae ")]  # of likelihood and objective
CASES = MODELS + [(name, precision) for name in VARIANTS for precision in ("32-true", "bf16-true")]


def with_marks(cases: list[tuple[str, str]]) -> list[Any]:
    return [pytest.param(*case, marks=[pytest.mark.slow] * (case[0] in VARIANTS)) for case in cases]


def loader(name: str) -> DataLoader:
    return batches(*TASKS[name][1](), size=64)


def to_learn(name: str, model: Any, precision: str) -> float:
    """Return the validation loss in nats; of a GAN, the distance between the means of generated and real points."""
    torch.manual_seed(2)
    if name == "gan":
        return (model.sample(2000).double().mean(0) - cluster()[0].double().mean(0)).norm().item()
    [metrics] = run(precision, limit_val_batches=4).validate(model, loader(name), verbose=False)
    return metrics["val/cross_entropy"] if name == "vib" else -metrics["val/elbo"]


class Watch(Callback):
    """Record the dtypes of codes and penalties, and the logged values, during training."""

    def __init__(self) -> None:
        self.logged: dict[str, list[Tensor]] = {}
        self.kept: set[torch.dtype] = set()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx % 4:
            return
        for name, value in trainer.callback_metrics.items():
            self.logged.setdefault(name, []).append(value)
        with trainer.precision_plugin.train_step_context(), evaluating(pl_module):
            code = pl_module.encode(pl_module.inputs(batch), sample=True)
            penalty = pl_module.rate_penalty(code.rate)
        self.kept |= {value.dtype for value in (code.rate, code.kl, code.mean, code.log_var, penalty)}


@cache
def trained(name: str, precision: str) -> tuple[Any, Trainer, Watch, float]:
    """Return a trained model, its trainer, the recorded values, and the remaining loss."""
    model, watch = new(name), Watch()
    by = run(precision, max_epochs=4, log_every_n_steps=4, callbacks=[watch])
    torch.manual_seed(1)
    by.fit(model, loader(name))
    return model, by, watch, to_learn(name, model, precision)


@cache
def untrained(name: str) -> float:
    """Return the loss before training."""
    return to_learn(name, new(name), "32-true")


def new(name: str) -> Any:
    torch.manual_seed(0)
    return TASKS[name][0]()


# --- all models under all precisions --------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "precision"), with_marks([case for case in CASES if case[1] != "32-true"]))
def test_every_precision_learns_as_much_as_float32(name: str, precision: str) -> None:
    """The tolerance is a seventh of the loss reduction.

    Half precision rounds a number by at most 1/256, which changes the reduction by a thirtieth; 64-true draws other
    noise, which changes it by a tenth. If steps were rounded away, the loss would be far off.
    """
    before, after = untrained(name), trained(name, "32-true")[-1]
    assert after < (0.3 if name in ("vib", "gan") else 0.92) * before
    assert trained(name, precision)[-1] == pytest.approx(after, abs=(before - after) / 7)


@pytest.mark.parametrize(("name", "precision"), with_marks(CASES))
def test_codes_penalties_losses_and_averages_are_at_least_float32(name: str, precision: str) -> None:
    model, _, watch, _ = trained(name, precision)
    exact = EXACT.get(precision, torch.float32)
    assert next(model.encoder.parameters()).dtype == WEIGHTS.get(precision, torch.float32)
    assert watch.kept == {exact}
    logged = {what: torch.stack(values) for what, values in watch.logged.items()}
    exact_logs = [what for what in logged if not what.endswith(("accuracy", "accuracy_sampled", "_steps"))]
    assert {"train/rate", "train/beta"} < set(exact_logs)
    for what in exact_logs:
        assert logged[what].dtype in (exact, torch.float32)
        constant = what == "train/beta" and name == "vae iwae"
        # A number that was rounded to half precision equals its rounding, in any dtype that it is logged in.
        assert constant or not torch.equal(logged[what].bfloat16().to(logged[what].dtype), logged[what]), what
    for metric in (part for part in model.modules() if isinstance(part, Metric)):
        assert metric.dtype == (torch.float64 if isinstance(metric, Mean) else torch.float32)
    if name != "vae iwae":  # the others' beta moves
        assert model.beta_controller.get_extra_state().dtype == torch.float64
        assert model.beta != torch.tensor(model.beta).bfloat16().item()
    if name == "gan":
        assert {weight.dtype for weight in model.averaged_generator.parameters()} == {exact}


@pytest.mark.parametrize(("name", "precision"), with_marks(CASES))
def test_a_trained_model_tests_predicts_samples_and_loads(name: str, precision: str, tmp_path: Path) -> None:
    model, by, *_ = trained(name, precision)
    by.save_checkpoint(tmp_path / "it.ckpt")
    networks = {"vib": {}, "gan": {"generator": generator()}}.get(name, {"decoder": decoder()})
    again = type(model).load_from_checkpoint(
        tmp_path / "it.ckpt", weights_only=True, encoder=encoder(name), optimizer=None, **networks
    )
    for theirs, ours in zip(again.parameters(), model.parameters(), strict=True):
        assert torch.equal(theirs, ours.float())
    assert again.beta == model.beta

    [measured] = run(precision, limit_test_batches=1).test(model, loader(name), verbose=False)
    assert all(torch.tensor(value).isfinite() for value in measured.values())
    predicted = run(precision, limit_predict_batches=1).predict(model, loader(name))[0]
    exact = EXACT.get(precision, torch.float32)
    assert {value.dtype for what, value in predicted.items() if what != "label"} == {exact}
    for made in made_by(model, loader(name).dataset.tensors[0][:4].to(model.dtype)):
        assert made.isfinite().all()
        assert made.dtype in (exact, model.dtype)


def made_by(model: Any, x: Tensor) -> list[Tensor]:
    """Return the outputs of the model's methods."""
    if isinstance(model, VAE):
        return [model.sample(3), model.reconstruct(x), model.interpolate(x, x + 0, 3), model.log_likelihood(x, 5)]
    if isinstance(model, VDBGAN):
        noise = model.draw_noise(4)
        return [model.sample(3), model.interpolate(noise, -noise, 3), model.discriminate(x)]
    return [model(x), model.encode(x).rate]


@pytest.mark.parametrize(("name", "precision"), MODELS)
def test_a_sanity_check_changes_no_bit_of_the_first_validation(name: str, precision: str) -> None:
    """Nor do the inference tensors that it leaves in the metrics; a resumed run has no sanity check."""
    logged = []
    for steps in (0, 2):
        model, by = new(name), run(precision, limit_train_batches=1, limit_val_batches=2, num_sanity_val_steps=steps)
        torch.manual_seed(2)
        by.fit(model, loader(name), loader(name))
        logged.append({what: value for what, value in by.callback_metrics.items() if what.startswith("val/")})
    assert logged[0].keys() == logged[1].keys() >= {"val/loss", "val/rate"}
    for what, value in logged[0].items():
        assert torch.equal(value, logged[1][what]), what


@pytest.mark.parametrize("cast", [nn.Module.half, nn.Module.bfloat16, lambda module: module.to(torch.bfloat16)])
def test_a_cast_of_the_module_changes_no_metric(cast: Callable[[nn.Module], nn.Module]) -> None:
    model = new("vib")
    metrics = model.metrics["val"]
    metrics.rate.update(torch.tensor(0.123456))
    metrics.calibration_error.update(torch.tensor([[0.123456, 0.5, 0.376544]]), torch.tensor([1]))
    before = metrics.rate.compute(), metrics.calibration_error.compute()
    for metric in (metrics.rate, metrics.calibration_error):
        metric._computed = None
    cast(model)
    assert next(model.encoder.parameters()).dtype in (torch.float16, torch.bfloat16)
    assert (metrics.rate.compute(), metrics.calibration_error.compute()) == before
    assert metrics.rate.compute().item() == torch.tensor(0.123456).item()


def test_a_mean_of_many_small_batches_keeps_its_digits() -> None:
    """5000 batches of 100 rows at 4e4 + .1, which is 40 000.1015625 in float32.

    The mean of equal numbers is that number. Their sum is 2e10, where float32 has steps of 2048 and rounds each
    addition of 4 000 010 by hundreds, again and again to the same side.
    """
    mean, value = Mean(), torch.tensor(4e4 + 0.1)
    for _ in range(5000):
        mean.update(value, weight=100)
    assert mean.compute().item() == value.item() == 40000.1015625
    assert mean.compute().dtype == torch.float32


def test_a_mean_moves_to_a_device_without_float64() -> None:
    def to_mps(tensor: Tensor) -> Tensor:  # as the move to MPS does
        if tensor.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return tensor.clone()

    mean = Mean()
    mean.update(torch.tensor([0.5, 1.0]))
    mean._apply(to_mps)
    mean.update(torch.tensor([3.0]))
    assert mean.dtype == torch.float32
    assert mean.compute().item() == 1.5


def test_means_are_float32_in_a_model_that_is_built_in_half_precision() -> None:
    with run("bf16-true").init_module():
        model = new("vib")
    assert next(model.encoder.parameters()).dtype == torch.bfloat16
    model.metrics["val"].rate.update(torch.tensor(0.123456, dtype=torch.float32))
    assert model.metrics["val"].rate.compute().item() == torch.tensor(0.123456, dtype=torch.float32).item()


def test_the_gradient_scaler_of_float16_keeps_a_scale_of_at_least_one() -> None:
    for name in ("vib", "vae", "gan"):
        scaler = trained(name, "16-mixed")[1].precision_plugin.scaler
        assert scaler.get_scale() >= 1.0


def test_lightning_uses_bfloat16_instead_of_float16_on_a_cpu() -> None:
    with pytest.warns(UserWarning, match="Using `precision='bf16-mixed'` instead"):
        assert trainer(precision="16-mixed").precision == "bf16-mixed"


# --- small steps that half precision would lose ---------------------------------------------------------------------


def doubles(module: nn.Module) -> Tensor:
    return flat(module).double()


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [(precision, torch.float32) for precision in PRECISIONS if precision != "16-mixed"]
    + [("bf16-true", torch.bfloat16)],
)
def test_validation_does_not_round_the_average_of_the_weights(precision: str, dtype: torch.dtype) -> None:
    """Of a model that the trainer casts, or that was cast before."""
    model, record, averaging = new("vib").to(dtype), Record(doubles), WeightEMA(0.99)
    by = run(precision, max_epochs=2, limit_val_batches=1, callbacks=[averaging, record])
    by.fit(model, loader("vib"), loader("vib"))
    expected = average(record.seen, 0.99)
    kept = averaging._average_model.module
    assert {weight.dtype for weight in kept.parameters()} == {EXACT.get(precision, torch.float32)}
    torch.testing.assert_close(doubles(kept), expected, rtol=1e-5, atol=1e-6)
    rounding = {"bf16-true": 2**-8}.get(precision, 1e-5)  # the final model has the precision of the weights
    torch.testing.assert_close(doubles(model), expected, rtol=rounding, atol=1e-6)
    assert next(model.parameters()).dtype == WEIGHTS.get(precision, torch.float32)


def test_a_learned_sigma_moves_by_steps_that_half_precision_would_lose() -> None:
    """At a raw scale of -2.4 bfloat16 resolves 1/64, while Adam's steps are 1/1000."""
    moved = {}
    for precision in ("32-true", "bf16-true"):
        torch.manual_seed(0)
        model = vae(LearnedGaussian(sigma_init=0.3), optimizer=adam(lr=1e-3))
        first = model.likelihood.raw.item()
        run(precision).fit(model, loader("vae"))
        moved[precision] = model.likelihood.raw.item() - first
    assert moved["32-true"] > 0.01
    assert moved["bf16-true"] == pytest.approx(moved["32-true"], rel=0.05)


def test_a_spectral_norm_in_half_precision_holds_the_gain_at_one() -> None:
    model = trained("gan", "bf16-true")[0]
    for layer in [layer for layer in model.encoder if isinstance(layer, nn.Linear)]:
        gain = torch.linalg.matrix_norm(layer.weight.detach().float(), ord=2).item()
        assert gain == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("callbacks", [[], [WeightEMA(0.9)]])
def test_a_checkpoint_restores_float64_weights_exactly(callbacks: list[Callback], tmp_path: Path) -> None:
    """Lightning casts the module only after it has loaded the checkpoint."""
    path, seen = tmp_path / "it.ckpt", []

    class First(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            seen.append(flat(pl_module))
            trainer.should_stop = True

    class Save(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
            trainer.save_checkpoint(path)

    record = Record(flat)
    run("64-true", limit_train_batches=3, callbacks=[*callbacks, record, Save()]).fit(classifier(), loader("vib"))
    by = run("64-true", max_epochs=2, limit_train_batches=1, callbacks=[*callbacks, First()])
    by.fit(classifier(), loader("vib"), ckpt_path=path, weights_only=True)
    assert torch.equal(seen[0], record.seen[-1])
    assert not torch.equal(seen[0], seen[0].float().double())
