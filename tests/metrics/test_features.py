"""Feature extractors: frozen, named after their weights, and loaded from checkpoints of the command line."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from lightning import LightningModule
from torch import nn

from lit_bottleneck import VIBClassifier
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli import main
from lit_bottleneck.cli.recipes import recipe_paths
from lit_bottleneck.metrics import CodeFeatures, FeatureExtractor, InceptionFeatures, RawFeatures
from lit_bottleneck.networks import MLP
from tests.quiet import trainer


def classifier(seed: int = 0) -> VIBClassifier:
    torch.manual_seed(seed)
    encoder = nn.Sequential(MLP(64, [16], 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 6))
    return VIBClassifier(encoder, latent_dim=3, num_classes=10)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    recipe = ["--config", str(recipe_paths()["vib_digits"]), "--config", str(recipe_paths()["trainer/smoke"])]
    main(["fit", *recipe, "--trainer.logger.init_args.save_dir", str(folder)])
    [path] = folder.rglob("best.ckpt")
    return path


def test_raw_features_are_the_data() -> None:
    x = torch.rand(5, 3, 4, 4)
    assert torch.equal(RawFeatures()(x), x.flatten(1))
    assert RawFeatures()(x.to(torch.uint8)).dtype == torch.float32
    assert RawFeatures().value_range is None


def test_a_model_in_memory_is_copied_and_frozen() -> None:
    model = classifier().train()
    features = CodeFeatures.of(model, value_range=(-1, 1), name="digits")
    assert features.name.startswith("digits-")
    assert features.value_range == (-1.0, 1.0)
    features.train().requires_grad_(True)
    assert not any(part.training for part in features.modules())
    assert not any(parameter.requires_grad for parameter in features.parameters())
    assert all(part.training for part in model.encoder.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    x = torch.rand(7, 1, 8, 8, requires_grad=True)
    with torch.enable_grad():
        first, second = features(x), features(x)
    assert not first.requires_grad
    assert torch.equal(first, second)  # no dropout, and no running statistics that move
    assert torch.equal(first, model.eval().encode(x, sample=False).mean)
    with torch.no_grad():
        model.encoder[3].weight.zero_()
    assert torch.equal(features(x), first)


def test_a_part_set_by_a_subclass_is_frozen_too() -> None:
    class Mine(FeatureExtractor):
        def __init__(self) -> None:
            super().__init__("mine")
            self.network = nn.Sequential(nn.Linear(4, 2), nn.Dropout())
            self.scale = nn.Parameter(torch.ones(2))

        def features(self, x: torch.Tensor) -> torch.Tensor:
            return self.network(x) * self.scale

    features = Mine()
    assert not any(parameter.requires_grad for parameter in features.parameters())
    assert not any(part.training for part in features.modules())


def test_neither_a_cast_nor_autocast_changes_features() -> None:
    features, x = CodeFeatures.of(classifier()), torch.rand(7, 1, 8, 8)
    exact, name = features(x), CodeFeatures.of(classifier()).name
    features.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(features(x), exact)
    assert CodeFeatures.of(features.model).name == name


def test_the_name_is_that_of_the_weights() -> None:
    model = classifier()
    name = CodeFeatures.of(model).name
    assert name.startswith("vibclassifier-")
    assert len(name) == len("vibclassifier-") + 8
    assert CodeFeatures.of(classifier()).name == name
    assert CodeFeatures.of(classifier(seed=1)).name != name
    with torch.no_grad():
        model.decoder.bias[0] += 1e-6
    assert CodeFeatures.of(model).name != name


@pytest.mark.parametrize(("name", "value_range"), [("a b", None), ("a/b", None), ("", None), ("a", (1.0, 0.0))])
def test_bad_names_and_ranges_are_refused(name: str, value_range: tuple[float, float] | None) -> None:
    class Mine(FeatureExtractor):
        def features(self, x: torch.Tensor) -> torch.Tensor:
            return x

    with pytest.raises(ValueError, match="value_range" if value_range else "name"):
        Mine(name, value_range)


def test_a_checkpoint_of_the_command_line_needs_nothing_else(checkpoint: Path) -> None:
    features = CodeFeatures(str(checkpoint))
    model = VIBClassifier.load_from_checkpoint(checkpoint, weights_only=True).eval()
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(features(x), model.encode(x, sample=False).mean)
    assert features(x).shape == (5, model.latent_dim)
    assert features.name == CodeFeatures.of(model).name == CodeFeatures(checkpoint).name
    assert features.value_range == (0.0, 1.0)


def test_the_error_of_a_missing_checkpoint_says_how_to_train_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.ckpt.*lit-bottleneck fit --config recipes/vib_mnist\.yaml"):
        CodeFeatures(tmp_path / "nowhere.ckpt")


def test_the_error_of_a_checkpoint_of_another_script_names_the_way_out(tmp_path: Path) -> None:
    runner = trainer()
    runner.strategy.connect(classifier())
    runner.save_checkpoint(tmp_path / "mine.ckpt")
    with pytest.raises(ValueError, match=r"mine\.ckpt does not say how its model is built.*CodeFeatures\.of"):
        CodeFeatures(tmp_path / "mine.ckpt")


def test_a_model_without_encode_is_refused() -> None:
    with pytest.raises(ValueError, match="LightningModule has no encode"):
        CodeFeatures.of(LightningModule())


# --- Inception without its weights ------------------------------------------------------------------------------------


class Levels(nn.Module):
    """Replaces the network; returns its input."""

    def __init__(self, name: str, features_list: list[str]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_inception_reads_256_levels_of_three_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_bottleneck.metrics.features.NoTrainInceptionV3", Levels)
    features = InceptionFeatures()
    assert (features.name, features.value_range) == ("inception-v3-compat-2048", (0.0, 1.0))
    levels = torch.arange(256.0).reshape(1, 1, 16, 16)
    seen = features(levels / 255)
    assert torch.equal(seen, levels.flatten(1).repeat(1, 3))  # every level comes back
    assert torch.equal(features(torch.tensor([-0.1, 1.1]).reshape(1, 1, 1, 2)), torch.tensor([[0.0, 255.0] * 3]))
    assert not any(parameter.requires_grad for parameter in features.parameters())
    with pytest.raises(ValueError, match=r"\(2, 4, 8, 8\)"):
        features(torch.zeros(2, 4, 8, 8))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("torch_fidelity"), r'pip install "lit_bottleneck\[inception\]".*CodeFeatures'),
        (URLError("no route to host"), r"could not be downloaded .*no route to host.*CodeFeatures"),
    ],
)
def test_missing_parts_of_inception_are_named(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise error

    monkeypatch.setattr("lit_bottleneck.metrics.features.NoTrainInceptionV3", missing)
    features = InceptionFeatures()  # does not build the network
    with pytest.raises(ConfigurationError, match=message):
        features(torch.zeros(2, 1, 8, 8))


def test_inception_has_four_layers() -> None:
    assert InceptionFeatures(64).name == "inception-v3-compat-64"
    with pytest.raises(ValueError, match="64, 192, 768 or 2048; got 100"):
        InceptionFeatures(100)
