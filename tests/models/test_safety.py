"""Reading a checkpoint executes no code in it; recipes and stored networks are imported and called."""

import json
import pathlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule
from torch import nn

from lit_bottleneck import VAE, VDBGAN, VIBClassifier
from lit_bottleneck.cli import main
from lit_bottleneck.cli.recipes import recipe_paths
from lit_bottleneck.metrics import CodeFeatures
from lit_bottleneck.networks import MLP
from tests.quiet import trainer

RECIPES = recipe_paths()

# --- Checkpoints ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of runs of the three models, with every callback that has a state in the checkpoint."""
    folder = tmp_path_factory.mktemp("runs")
    beta = ["--model.init_args.beta=lit_bottleneck.beta.DualBeta", "--model.init_args.beta.init_args.capacity=4"]
    for name, monitor in (("vib_digits", "val/loss"), ("vae_digits", "val/elbo"), ("vdbgan_digits", "train/rate")):
        callbacks = [
            {"class_path": "EarlyStopping", "init_args": {"monitor": monitor}},
            {"class_path": "lit_bottleneck.callbacks.SkipNonFinite"},
            {"class_path": "lit_bottleneck.callbacks.ResumePoint", "init_args": {"every_n_steps": 1}},
            *([{"class_path": "lit_bottleneck.callbacks.WeightEMA"}] if name == "vib_digits" else []),
        ]
        overlay = folder / f"{name}.yaml"
        overlay.write_text(json.dumps({"trainer": {"callbacks+": callbacks}}))
        configs = [f"--config={path}" for path in (RECIPES[name], RECIPES["trainer/smoke"], overlay)]
        main(["fit", *configs, *beta, f"--trainer.logger.init_args.save_dir={folder}"])
    return folder


@pytest.mark.parametrize(
    ("name", "model"), [("vib_digits", VIBClassifier), ("vae_digits", VAE), ("vdbgan_digits", VDBGAN)]
)
def test_checkpoints_hold_tensors_and_plain_values(name: str, model: type[LightningModule], runs: Path) -> None:
    paths = list((runs / name).rglob("*.ckpt"))
    assert paths
    for path in paths:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        kept = {key.partition("{")[0] for key in checkpoint["callbacks"]} | set(checkpoint)
        states = {"ModelCheckpoint", "EarlyStopping", "SkipNonFinite", "random_states", "logger_versions", "loops"}
        assert states <= kept
        assert type(model.load_from_checkpoint(path, weights_only=True)) is model
    if model is VIBClassifier:
        assert "current_model_state" in checkpoint  # of the averaged weights


class Evil:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return pathlib.os.mkdir, (str(self.folder),)


@pytest.fixture
def evil(runs: Path, tmp_path: Path) -> Path:
    """Return a checkpoint that creates a folder ``executed`` beside it when it is unpickled."""
    [path] = runs.glob("vae_digits/**/best.ckpt")
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    torch.save({**checkpoint, "evil": Evil(tmp_path / "executed")}, tmp_path / "evil.ckpt")
    return tmp_path / "evil.ckpt"


def test_unpickling_the_evil_checkpoint_executes_it(evil: Path) -> None:
    torch.load(evil, map_location="cpu", weights_only=False)
    assert evil.with_name("executed").is_dir()


COMMANDS = {
    "fit": ["--config", str(RECIPES["vae_digits"]), "--trainer.max_epochs=1"],
    "test": ["--config", str(RECIPES["vae_digits"])],
    "predict": ["--config", str(RECIPES["vae_digits"])],
    "sample": ["--out", "samples.png"],
    "export": ["--part", "decoder", "--out", "decoder.pt2"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_refuse_a_checkpoint_of_other_objects(
    command: str, evil: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(evil.parent)
    with pytest.raises(SystemExit) as refused:
        main([command, *COMMANDS[command], "--ckpt_path", str(evil)])
    assert refused.value.code == 2
    [message] = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert "--ckpt_path" in message
    assert "evil.ckpt is no complete checkpoint of tensors and plain values" in message
    assert list(evil.parent.iterdir()) == [evil]


@pytest.mark.parametrize("load", [CodeFeatures, lambda path: VAE.load_from_checkpoint(path, weights_only=True)])
def test_loading_in_python_refuses_it_too(load: Callable[[Path], object], evil: Path) -> None:
    with pytest.raises(Exception, match=r"weights_only|tensors and plain values"):
        load(evil)
    assert list(evil.parent.iterdir()) == [evil]


def test_a_run_is_not_resumed_from_an_evil_checkpoint(
    evil: Path, runs: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    [configuration] = runs.glob("vae_digits/**/config.yaml")
    evil.with_name("config.yaml").write_text(configuration.read_text())
    evil.rename(evil.with_name("resume.ckpt"))
    with pytest.raises(SystemExit):
        main(["resume", str(evil.parent)])
    assert "holds no checkpoint that can be read" in capsys.readouterr().err
    assert sorted(path.name for path in evil.parent.iterdir()) == ["config.yaml", "resume.ckpt"]


# --- Names in recipes and checkpoints -------------------------------------------------------------------

STRANGER = """
from pathlib import Path
from torch import nn
from lit_bottleneck import VIBClassifier
from lit_bottleneck.networks import MLP

Path({folder!r}, "imported").touch()

class Model(VIBClassifier):
    pass

def network(file: str) -> nn.Module:
    Path({folder!r}, file).touch()
    return MLP(64, [256, 256], 64)

def anything(*arguments):
    Path({folder!r}, "called").touch()
"""


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], set[str]]]:
    """Provide a module ``stranger``; return a function that says which of its code has run."""
    (tmp_path / "stranger.py").write_text(STRANGER.format(folder=str(tmp_path)))
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda: {path.name for path in tmp_path.iterdir()} & {"imported", "called", "made"}
    sys.modules.pop("stranger", None)


def with_hyperparameters(runs: Path, target: Path, **changes: Any) -> Path:
    """Write a classifier's checkpoint with other hyperparameters."""
    [path] = runs.glob("vib_digits/**/best.ckpt")
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    checkpoint["hyper_parameters"] |= changes
    torch.save(checkpoint, target)
    return target


NETWORK = {"class_path": "stranger.network", "init_args": {"file": "made"}}


def test_a_recipe_imports_and_calls_what_it_names(
    tmp_path: Path, stranger: Callable[[], set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = ["--config", str(RECIPES["vib_digits"]), "--config", str(RECIPES["trainer/smoke"])]
    network = ["--model.init_args.encoder=stranger.network", "--model.init_args.encoder.init_args.file=made"]
    main(["validate", *recipe, *network])
    assert stranger() == {"imported", "made"}


def test_a_model_built_from_a_checkpoint_alone_imports_and_calls_the_networks_named_in_it(
    runs: Path, tmp_path: Path, stranger: Callable[[], set[str]]
) -> None:
    path = with_hyperparameters(runs, tmp_path / "theirs.ckpt", encoder=NETWORK)
    VIBClassifier.load_from_checkpoint(path, weights_only=True)
    assert stranger() == {"imported", "made"}


def test_a_checkpoint_cannot_call_what_is_not_of_the_arguments_type(
    runs: Path, tmp_path: Path, stranger: Callable[[], set[str]]
) -> None:
    path = with_hyperparameters(runs, tmp_path / "theirs.ckpt", encoder={"class_path": "stranger.anything"})
    with pytest.raises(Exception, match=r"stranger\.anything does not correspond to a subclass of Module"):
        VIBClassifier.load_from_checkpoint(path, weights_only=True)
    assert stranger() == {"imported"}


@pytest.mark.parametrize(
    "changes",
    [{"_instantiator": "stranger.anything"}, {"_class_path": "stranger.Model"}],
    ids=["instantiator", "class_path"],
)
def test_a_checkpoint_can_name_neither_an_instantiator_nor_another_model(
    changes: dict[str, str], runs: Path, tmp_path: Path, stranger: Callable[[], set[str]]
) -> None:
    path = with_hyperparameters(runs, tmp_path / "theirs.ckpt", **changes)
    with pytest.raises(ValueError, match=r"stranger\.\w+' (from|requested by) the checkpoint .* was blocked"):
        LightningModule.load_from_checkpoint(path, weights_only=True)
    assert stranger() == set()


def test_a_controller_named_in_a_checkpoint_is_not_imported(tmp_path: Path, stranger: Callable[[], set[str]]) -> None:
    runner, model = trainer(), VIBClassifier(MLP(6, [8], 8), latent_dim=4, num_classes=3)
    runner.strategy.connect(model)
    model.hparams["beta"] = {"class_path": "stranger.anything", "init_args": {}}
    runner.save_checkpoint(tmp_path / "theirs.ckpt")
    with pytest.raises(ValueError, match=r"'stranger\.anything', which is no imported subclass of BetaController"):
        VIBClassifier.load_from_checkpoint(tmp_path / "theirs.ckpt", weights_only=True, encoder=nn.Linear(6, 8))
    assert stranger() == set()


@pytest.mark.parametrize("command", ["fit", "test"])
def test_a_command_with_a_recipe_takes_only_numbers_from_a_checkpoint(
    command: str, runs: Path, tmp_path: Path, stranger: Callable[[], set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = with_hyperparameters(runs, tmp_path / "theirs.ckpt", encoder=NETWORK, decoder=NETWORK, scale="exp")
    beta = ["--model.init_args.beta=lit_bottleneck.beta.DualBeta", "--model.init_args.beta.init_args.capacity=4"]
    recipe = ["--config", str(RECIPES["vib_digits"]), "--config", str(RECIPES["trainer/smoke"]), *beta]
    with pytest.warns(UserWarning, match=r"encoder: stranger\.network\(.*scale: 'exp' in the checkpoint"):
        main([command, *recipe, "--ckpt_path", str(path)])
    assert stranger() == set()
