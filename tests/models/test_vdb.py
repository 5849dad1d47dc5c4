"""The GAN with a discriminator bottleneck: losses, steps, logs, checkpoints and errors."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ReduceLROnPlateau
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_bottleneck import VDBGAN
from lit_bottleneck.adversarial import R1, WGANGP, adversarial_loss
from lit_bottleneck.beta import ConstantBeta, DualBeta
from lit_bottleneck.code import Code, gaussian_code
from lit_bottleneck.data import Digits, Ring
from lit_bottleneck.functional import gaussian_kl
from lit_bottleneck.networks import MLP, DCGANEncoder, DCGANGenerator, MLPDecoder, ResNetEncoder
from tests.bottleneck.modules import Noted
from tests.models.runs import Record, average, batches, checkpoint_of, fit, flat, logged
from tests.quiet import trainer


def points(count: int = 48) -> Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(3))


def networks() -> dict[str, nn.Module]:
    return {
        "generator": MLPDecoder(4, [16], [2], activation="leaky_relu"),
        "encoder": MLP(2, [16], 2 * 3, activation="leaky_relu"),
    }


def gan(kind: type[VDBGAN] = VDBGAN, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    return kind(**networks() | {"latent_dim": 3, "noise_dim": 4} | kwargs)


def dcgan() -> dict[str, nn.Module]:
    """Return networks of 8 x 8 images."""
    return {"generator": DCGANGenerator(4, (1, 8, 8), 4), "encoder": DCGANEncoder((1, 8, 8), 6, 4)}


def plateau(monitor: str) -> Any:
    return lambda optimizer: ReduceLROnPlateau(optimizer, monitor=monitor, factor=0.1, patience=0)


def halved(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)


def loader(count: int = 4, size: int = 8) -> DataLoader:
    return batches(points(count * size), size=size)


def column(rows: list[dict[str, str]], name: str) -> list[float]:
    return [float(row[name]) for row in rows if row.get(name)]


# --- the loss -------------------------------------------------------------------------------------------------------


def moments(model: VDBGAN, x: Tensor) -> tuple[Tensor, Tensor]:
    mean, raw = model.encoder(x).chunk(2, 1)
    return mean, raw / torch.hypot(torch.ones(()), raw / torch.where(raw < 0, 14.0, 8.0))


def test_the_discriminator_loss_is_that_of_both_halves_plus_beta_times_the_mean_of_their_rates() -> None:
    model = gan(beta=0.25).double()
    real, generated = points(12).double(), model(torch.randn(5, 4).double()).detach()
    torch.manual_seed(1)
    loss = model.discriminator_loss(real, generated)

    torch.manual_seed(1)
    logits, rates = [], []
    for x in (real, generated):
        mean, log_var = moments(model, x)
        logits.append(model.head(mean + (0.5 * log_var).exp() * torch.randn_like(mean)).squeeze(1))
        rates.append(gaussian_kl(mean, log_var).mean())
    halves = [
        F.binary_cross_entropy_with_logits(logit, torch.full_like(logit, target))
        for logit, target in zip(logits, (1.0, 0.0), strict=True)
    ]
    torch.testing.assert_close(loss, sum(halves) + 0.25 * sum(rates) / 2, rtol=1e-12, atol=0)


def test_the_rate_that_moves_beta_is_the_mean_of_both_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    model = gan(beta=DualBeta.paper(0.1)).double()
    seen: list[float] = []
    monkeypatch.setattr(model.beta_controller, "update", lambda rate, distortion: seen.append(rate))
    real, generated = points(12).double(), 3 * points(5).double()
    model.discriminator_loss(real, generated)
    model.step_beta()
    rates = [gaussian_kl(*moments(model, x)).mean() for x in (real, generated)]
    assert seen == [pytest.approx(((rates[0] + rates[1]) / 2).item(), rel=1e-12)]


@pytest.mark.parametrize(("sees", "draws"), [("mean", False), ("sample", True)])
def test_the_generator_sees_the_mean_code_or_a_draw_and_pays_no_penalty(sees: str, draws: bool) -> None:
    model = gan(beta=100.0, generator_sees=sees).double()
    torch.manual_seed(1)
    loss = model.generator_loss(6)
    torch.manual_seed(1)
    mean, log_var = moments(model, model(torch.randn(6, 4).double()))
    z = mean + (0.5 * log_var).exp() * torch.randn_like(mean) if draws else mean
    expected = F.binary_cross_entropy_with_logits(model.head(z).squeeze(1), torch.ones(6).double())
    torch.testing.assert_close(loss, expected)


def test_the_gradient_penalty_is_of_the_sampled_logit_at_real_examples() -> None:
    torch.manual_seed(0)
    model = gan(beta=0.0, gradient_penalty=3.0).double()
    real, generated = points(6).double(), points(7).double()
    torch.manual_seed(1)
    loss = model.discriminator_loss(real, generated)
    model.gradient_penalty = None
    torch.manual_seed(1)
    without = model.discriminator_loss(real, generated)

    def logit(x: Tensor, noise: Tensor) -> Tensor:
        mean, log_var = moments(model, x[None])
        return model.head(mean + (0.5 * log_var).exp() * noise)[0, 0]

    torch.manual_seed(1)
    noise = torch.randn_like(torch.zeros(6, 3).double())
    step, squares = 1e-6, []
    for row, of_row in zip(real, noise, strict=True):
        slope = [
            (logit(row + step * unit, of_row) - logit(row - step * unit, of_row)) / (2 * step) for unit in torch.eye(2)
        ]
        squares.append(torch.stack(slope).square().sum())
    torch.testing.assert_close(loss - without, 3.0 * torch.stack(squares).mean(), rtol=1e-5, atol=1e-9)


def test_a_penalty_is_a_number_or_an_object_and_the_default_beta_is_the_papers() -> None:
    assert isinstance(gan(gradient_penalty=2).gradient_penalty, R1)
    assert gan(gradient_penalty=0.5).gradient_penalty.weight == 0.5
    assert isinstance(gan(gradient_penalty=WGANGP(10.0)).gradient_penalty, WGANGP)
    assert gan().gradient_penalty is None
    assert torch.equal(gan().beta_controller.get_extra_state(), DualBeta.paper(0.1).get_extra_state())
    assert gan().beta_controller.arguments == DualBeta.paper(0.1).arguments


def test_the_cross_entropy_of_one_draw_is_at_least_log_2_minus_the_rate() -> None:
    """Of a balanced discriminator trained at several betas."""
    real, generated = points(4096), points(4096) * 0.5 + torch.tensor([4.0, 0.0])
    for beta in (1e-3, 1.2, 2.5):
        model = gan(beta=beta)
        optimizer = torch.optim.Adam([*model.encoder.parameters(), *model.head.parameters()], 1e-2)
        for _ in range(150):
            optimizer.zero_grad()
            model.discriminator_loss(real[:512], generated[:512]).backward()
            model.step_beta()
            optimizer.step()
        with torch.no_grad():
            codes = [model.encode(x, sample=True) for x in (real, generated)]
            logits = [model.logits(code.z) for code in codes]
            each = torch.cat([F.softplus(-logits[0]), F.softplus(logits[1])])
            rate = torch.cat([code.rate for code in codes]).mean()
        noise = (each.std() / math.sqrt(len(each))).item()
        assert each.mean().item() >= math.log(2) - rate.item() - 4 * noise
        if beta == 1e-3:
            assert each.mean() < 0.2  # it has learnt
        if beta == 2.5:
            assert rate < 0.05  # collapse is optimal from 2 on
            assert each.mean().item() == pytest.approx(math.log(2), abs=0.02)


def test_rate_per_position_is_that_per_image_over_the_positions() -> None:
    encoder = DCGANEncoder((1, 8, 8), 6, width=4, spatial=True)  # 4 x 4 positions
    parts = {"generator": DCGANGenerator(4, (1, 8, 8), 4), "encoder": encoder, "beta": 0.5}
    real, generated = torch.rand(5, 1, 8, 8), torch.rand(5, 1, 8, 8)
    prices = {}
    for unit in ("image", "position"):
        model = gan(**parts, rate_per=unit)
        torch.manual_seed(1)
        loss = model.discriminator_loss(real, generated)
        model.beta_controller = ConstantBeta(0.0)
        torch.manual_seed(1)
        prices[unit] = loss - model.discriminator_loss(real, generated)
    rates = torch.cat([model.encode(x, sample=False).rate for x in (real, generated)])
    torch.testing.assert_close(prices["image"], 0.5 * rates.mean(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(prices["position"], 0.5 * rates.mean() / 16, rtol=1e-4, atol=1e-6)
    assert model.discriminate(real).shape == (5,)
    assert model.head[1].in_features == 3 * 16


def test_a_deterministic_model_is_the_plain_gan_of_the_same_networks() -> None:
    model = gan(deterministic=True, beta=7.0).double()
    real, generated = points(6).double(), 2 * points(6).double()
    mean = [model.encoder(x).chunk(2, 1)[0] for x in (real, generated)]
    logits = [model.head(z).squeeze(1) for z in mean]
    expected = F.softplus(-logits[0]).mean() + F.softplus(logits[1]).mean()
    torch.testing.assert_close(model.discriminator_loss(real, generated), expected)
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in gan().named_parameters()]


@pytest.mark.parametrize("name", ["non_saturating", "hinge", "wasserstein"])
def test_each_loss_has_its_formula_on_real_and_generated_examples(name: Any) -> None:
    model, loss = gan(loss=name, deterministic=True).double(), adversarial_loss(name)
    real, generated = points(6).double(), 5 * points(6).double()
    expected = loss.real(model.discriminate(real)).mean() + loss.generated(model.discriminate(generated)).mean()
    torch.testing.assert_close(model.discriminator_loss(real, generated), expected)
    torch.manual_seed(1)
    value = model.generator_loss(6)
    torch.manual_seed(1)
    torch.testing.assert_close(value, loss.generator(model.discriminate(model(model.draw_noise(6)))).mean())


def test_spectral_norm_holds_the_gain_of_every_layer_at_one() -> None:
    model = gan(spectral_norm=True, deterministic=True)
    for _ in range(100):
        model.discriminate(points(4))
    layers = [layer for layer in [*model.encoder.modules(), *model.head.modules()] if isinstance(layer, nn.Linear)]
    assert len(layers) == 3
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.detach(), 2).item() == pytest.approx(1.0, abs=1e-3)
    fit(model, loader())
    assert not any("parametrizations" in name for name, _ in model.generator.named_parameters())


# --- steps ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("discriminator_steps", "accumulate"), [(1, 1), (3, 1), (1, 4), (2, 2)])
def test_beta_moves_once_per_discriminator_step(discriminator_steps: int, accumulate: int) -> None:
    model = gan(beta=Noted(), discriminator_steps=discriminator_steps, accumulate_grad_batches=accumulate)
    run = fit(model, loader(12))
    discriminator = 12 // accumulate
    generator = discriminator // discriminator_steps
    assert len(model.beta_controller.rates) == discriminator
    assert model.steps_taken == {"generator": generator, "discriminator": discriminator}
    assert run.global_step == discriminator + generator
    assert model.averaged_generator.num_averaged == generator


def test_the_last_batches_of_an_epoch_are_a_step_of_their_own() -> None:
    model = gan(accumulate_grad_batches=4)
    fit(model, loader(6), max_epochs=2)
    assert model.steps_taken == {"generator": 4, "discriminator": 4}


class Fixed(VDBGAN):
    """A GAN without randomness, whose batches can be split."""

    def draw_noise(self, n: int) -> Tensor:
        return torch.ones(n, self.noise_dim)

    def encode(self, x: Tensor, sample: bool | None = None) -> Any:
        return super().encode(x, sample=False)


def fixed(**kwargs: Any) -> Fixed:
    sgd = {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.1)}
    return gan(Fixed, **sgd | {"beta": DualBeta(0.1)} | kwargs)


def test_accumulating_two_batches_is_one_batch_of_both() -> None:
    halves, whole = fixed(accumulate_grad_batches=2), fixed()
    fit(halves, loader(8, size=4))
    fit(whole, loader(4, size=8))
    assert halves.beta == pytest.approx(whole.beta, rel=1e-6)
    assert halves.beta != 1e-3
    torch.testing.assert_close(flat(halves), flat(whole), rtol=1e-4, atol=1e-6)


def test_training_equals_a_loop_written_by_hand() -> None:
    model, twin = fixed(beta=0.5, gradient_penalty=1.0), fixed(beta=0.5, gradient_penalty=1.0)
    fit(model, loader(3))
    discriminator = torch.optim.SGD([*twin.encoder.parameters(), *twin.head.parameters()], lr=0.1)
    generator = torch.optim.SGD(twin.generator.parameters(), lr=0.1)
    for (real,) in loader(3):
        twin.zero_grad()
        twin.discriminator_loss(real, twin(twin.draw_noise(len(real))).detach()).backward()
        discriminator.step()
        twin.zero_grad()
        twin.generator_loss(len(real)).backward()
        generator.step()
    for name in ("generator", "encoder", "head"):
        torch.testing.assert_close(flat(getattr(model, name)), flat(getattr(twin, name)))


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_of_each_network_are_clipped(algorithm: Any) -> None:
    bound = 1e-3
    model = fixed(gradient_clip_val=bound, gradient_clip_algorithm=algorithm)
    before = {name: flat(getattr(model, name)) for name in ("generator", "encoder", "head")}
    fit(model, loader(1))
    moved = {name: (flat(getattr(model, name)) - before[name]) / 0.1 for name in before}
    for change in (moved["generator"], torch.cat([moved["encoder"], moved["head"]])):
        size = change.norm() if algorithm == "norm" else change.abs().max()
        assert size.item() == pytest.approx(bound, rel=1e-2)


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_learning_rates_follow_their_schedules(interval: Any) -> None:
    model = gan(
        lr_scheduler=halved,
        lr_scheduler_interval=interval,
        discriminator_steps=2,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1.0),
        discriminator_optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e-3),
    )
    run = fit(model, loader(4), max_epochs=3)
    generator, discriminator = run.optimizers
    assert isinstance(discriminator, torch.optim.SGD)
    rounds = (3, 3) if interval == "epoch" else (6, 12)
    assert generator.param_groups[0]["lr"] == pytest.approx(0.5 ** rounds[0])
    assert discriminator.param_groups[0]["lr"] == pytest.approx(1e-3 * 0.5 ** rounds[1])


def test_a_plateau_schedule_follows_a_logged_metric() -> None:
    constant = Record(lambda model: model.log("train/constant", 1.0))
    run = fit(gan(lr_scheduler=plateau("train/constant")), loader(), callbacks=[constant], max_epochs=3)
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(2e-6)


def test_a_checkpoint_of_an_epochs_last_batch_holds_the_schedule_after_the_epoch(tmp_path: Path) -> None:
    # Two steps a batch, four batches an epoch.
    kept = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=8, save_top_k=-1)
    fit(gan(lr_scheduler=halved), loader(), enable_checkpointing=True, callbacks=[kept])
    run = trainer(max_epochs=2)
    run.fit(gan(lr_scheduler=halved), loader(), ckpt_path=tmp_path / "step=8.ckpt", weights_only=True)
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(2e-4 / 4)


def test_a_plateau_schedule_warns_while_its_metric_is_not_logged() -> None:
    run = trainer(max_epochs=2, check_val_every_n_epoch=2)
    with pytest.warns(UserWarning, match=r"follows 'val/loss', which was not logged yet"):
        run.fit(gan(lr_scheduler=plateau("val/loss")), loader(), loader())


@pytest.mark.parametrize(("precision", "decay", "count"), [("32-true", 0.7, 4), ("bf16-true", 0.999, 50)])
def test_the_averaged_generator_is_the_corrected_average_of_the_weights_after_each_step(
    precision: Any, decay: float, count: int
) -> None:
    """In float32 also where the weights are of half precision, which would round away the average's steps."""
    record, model = Record(lambda model: flat(model.generator).double()), gan(generator_ema=decay)
    fit(model, loader(count), precision=precision, callbacks=[record])
    expected = average(record.seen, decay)
    torch.testing.assert_close(flat(model.averaged_generator).double(), expected, rtol=1e-5, atol=1e-6)
    assert model.sample(3).dtype == next(model.generator.parameters()).dtype == model.dtype


def test_samples_are_those_of_the_averaged_generator() -> None:
    model = gan(generator_ema=0.7)
    fit(model, loader())
    torch.manual_seed(5)
    drawn = model.sample(5)
    torch.manual_seed(5)
    noise = model.draw_noise(5)
    torch.testing.assert_close(drawn, model.averaged_generator(noise))
    assert not torch.equal(drawn, model(noise))


def test_only_the_discriminator_has_moved_before_the_generators_first_step() -> None:
    model = gan(discriminator_steps=5)
    first = flat(model.generator)
    fit(model, loader(4))
    assert torch.equal(flat(model.generator), first)
    assert torch.equal(flat(model.averaged_generator), first)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_wgan_gp_trains_in_other_precisions(precision: Any) -> None:
    """The models' tests of precision train with R1."""
    model = gan(gradient_penalty=WGANGP(1.0), beta=DualBeta(1.0))
    fit(model, loader(), precision=precision)
    assert flat(model.generator).isfinite().all()
    assert model.beta != 1e-3


# --- what is logged ---------------------------------------------------------------------------------------------------


def test_losses_rates_beta_and_accuracies_are_logged(tmp_path: Path) -> None:
    model = gan(beta=DualBeta(0.5), gradient_penalty=1.0)
    run = trainer(max_epochs=2, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    run.fit(model, loader(), loader())
    run.test(model, loader(), verbose=False)
    rows = logged(tmp_path)
    means = ["loss", "rate", "rate_real", "rate_generated", "accuracy", "accuracy_sampled"]
    for name in (*means, "real_loss", "generated_loss", "gradient_penalty", "generator_loss", "beta", "gradient_norm"):
        assert len(column(rows, f"train/{name}")) == 8, name
    assert column(rows, "train/discriminator_steps") == column(rows, "train/generator_steps") == [*range(1, 9)]
    applied = column(rows, "train/beta")
    assert applied[0] == pytest.approx(1e-3)  # logged as applied
    assert applied[1] != pytest.approx(1e-3)
    for row in rows:
        if row["train/loss"]:
            value = {name.removeprefix("train/"): float(text) for name, text in row.items() if text}
            assert value["rate"] == pytest.approx((value["rate_real"] + value["rate_generated"]) / 2, rel=1e-5)
            total = value["real_loss"] + value["generated_loss"] + value["beta"] * value["rate"]
            assert value["loss"] == pytest.approx(total + value["gradient_penalty"], rel=1e-5)
            assert 0 <= value["accuracy"] <= 1
    for stage, count in (("val", 2), ("test", 1)):
        for name in means:
            assert len(column(rows, f"{stage}/{name}")) == count, (stage, name)


class Halves(VDBGAN):
    """Known codes: the mean is the first coordinate, sigma is 2 for real and 1/2 for generated examples."""

    def encode(self, x: Tensor, sample: bool | None = None) -> Code:
        mean = x[:, :1]
        raw = torch.where(x[:, 1:] > 0, 2 * math.log(2.0), -2 * math.log(2.0))
        sampled = self.training if sample is None else sample
        noise = (torch.arange(len(x)) % 3 - 1.0)[:, None]
        return gaussian_code(torch.cat([mean, raw], 1), sampled, noise if sampled else None, lambda raw: raw)


def test_validation_metrics_are_those_of_known_codes() -> None:
    torch.manual_seed(0)
    generator = nn.Linear(4, 2)
    model = Halves(generator, MLP(2, [], 2), latent_dim=1, noise_dim=4, head=nn.Linear(1, 1), beta=0.5)
    with torch.no_grad():
        model.head.weight.fill_(1.0)
        model.head.bias.zero_()
        generator.weight.zero_()
        generator.bias.copy_(torch.tensor([9.0, 9.0]))  # validation uses the averaged generator instead
        model.averaged_generator.module.weight.zero_()
        model.averaged_generator.module.bias.copy_(torch.tensor([-0.4, -1.0]))
    real = torch.tensor([[1.5, 1.0], [-0.5, 1.0], [2.5, 1.0], [0.5, 1.0], [-3.0, 1.0], [0.1, 1.0]])
    data = batches(real, size=4)  # of four and of two
    [measured] = trainer().validate(model, data, verbose=False)

    noise = torch.tensor([-1.0, 0.0, 1.0, -1.0, -1.0, 0.0])  # by the place in each batch
    logits = {"real": real[:, 0] + 2 * noise, "generated": -0.4 + 0.5 * noise}
    rates = {
        "real": (0.5 * (real[:, 0].square() + 4 - 1) - math.log(2)).mean(),
        "generated": torch.tensor(0.5 * (0.16 + 0.25 - 1) + math.log(2)),
    }
    rate = (rates["real"] + rates["generated"]) / 2
    loss = F.softplus(-logits["real"]).mean() + F.softplus(logits["generated"]).mean() + 0.5 * rate
    expected = {
        "loss": loss,
        "rate": rate,
        "rate_real": rates["real"],
        "rate_generated": rates["generated"],
        "accuracy": ((real[:, 0] > 0).float().mean() + 1) / 2,
        "accuracy_sampled": ((logits["real"] > 0).float().mean() + (logits["generated"] <= 0).float().mean()) / 2,
    }
    assert measured == pytest.approx({f"val/{name}": value.item() for name, value in expected.items()}, rel=1e-5)
    assert len({round(value, 4) for value in measured.values()}) == 6  # all differ, so none can replace another


def test_logging_does_not_change_the_training(tmp_path: Path) -> None:
    ends = []
    for every in (1, 1000):
        torch.manual_seed(0)
        parts = {"head": nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 1)), "encoder": nn.Sequential(MLP(2, [16], 6))}
        model = gan(**parts)
        torch.manual_seed(1)
        fit(model, loader(), logger=CSVLogger(tmp_path), log_every_n_steps=every)
        ends.append(flat(model))
    torch.testing.assert_close(*ends, rtol=0, atol=0)


def test_accuracy_and_gradient_norm_are_those_of_a_known_discriminator(tmp_path: Path) -> None:
    """Real means ``3 x + 4 y > 1``; the generator makes zeros."""
    encoder, head, generator = nn.Linear(2, 2), nn.Linear(1, 1), nn.Linear(4, 2)
    with torch.no_grad():
        encoder.weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        encoder.bias.copy_(torch.tensor([-1.0, -100.0]))  # next to no noise
        for layer, weight in ((head, 2.0), (generator, 0.0)):
            layer.weight.fill_(weight)
            layer.bias.zero_()
    model = gan(encoder=encoder, head=head, generator=generator, latent_dim=1, beta=0.0)
    real = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [2.0, 0.0]])
    run = trainer(logger=CSVLogger(tmp_path), log_every_n_steps=1)
    run.fit(model, batches(real, size=4))
    [row] = [row for row in logged(tmp_path) if row["train/loss"]]
    assert float(row["train/gradient_norm"]) == pytest.approx(10.0)  # 2 * (3, 4)
    assert float(row["train/accuracy"]) == pytest.approx((3 / 4 + 1) / 2)


def test_a_prediction_holds_logits_rates_and_codes() -> None:
    model = gan()
    x = points(6)
    [prediction] = trainer().predict(model, batches(x, torch.arange(6), size=6))
    model.eval()
    torch.testing.assert_close(prediction["logit"], model.discriminate(x))
    torch.testing.assert_close(prediction["rate"], model.encode(x, sample=False).rate)
    torch.testing.assert_close(prediction["mean"], model.encode(x, sample=False).mean)
    assert prediction["label"].tolist() == [*range(6)]


# --- samples ----------------------------------------------------------------------------------------------------------


def test_interpolations_begin_and_end_at_the_samples_of_their_noise() -> None:
    model = gan()
    fit(model, loader())
    first, last = model.draw_noise(3), model.draw_noise(3)
    for mode in ("linear", "slerp", "variance_preserving"):
        path = model.interpolate(first, last, steps=5, mode=mode)
        assert path.shape == (5, 3, 2)
        torch.testing.assert_close(path[0], model.averaged_generator(first))
        torch.testing.assert_close(path[-1], model.averaged_generator(last))
    with pytest.raises(ValueError, match="steps"):
        model.interpolate(first, last, steps=1)


def test_sampling_changes_neither_modes_nor_statistics() -> None:
    model = gan(**dcgan()).train()
    before = {name: value.clone() for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    assert model.sample(3).shape == (3, 1, 8, 8)
    assert model.averaged_generator.training
    after = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    torch.testing.assert_close(before, after, rtol=0, atol=0)
    with pytest.raises(ValueError, match="n must be"):
        model.sample(0)


# --- checkpoints ------------------------------------------------------------------------------------------------------


class SeedBatches(Callback):
    """Seed the noise of each batch by its index."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(100 * trainer.current_epoch + batch_idx)


def state(model: VDBGAN, run: Trainer) -> dict[str, Any]:
    optimizers = [
        {f"{i}/{key}": value for i, values in optimizer.state_dict()["state"].items() for key, value in values.items()}
        for optimizer in run.optimizers
    ]
    tensors = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    numbers = {
        "beta": model.beta_controller.get_extra_state().tolist(),
        "steps": model.steps_taken,
        "step": run.global_step,
    }
    rates = [optimizer.param_groups[0]["lr"] for optimizer in run.optimizers]
    return {"tensors": tensors, "optimizers": optimizers, "numbers": numbers, "rates": rates}


def test_a_resumed_training_is_bit_identical(tmp_path: Path) -> None:
    def model() -> VDBGAN:
        return gan(
            beta=DualBeta(0.5),
            gradient_penalty=1.0,
            discriminator_steps=2,
            lr_scheduler=halved,
            lr_scheduler_interval="step",
        )

    straight, run = model(), trainer(max_epochs=4, callbacks=[SeedBatches()])
    run.fit(straight, loader(5))
    expected = state(straight, run)

    first = trainer(max_epochs=2, callbacks=[SeedBatches()])
    first.fit(model(), loader(5))
    first.save_checkpoint(tmp_path / "half.ckpt")
    resumed, second = model(), trainer(max_epochs=4, callbacks=[SeedBatches()])
    second.fit(resumed, loader(5), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    found = state(resumed, second)
    assert found["numbers"] == expected["numbers"]
    assert found["numbers"]["steps"] == {"discriminator": 20, "generator": 10}
    assert found["rates"] == expected["rates"]
    for part in ("tensors", "optimizers"):
        torch.testing.assert_close(found[part], expected[part], rtol=0, atol=0)


def test_a_checkpoint_loads_with_weights_only_when_its_networks_are_given_again(tmp_path: Path) -> None:
    given = {"gradient_penalty": WGANGP(3.0), "loss": "hinge", "generator_sees": "sample", "spectral_norm": True}
    model = gan(beta=DualBeta(0.5), **given)
    path = checkpoint_of(model, loader(), tmp_path)
    again = VDBGAN.load_from_checkpoint(path, weights_only=True, **networks())
    assert (again.beta, again.steps_taken) == (model.beta, model.steps_taken)
    assert (type(again.gradient_penalty), again.gradient_penalty.weight) == (WGANGP, 3.0)
    assert (again.loss, again.generator_sees) == (model.loss, "sample")
    torch.manual_seed(2)
    drawn = model.sample(4)
    torch.manual_seed(2)
    assert torch.equal(again.sample(4), drawn)
    assert torch.equal(again.eval().discriminate(points(4)), model.eval().discriminate(points(4)))
    with pytest.raises(TypeError, match="2 required positional arguments: 'generator' and 'encoder'"):
        VDBGAN.load_from_checkpoint(path, weights_only=True)


# --- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"noise_dim": 5}, "noise_dim=5, but the MLPDecoder takes noise of a width of 4"),
        ({"latent_dim": 4}, "latent_dim=4 needs an encoder that returns 8 numbers per example; got 6"),
        ({"loss": "saturating"}, "loss must be one of 'non_saturating', 'hinge', 'wasserstein'; got 'saturating'"),
        ({"generator_sees": "both"}, "generator_sees must be one of"),
        ({"generator_ema": 1.0}, r"generator_ema must be in \[0, 1\); got 1.0"),
        ({"discriminator_steps": 0}, "discriminator_steps must be a whole number, at least 1; got 0"),
        ({"accumulate_grad_batches": 0}, "accumulate_grad_batches must be"),
        ({"gradient_clip_val": -1.0}, "gradient_clip_val must be a finite number above 0; got -1"),
        ({"rate_per": "pixel"}, "rate_per must be one of 'image', 'position'"),
        ({"noise_dim": 0}, "noise_dim must be"),
        ({"gradient_penalty": -1.0}, "weight of gradient_penalty must be .* above 0; got -1"),
        ({"head": nn.Sequential(nn.Linear(3, 1), nn.Sigmoid())}, "head must return logits, which nothing bounds"),
        (
            {"generator": nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), "noise_dim": 5},
            "noise_dim=5, but the Sequential takes noise of a width of 4",
        ),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        gan(**arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"gradient_clip_val": 0.5}, "trainer.gradient_clip_val=0.5 .* set the model's gradient_clip_val=0.5"),
        ({"accumulate_grad_batches": 4}, "trainer.accumulate_grad_batches=4 .* model's accumulate_grad_batches=4"),
        ({"strategy": "ddp"}, "plain DDP .* trainer.strategy=ddp_find_unused_parameters_true"),
        ({"strategy": "ddp", "devices": 2}, "plain DDP .* trainer.strategy=ddp_find_unused_parameters_true"),
        ({"devices": 2}, "plain DDP .* trainer.strategy=ddp_find_unused_parameters_true"),
    ],
)
def test_trainer_settings_that_do_not_fit_two_optimizers_are_refused(
    arguments: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")  # so that Lightning does not start the other process itself
    with pytest.raises(ValueError, match=words):
        fit(gan(), loader(), **arguments)


def test_fsdp_is_refused() -> None:
    """Tests the check alone: Lightning builds such a trainer on GPUs only."""
    settings = {"gradient_clip_val": None, "accumulate_grad_batches": 1, "strategy": FSDPStrategy()}
    with pytest.raises(ValueError, match=r"FSDPStrategy shards one network, .*ddp_find_unused_parameters_true"):
        gan().check_trainer(SimpleNamespace(state=SimpleNamespace(fn=TrainerFn.FITTING), **settings))


class Silent(nn.Module):
    """A linear network whose widths cannot be read from it."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(*widths)])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[0](x)


FOLLOWS_NOTHING = "ReduceLROnPlateau needs lr_scheduler_interval='epoch' and a metric to follow"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"generator": Silent(5, 2)}, "the generator does not take noise of noise_dim=4"),
        ({"encoder": Silent(3, 6)}, r"the encoder does not take examples of the shape \(2,\)"),
        ({"encoder": Silent(2, 5)}, "latent_dim=3 needs an encoder that returns 6 numbers per example; got 5"),
        ({"head": Silent(4, 1)}, r"the head does not take codes of the shape \(3,\)"),
        ({"head": Silent(3, 2)}, r"head must return one logit per example; got \(2, 2\) for 2"),
        ({"lr_scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau}, FOLLOWS_NOTHING),
        ({"lr_scheduler": plateau("val/loss"), "lr_scheduler_interval": "step"}, FOLLOWS_NOTHING),
    ],
)
def test_networks_and_schedules_that_do_not_fit_are_refused_before_training(
    arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        fit(gan(**arguments), loader())


TANH = {"generator": nn.Sequential(nn.Linear(4, 2), nn.Tanh())}
OTHER_RANGE = r"values are in \(-1.0, 1.0\) and those of Digits in \(0.0, 1.0\): set .*value_range=\[-1.0, 1.0\]"


@pytest.mark.parametrize(
    ("networks", "data", "words"),
    [
        ({}, Digits(value_range=(-1, 1)), r"makes examples of the shape \(2,\), those of Digits have \(1, 8, 8\)"),
        (dcgan(), Digits(), OTHER_RANGE),
        ({}, batches(torch.randn(8, 3), size=4), r"makes examples of the shape \(2,\), those of the data have \(3,\)"),
        (
            TANH,
            batches(torch.tensor([[-1.0, 255.0]] * 8), size=4),
            r"in \[-1, 1\] and those .* in \[-1, 255\]",
        ),
        (
            {},
            batches(torch.zeros(8, 2, dtype=torch.uint8), size=4),
            "must be floats, as a generator makes them; got .*uint8",
        ),
        ({}, DataLoader([{"image": torch.zeros(2)}] * 8, batch_size=4), "with 'x'.*got a dictionary with 'image'"),
        (dcgan(), batches(torch.rand(5, 1, 8, 8) * 2 - 1, size=4), "last batch of an epoch will have one .*batch_size"),
        (dcgan(), iter([[torch.zeros(1, 1, 8, 8)]]), "this batch has one example, .*batch_size"),
    ],
)
def test_data_of_another_shape_range_or_type_are_refused(networks: dict[str, Any], data: Any, words: str) -> None:
    """A batch of one too, where a network has batch normalisation."""
    with pytest.raises(ValueError, match=words):
        fit(gan(**networks), data)


def test_data_within_the_generators_range_may_fill_a_part_of_it() -> None:
    fit(gan(**dcgan()), Digits(value_range=(-1, 1), val_size=0), limit_train_batches=1)
    fit(gan(), loader(3, size=1))  # without batch normalisation one example is a batch
    with pytest.warns(UserWarning, match="should the data have the generator's range"):
        fit(gan(**TANH), batches(torch.rand(8, 2), size=4))


def test_a_generator_may_have_an_inner_width_of_its_own() -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.latent_dim, self.layers = 32, nn.Sequential(nn.Linear(4, 32), nn.Linear(32, 2))

        def forward(self, noise: Tensor) -> Tensor:
            return self.layers(noise)

    fit(gan(generator=Inner()), loader())


def test_a_subclass_may_override_setup_without_super() -> None:
    class Own(VDBGAN):
        def setup(self, stage: str) -> None:
            pass

    fit(gan(Own), loader())


def test_the_next_fit_ignores_an_interrupted_accumulation() -> None:
    def interrupt(model: VDBGAN) -> None:
        raise RuntimeError("half a step")

    model, twin = fixed(accumulate_grad_batches=2), fixed(accumulate_grad_batches=2)
    with pytest.raises(RuntimeError, match="half"):
        fit(model, loader(), callbacks=[Record(interrupt)])
    before = fixed().state_dict()
    for one in (model, twin):
        one.load_state_dict(before)
        fit(one, loader())
    torch.testing.assert_close(flat(model.encoder), flat(twin.encoder), rtol=0, atol=0)


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_a_loss_that_is_not_finite_stops_the_training_and_keeps_the_last_good_checkpoint(
    network: str, tmp_path: Path
) -> None:
    class Breaks(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.current_epoch == 1 and batch_idx == 2:
                spoil = pl_module.generator if network == "generator" else pl_module.head
                next(spoil.parameters()).data.fill_(torch.nan)

    bad = {"generator": "generated_loss", "discriminator": "real_loss, generated_loss"}[network]
    part = {"generator": "generator", "discriminator": "head"}[network]
    words = rf"the discriminator is not finite at step 12: {bad}.* of .* The weights of {part} are not finite since"
    model = gan()
    checkpoint = ModelCheckpoint(tmp_path, filename="last")
    run = trainer(max_epochs=3, enable_checkpointing=True, callbacks=[checkpoint, Breaks()])
    with pytest.raises(FloatingPointError, match=words):
        run.fit(model, loader())
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert kept["epoch"] == 0
    assert all(value.isfinite().all() for value in kept["state_dict"].values() if isinstance(value, Tensor))


def test_an_infinite_generator_loss_is_named() -> None:
    class Infinite(VDBGAN):
        def generator_loss(self, n: int) -> Tensor:
            return self.training_loss("generator", generator_loss=torch.tensor(math.inf))

    with pytest.raises(FloatingPointError, match="the loss of the generator is not finite at step 1: generator_loss"):
        fit(gan(Infinite), loader())


def test_weights_that_are_not_finite_are_never_written_over_good_ones(tmp_path: Path) -> None:
    model = gan()
    run = fit(model, loader())
    run.save_checkpoint(tmp_path / "good.ckpt")
    next(model.generator.parameters()).data[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="weights of generator are not finite"):
        run.save_checkpoint(tmp_path / "good.ckpt")
    statistics = gan(**dcgan())
    run = trainer(limit_train_batches=1)
    run.fit(statistics, datamodule=Digits(value_range=(-1, 1), val_size=0))
    statistics.generator[2].running_mean[0] = torch.inf
    with pytest.raises(FloatingPointError, match="weights of generator are not finite"):
        run.save_checkpoint(tmp_path / "good.ckpt")
    assert torch.load(tmp_path / "good.ckpt", weights_only=True)["global_step"] == 8


# --- training --------------------------------------------------------------------------------------------------------


def test_a_gan_finds_the_modes_of_a_small_ring() -> None:
    """Of four; a slow test trains the recipe with eight."""
    torch.manual_seed(0)
    model = VDBGAN(
        MLPDecoder(4, [64, 64], [2], activation="leaky_relu"),
        MLP(2, [64, 64], 32, activation="leaky_relu"),
        latent_dim=16,
        noise_dim=4,
        beta=DualBeta(1.0),
        gradient_penalty=0.1,
        generator_ema=0.98,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=2e-3, betas=(0.5, 0.99)),
    )
    data = Ring(num_modes=4, radius=1.0, std=0.1, num_examples=6_400, val_size=0, batch_size=128)
    trainer(max_epochs=6).fit(model, datamodule=data)
    drawn = model.sample(2000)
    distance, nearest = torch.cdist(drawn, data.modes).min(1)
    good = distance < 3 * data.std
    assert good.float().mean() > 0.4  # of an untrained generator: 0
    assert nearest[good].bincount(minlength=4).min() > 0.1 * good.sum()


class Bare(LightningDataModule):
    """A datamodule without attributes of ours."""

    def train_dataloader(self) -> DataLoader:
        return loader()


def test_a_datamodule_needs_no_attributes_of_ours() -> None:
    assert fit(gan(), Bare()).global_step == 8


def test_a_resnet_with_a_spatial_code_trains() -> None:
    encoder = ResNetEncoder((1, 8, 8), 6, width=4, spatial=True)
    model = gan(encoder=encoder, generator=DCGANGenerator(4, (1, 8, 8), 4), rate_per="position", gradient_penalty=1.0)
    run = trainer(limit_train_batches=2, limit_val_batches=1)
    run.fit(model, datamodule=Digits(value_range=(-1, 1)))
    assert model.steps_taken["generator"] == 2


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"of one example or more; got a Tensor of float32 \(0, 2\)"):
        gan().training_examples(torch.zeros(0, 2))
