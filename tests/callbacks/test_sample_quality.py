"""SampleQuality: scores, names, precision, and the network of the features."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import seed_everything
from lightning.pytorch.plugins import DoublePrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_bottleneck.callbacks import SampleQuality
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data import Digits, Ring
from lit_bottleneck.metrics import CodeFeatures, FrechetDistance, InceptionFeatures, KernelDistance, RawFeatures
from lit_bottleneck.metrics.features import FeatureExtractor
from lit_bottleneck.metrics.mode_coverage import mode_coverage
from lit_bottleneck.metrics.sample_quality import precision_recall
from lit_bottleneck.networks import MLP
from tests.callbacks.small_models import Trainable, classifier, point_gan, vae
from tests.quiet import trainer

SCORES = ("frechet_distance", "kernel_distance", "precision", "recall")
COVERAGE = ("good", "modes", "smallest_mode", "spread_min", "spread_max")


class Line(Trainable):
    """Maps noise to points by one layer."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.lr = nn.Linear(3, 2), lr

    def sample(self, n: int) -> Tensor:
        return self.layer(torch.randn(n, 3, device=self.device))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.layer.weight.square().sum()


class Seen(FeatureExtractor):
    """Returns examples as they are, and keeps them."""

    def __init__(self, value_range: tuple[float, float] | None = None) -> None:
        super().__init__("seen", value_range)
        self.shown: list[Tensor] = []

    def features(self, x: Tensor) -> Tensor:
        self.shown.append(x.clone())
        return x


def points(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))


def loader(count: int = 24, seed: int = 1, batch_size: int = 8) -> DataLoader:
    return DataLoader(TensorDataset(points(count, seed)), batch_size=batch_size)


def ring() -> Ring:
    return Ring(batch_size=64, num_examples=1280, val_size=128, test_size=150)


@torch.no_grad()
def drawn(model: Any, sizes: Sequence[int]) -> Tensor:
    """Return what the callback draws for batches of these sizes."""
    samples = []
    for seed, size in enumerate(sizes):
        torch.manual_seed(seed)
        samples.append(model.sample(size))
    return torch.cat(samples)


def by_hand(real: Tensor, generated: Tensor, k: int = 3) -> dict[str, float]:
    values = {}
    for name, metric in (("frechet_distance", FrechetDistance(real.shape[1])), ("kernel_distance", KernelDistance())):
        metric.update(real, real=True)
        metric.update(generated, real=False)
        values[name] = metric.compute().item()
    values["precision"], values["recall"] = (value.item() for value in precision_recall(real, generated, k))
    return values


def scores(metrics: dict[str, float], stage: str, suffix: str) -> dict[str, float]:
    return {name: metrics[f"{stage}/{name}_{suffix}"] for name in SCORES}


def measured(metrics: dict[str, Any], stage: str) -> set[str]:
    """Return the names that the callback has logged."""
    return {name for name in metrics if name.startswith(tuple(f"{stage}/{score}" for score in (*SCORES, "coverage")))}


def test_as_many_samples_as_real_examples_are_compared() -> None:
    model, data = point_gan(), ring()
    [metrics] = trainer(callbacks=[SampleQuality(RawFeatures(), num_samples=100)]).test(model, data, verbose=False)
    real, generated = data.dataset("test").__getitems__(range(100))[0], drawn(model, [64, 36])
    assert scores(metrics, "test", "raw_100") == pytest.approx(by_hand(real, generated), rel=1e-5)
    coverage = {name: metrics[f"test/coverage_{name}"] for name in COVERAGE}
    expected = {name: value.item() for name, value in mode_coverage(generated, data.modes, data.std).items()}
    assert coverage == pytest.approx(expected, rel=1e-5)
    assert len(measured(metrics, "test")) == len(SCORES) + len(COVERAGE)


def test_a_whole_split_with_another_number_of_neighbours() -> None:
    model, data = point_gan(), ring()
    callback = SampleQuality(RawFeatures(), neighbours=5)
    [metrics] = trainer(callbacks=[callback]).validate(model, data, verbose=False)
    real, generated = data.dataset("val").__getitems__(range(128))[0], drawn(model, [64, 64])
    assert scores(metrics, "val", "raw_128") == pytest.approx(by_hand(real, generated, k=5), rel=1e-5)


def test_coverage_of_two_of_eight_modes() -> None:
    class Two(nn.Module):
        def forward(self, noise: Tensor) -> Tensor:
            return torch.stack([2 * noise[:, 0].sign(), torch.zeros(len(noise))], 1)

    [metrics] = trainer(callbacks=[SampleQuality(RawFeatures())]).test(point_gan(Two()), ring(), verbose=False)
    assert metrics["test/coverage_good"] == 1
    assert metrics["test/coverage_modes"] == 2
    assert metrics["test/coverage_smallest_mode"] == 0
    assert metrics["test/coverage_spread_max"] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("flat", [False, True])
def test_a_vae_is_compared_by_features_of_a_classifier_even_if_its_decoder_is_flat(flat: bool) -> None:
    model, data = vae(MLP(4, [16], 64) if flat else None), Digits(batch_size=100)
    features = CodeFeatures.of(classifier())
    [metrics] = trainer(callbacks=[SampleQuality(features)]).test(model, data, verbose=False)
    real = data.dataset("test").__getitems__(range(359))[0]
    generated = drawn(model, [100, 100, 100, 59]).reshape(real.shape)
    expected = by_hand(features(real), features(generated))
    assert features.name.startswith("vibclassifier-")
    assert scores(metrics, "test", f"{features.name}_359") == pytest.approx(expected, rel=1e-4)
    assert len(measured(metrics, "test")) == len(SCORES)  # digits have no modes


def test_pixels_are_mapped_to_the_range_of_the_features() -> None:
    features, model = Seen((0.0, 1.0)), vae()
    data = Digits(batch_size=100, value_range=(-1.0, 1.0))
    trainer(callbacks=[SampleQuality(features, num_samples=50)]).test(model, data, verbose=False)
    _, real, generated = features.shown  # the first are of the dry run
    assert torch.equal(real, Digits().dataset("test").__getitems__(range(50))[0])
    torch.testing.assert_close(generated, (drawn(model, [50]) + 1) / 2)


@pytest.mark.parametrize("value_range", [None, (-1.0, 1.0)])
def test_pixels_are_not_mapped_if_the_ranges_agree_or_the_features_have_none(value_range: Any) -> None:
    features, data = Seen(value_range), Digits(batch_size=100, value_range=(-1.0, 1.0))
    trainer(callbacks=[SampleQuality(features, num_samples=50)]).test(vae(), data, verbose=False)
    assert torch.equal(features.shown[1], data.dataset("test").__getitems__(range(50))[0])


def test_without_a_datamodule_the_range_is_that_of_the_generator() -> None:
    model, features = point_gan(nn.Sequential(nn.Linear(4, 2), nn.Tanh())), Seen((0.0, 255.0))
    callback = SampleQuality(features)
    [metrics] = trainer(callbacks=[callback]).test(model, DataLoader(points(8).tanh(), batch_size=8), verbose=False)
    torch.testing.assert_close(features.shown[0], (points(8).tanh() + 1) * 127.5)
    torch.testing.assert_close(features.shown[1], (drawn(model, [8]) + 1) * 127.5)
    assert len(measured(metrics, "test")) == len(SCORES)


@pytest.mark.parametrize(
    ("precision", "context", "dtype"),
    [
        ("32-true", nullcontext, torch.float32),
        ("bf16-mixed", lambda: torch.autocast("cpu", torch.bfloat16), torch.float32),
        ("64-true", DoublePrecision().forward_context, torch.float64),
    ],
)
def test_samples_are_drawn_in_the_trainers_precision_and_compared_in_float32(
    precision: Any, context: Any, dtype: torch.dtype
) -> None:
    model, features = Line(), Seen()
    runner = trainer(precision=precision, callbacks=[SampleQuality(features)])
    [metrics] = runner.validate(model, loader(), verbose=False)
    with context():
        generated = drawn(model.to(dtype), [8, 8, 8])
    assert all(shown.dtype == torch.float32 for shown in features.shown)
    assert torch.equal(torch.cat(features.shown[1::2]), generated.float())
    assert scores(metrics, "val", "seen_24") == pytest.approx(by_hand(points(24), generated.float()), rel=1e-4)


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true", "bf16-true"])
@pytest.mark.parametrize(("model", "data"), [(point_gan, ring), (vae, Digits)])
def test_it_runs_in_every_precision(model: Any, data: Any, precision: Any) -> None:
    runner = trainer(precision=precision, limit_test_batches=1, callbacks=[SampleQuality(RawFeatures())])
    [metrics] = runner.test(model(), data(), verbose=False)
    assert len(scores(metrics, "test", "raw_64")) == len(SCORES)


def test_the_features_are_not_in_the_checkpoint(tmp_path: Path) -> None:
    model, runner = vae(), trainer(callbacks=[SampleQuality(CodeFeatures.of(classifier()))], limit_train_batches=2)
    runner.fit(model, datamodule=Digits())
    assert measured(runner.callback_metrics, "val")
    assert set(model.state_dict()) == set(vae().state_dict())
    assert len(list(model.modules())) == len(list(vae().modules()))
    runner.save_checkpoint(tmp_path / "it.ckpt")
    checkpoint = torch.load(tmp_path / "it.ckpt", weights_only=True)
    assert set(checkpoint["state_dict"]) == set(vae().state_dict())
    assert not checkpoint["callbacks"]


def test_samples_come_from_the_same_noise_in_every_epoch() -> None:
    features = Seen()
    run = trainer(max_epochs=2, callbacks=[SampleQuality(features, every_n_epochs=1)])
    run.fit(Line(lr=0.0), loader(), loader())
    shown = torch.cat(features.shown)
    assert torch.equal(shown[:48], shown[48:])


def test_without_validation_samples_are_compared_with_training_examples() -> None:
    class NoValidation(Line):
        validation_step = None

    model = NoValidation()
    run = trainer(max_epochs=1, callbacks=[SampleQuality(RawFeatures(), num_samples=20, every_n_epochs=1)])
    run.fit(model, loader())
    expected = by_hand(points(24)[:20], drawn(model, [8, 8, 4]))
    assert scores(run.callback_metrics, "train", "raw_20") == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("limit", "count"), [({"limit_val_batches": 2}, 16), ({"fast_dev_run": True}, 8), ({"limit_val_batches": 0}, None)]
)
def test_the_trainers_limits_apply_to_the_samples(limit: dict[str, Any], count: int | None) -> None:
    runner = trainer(callbacks=[SampleQuality(RawFeatures())], **limit)
    runner.fit(Line(), loader(), loader())
    names = set() if count is None else {f"val/{name}_raw_{count}" for name in SCORES}
    assert measured(runner.callback_metrics, "val") == names


def test_too_few_examples_are_a_warning() -> None:
    runner = trainer(callbacks=[SampleQuality(RawFeatures(), every_n_epochs=1)], max_epochs=2)
    with pytest.warns(UserWarning, match=r"more real examples than neighbours=3; got 3: nothing logged"):
        runner.fit(Line(), loader(), loader(3))
    assert runner.current_epoch == 2
    assert not measured(runner.callback_metrics, "val")


def test_a_module_without_sample_is_refused_before_training() -> None:
    runner, model = trainer(callbacks=[SampleQuality(RawFeatures(), every_n_epochs=5)]), classifier()
    for refused in (runner.fit, runner.validate, runner.test):
        with pytest.raises(ConfigurationError, match=r"needs a module with sample\(n\); VIBClassifier has none"):
            refused(model, datamodule=Digits())
    assert runner.global_step == 0
    runner.predict(model, datamodule=Digits())


def test_inception_features_are_the_default_and_built_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only if validation is measured, and not at construction."""

    def unreachable(*_: Any) -> Any:
        raise OSError("no network here")

    monkeypatch.setattr("lit_bottleneck.metrics.features.NoTrainInceptionV3", unreachable)
    default = SampleQuality()
    assert isinstance(default.features, InceptionFeatures)
    assert default.features.name == "inception-v3-compat-2048"
    assert default.features.network is None

    runner, digits = trainer(callbacks=[default], limit_train_batches=1), Digits()
    with pytest.raises(ConfigurationError, match=r"no network here.*CodeFeatures"):
        runner.fit(vae(), digits)
    assert runner.global_step == 0
    runner = trainer(callbacks=[SampleQuality(every_n_epochs=0)], limit_train_batches=1)
    runner.fit(vae(), digits)
    assert runner.global_step == 1
    with pytest.raises(ConfigurationError, match="no network here"):
        runner.test(vae(), digits, verbose=False)


def test_building_inception_does_not_change_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    class Network(nn.Sequential):
        def __init__(self, *_: Any) -> None:
            super().__init__(nn.Flatten(), nn.Linear(192, 4))  # draws initial weights

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.float())

    monkeypatch.setattr("lit_bottleneck.metrics.features.NoTrainInceptionV3", Network)
    weights = []
    for callbacks in ([], [SampleQuality()]):
        seed_everything(1, verbose=False)
        model, runner = vae(), trainer(callbacks=callbacks, limit_train_batches=2)
        torch.manual_seed(2)
        runner.fit(model, datamodule=Digits())
        weights.append(torch.cat([weight.detach().flatten() for weight in model.parameters()]))
    assert torch.equal(*weights)
    assert f"val/frechet_distance_inception-v3-compat-2048_{len(Digits().dataset('val'))}" in runner.callback_metrics
