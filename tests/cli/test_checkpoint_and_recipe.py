"""A checkpoint used with another recipe than its own, and what a command line finds where it is called."""

import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import LightningModule
from torch import nn

from lit_bottleneck.bottleneck import GaussianBottleneck
from lit_bottleneck.cli import BottleneckCLI, main
from lit_bottleneck.cli.recipes import recipe_paths
from lit_bottleneck.data import Digits

PATHS = recipe_paths()
DIGITS = ["--config", str(PATHS["vib_digits"]), "--config", str(PATHS["trainer/smoke"])]
DUAL = ["--model.beta=lit_bottleneck.beta.DualBeta", "--model.beta.capacity=3"]
OLD = Path(__file__).parents[1] / "before_the_move"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Train a recipe with options, once, and return its checkpoint."""
    found: dict[tuple[str, ...], Path] = {}

    def train(*options: str) -> Path:
        if options not in found:
            folder = tmp_path_factory.mktemp("trained")
            main(["fit", *DIGITS, *options, f"--trainer.logger.init_args.save_dir={folder}"])
            [found[options]] = folder.rglob("best.ckpt")
        return found[options]

    return train


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def with_checkpoint(command: str, path: Path, *options: str) -> list[str]:
    return [command, *DIGITS, *options, "--ckpt_path", str(path)]


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_every_argument_that_differs_is_named(command: str, trained: Callable[..., Path]) -> None:
    options = ["--model.scale=softplus", "--model.deterministic=true", "--model.encoder.activation=leaky_relu"]
    with pytest.warns(UserWarning, match="trained with other arguments") as caught:
        main(with_checkpoint(command, trained(), *options, "--trainer.max_epochs=2"))
    named = {str(one.message).partition("hold: ")[2] for one in caught if "other arguments" in str(one.message)}
    assert named == {
        "deterministic: False in the checkpoint, True here; "
        "encoder.init_args.activation: 'relu' in the checkpoint, 'leaky_relu' here; "
        "scale: 'bounded' in the checkpoint, 'softplus' here"
    }


def test_settings_of_the_optimizer_matter_to_training_alone(trained: Callable[..., Path]) -> None:
    for command in ("validate", "test", "predict"):
        main(with_checkpoint(command, trained(), "--model.optimizer.lr=0.5"))
    with pytest.warns(UserWarning, match=r"checkpoint: optimizer\.init_args\.lr: 0\.001 in the checkpoint, 0\.5 here"):
        cli = BottleneckCLI(with_checkpoint("fit", trained(), "--model.optimizer.lr=0.5", "--trainer.max_epochs=2"))
    assert cli.trainer.optimizers[0].param_groups[0]["lr"] == 0.001


def test_a_checkpoint_of_one_beta_is_used_with_another(trained: Callable[..., Path]) -> None:
    for command in ("test", "predict"):
        with pytest.warns(UserWarning, match="DualBeta in log space starts afresh: the checkpoint holds none"):
            main(with_checkpoint(command, trained(), *DUAL))
        with pytest.warns(UserWarning, match=r"a ConstantBeta has not: beta_controller\._extra_state, of DualBeta"):
            main(with_checkpoint(command, trained(*DUAL)))
    which = r"beta: 0\.001 in the checkpoint, lit_bottleneck\.beta\.DualBeta\(capacity=3\.0"
    with pytest.warns(UserWarning, match=which), pytest.warns(UserWarning, match="DualBeta in log space starts afresh"):
        cli = BottleneckCLI(with_checkpoint("fit", trained(), *DUAL, "--trainer.max_epochs=2"))
    steps = cli.trainer.global_step - torch.load(trained(), weights_only=True)["global_step"]
    assert 0.001 * 0.97**steps * 0.999 < cli.model.beta < 0.001 * 1.03**steps * 1.001  # at most 3 % a step, from 0.001
    assert cli.model.beta != 0.001


@pytest.mark.parametrize(
    "beta",
    [
        ["--model.beta=0.5"],
        ["--model.beta=lit_bottleneck.beta.ScheduledBeta", "--model.beta.beta=1", "--model.beta.warmup_steps=5"],
    ],
)
def test_a_checkpoint_from_before_is_used_with_another_beta(beta: list[str]) -> None:
    path = str(OLD / "vib_cli.ckpt")
    has_none = beta == ["--model.beta=0.5"]
    words = "a ConstantBeta has not: .*, of DualBeta" if has_none else "ScheduledBeta starts afresh: .* DualBeta"
    with pytest.warns(UserWarning, match=words):
        main(["test", "--config", str(OLD / "vib_cli.yaml"), *beta, "--ckpt_path", path])


class Regressor(GaussianBottleneck, LightningModule):
    """A user's own module, which stores its arguments as Lightning has it."""

    def __init__(self, scale: str = "bounded", width: int = 2) -> None:
        super().__init__(beta=0.1, scale=scale)  # type: ignore[arg-type]
        self.save_hyperparameters()
        self.encoder = nn.Linear(64, 2 * width)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.rate_penalty(self.bottleneck(self.encoder(batch[0].flatten(1))).rate)

    def test_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.log("test/rate", self.bottleneck(self.encoder(batch[0].flatten(1))).rate.mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_arguments_of_a_users_own_module_are_named_too(folder: Path) -> None:
    mine = [f"--model={__name__}.Regressor", "--data=Digits", "--trainer.max_epochs=1"]
    main(["fit", *mine])
    [path] = folder.rglob("*.ckpt")
    with pytest.warns(UserWarning, match="hold: scale: 'bounded' in the checkpoint, 'exp' here$"):
        main(["test", *mine, "--model.scale=exp", "--ckpt_path", str(path)])


# --- which examples to predict ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_predict_takes_the_part_that_is_asked_for(part: str, folder: Path, trained: Callable[..., Path]) -> None:
    whole = "--trainer.limit_predict_batches=1.0"
    main(with_checkpoint("predict", trained(), f"--data.init_args.predict_part={part}", whole))
    [file] = folder.rglob("predictions.npz")
    labels = Digits().dataset(part).examples  # type: ignore[arg-type]
    with np.load(file) as arrays:
        assert np.array_equal(arrays["label"], labels.labels[labels.rows].numpy())
        assert np.array_equal(arrays["index"], np.arange(len(labels)))


# --- where it is called -----------------------------------------------------------------------------------------------


def test_classes_of_the_working_folder_are_found_and_shadow_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own_networks.py").write_text("from lit_bottleneck.networks import MLP\nclass Own(MLP): pass\n")
    Path("yaml.py").write_text("raise SystemExit('the wrong yaml')\n")
    arguments = ["fit", *DIGITS, "--model.init_args.encoder=own_networks.Own", "--print_config"]
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])  # as the console script has it
    monkeypatch.setattr(sys, "argv", ["lit-bottleneck", *arguments])
    monkeypatch.setattr("lit_bottleneck.training.denormals.flush_denormals", bool)  # for the tests that follow
    with pytest.raises(SystemExit, match="0"):
        main()
    assert "class_path: own_networks.Own" in capsys.readouterr().out
    assert sys.path[-1] == str(folder)
    found = PathFinder.find_spec("yaml", sys.path)
    assert found is not None
    assert not Path(str(found.origin)).is_relative_to(folder)
