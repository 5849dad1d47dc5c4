"""A wrong configuration ends with exit status 2 and one line that names what is wrong, and leaves no file behind."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from lit_bottleneck.cli import main
from tests.cli.wrong_recipes import PATHS, Wrong, distinct, missing, slips, wrong_leaves
from tests.cli.wrong_settings import FURTHER, LATER, WHILE_BUILT, WHILE_PARSED
from tests.data.original_formats import forbid_network

slow = pytest.mark.slow


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in, from which no download is possible."""
    monkeypatch.chdir(tmp_path)
    forbid_network(monkeypatch)
    return tmp_path


def check(message: str, words: str) -> None:
    assert "Traceback (most recent" not in message
    said, *more = [line for line in message.splitlines() if re.search(r"(^|: )error: ", line)]
    assert words in said
    assert all(line.endswith("see above") for line in more)  # of compare, which asks fit


def refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(Path().rglob("*"))
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    check(capsys.readouterr().err, words)
    assert set(Path().rglob("*")) == before


def config(*names: str) -> list[str]:
    return [word for name in names for word in ("--config", str(PATHS[name]))]


@pytest.mark.parametrize(
    ("recipes", "options", "words"),
    [*WHILE_PARSED, *WHILE_BUILT, *LATER, *(pytest.param(*case, marks=slow) for case in FURTHER)],
)
def test_wrong_settings_are_refused(recipes: str, options: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(["fit", *config(*recipes.split()), *options.split()], words, capsys)


@slow
@pytest.mark.parametrize("wrong", [*distinct(wrong_leaves), *distinct(slips), *distinct(missing)], ids=str)
def test_every_recipe_in_which_one_thing_is_wrong_is_refused(wrong: Wrong, capsys: pytest.CaptureFixture[str]) -> None:
    Path("wrong.yaml").write_text(yaml.safe_dump(wrong.configuration(), sort_keys=False))
    refused(["fit", *wrong.base, "--config", "wrong.yaml"], wrong.word, capsys)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "given.yaml must hold keys and their values; it holds nothing"),
        (b"- trainer\n- model\n", "given.yaml must hold keys and their values; it holds a list"),
        (b"trainer: {max_epochs: 1", "given.yaml is no YAML file"),
        ("trainer: {max_epochs: 1}  # für Zahlen".encode("latin-1"), "given.yaml is no YAML file"),
        (b"modle: {}", "given.yaml has the key modle, which is not known"),
        (b"trainer: {modle: {init_args: {}}}", "given.yaml has the key trainer.modle.init_args, which is not known"),
        (b"model: {init_args: {encodr: {}}}", "given.yaml has the key model.init_args.encodr, which is not known"),
        (None, "given.yaml"),
        ("a folder", "given.yaml"),
    ],
)
def test_an_invalid_configuration_file_is_named(
    content: bytes | str | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if isinstance(content, bytes):
        Path("given.yaml").write_bytes(content)
    elif content:
        Path("given.yaml").mkdir()
    refused(["fit", *config("vib_digits"), "--config", "given.yaml"], words, capsys)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    main(["fit", *config("vib_digits", "trainer/smoke"), "--trainer.logger.init_args.save_dir", str(folder)])
    [path] = folder.rglob("best.ckpt")
    return path


INVALID: dict[str, Callable[[bytes], object]] = {
    "missing": lambda whole: None,
    "a folder": lambda whole: Path("given.ckpt").mkdir(),
    "empty": lambda whole: Path("given.ckpt").touch(),
    "cut short": lambda whole: Path("given.ckpt").write_bytes(whole[: len(whole) // 2]),
    "text": lambda whole: Path("given.ckpt").write_text("trainer: {max_epochs: 1}"),
    "weights alone": lambda whole: torch.save({"weights": torch.zeros(3)}, "given.ckpt"),
    "a pickled module": lambda whole: torch.save(nn.Linear(2, 2), "given.ckpt"),
}


@pytest.mark.parametrize(
    ("command", "kind"),
    [("fit", kind) for kind in INVALID] + [(command, "cut short") for command in ("validate", "predict", "sample")],
)
def test_an_invalid_checkpoint_is_named(
    command: str, kind: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    INVALID[kind](checkpoint.read_bytes())
    recipe = [] if command == "sample" else config("vib_digits")
    refused([command, *recipe, "--ckpt_path", "given.ckpt"], "--ckpt_path: given.ckpt is no ", capsys)


@pytest.mark.parametrize(
    ("command", "recipe", "options", "words"),
    [
        ("test", "vae_digits", "", "--ckpt_path: of another model than this VAE: it lacks decoder."),
        (
            "fit",
            "vib_digits",
            "--model.latent_dim=8 --model.encoder.out_features=16",
            "is of the shape (64, 256), not (16, 256)",
        ),
        ("fit", "vib_digits", "--model.optimizer=torch.optim.SGD", "optimizer=SGD cannot go on from this checkpoint"),
    ],
)
@pytest.mark.filterwarnings("ignore:the checkpoint was trained with other arguments")
def test_a_checkpoint_of_another_model_is_refused(
    command: str, recipe: str, options: str, words: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused([command, *config(recipe), *options.split(), "--ckpt_path", str(checkpoint)], words, capsys)


def test_training_does_not_go_on_from_weights_alone(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = torch.load(checkpoint, weights_only=True)
    torch.save({key: value for key, value in whole.items() if key != "optimizer_states"}, "weights.ckpt")
    words = "--ckpt_path: weights.ckpt holds weights alone"
    refused(["fit", *config("vib_digits"), "--ckpt_path", "weights.ckpt"], words, capsys)


# --- other commands ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["validate", *config("vib_digits"), "--data.init_args.val_size=0"], "val_size"),
        (["validate", *config("vail_pendulum")], "Rollouts has nothing to validate on (lit-bottleneck test)"),
        (["test", *config("vib_digits"), "--ckpt_path=best"], "ckpt_path"),
        (["predict", *config("vib_digits"), "--model.init_args.num_classes=5"], "num_classes"),
        (["train", *config("vib_digits")], "train"),
        ([], "COMMAND"),
        (["sample", "--ckpt_path", "x.ckpt", "--num=none"], "--num"),
        (["sample", "--ckpt_path", "x.ckpt", "--seed=-1"], "--seed"),
        (["sample", "--ckpt_path", "x.ckpt", "--value_range", "0", "inf"], "--value_range"),
        (["recipes", "--copy", "vib_digit"], "vib_digit"),
        (["recipes", "--copy", "vib_digits", "--to", "file"], "--to"),
        (["compare", *config("vib_digits"), "--out", "file"], "--out"),
        (["compare", *config("vib_digits"), "--grid", "model.init_args.betta=1,2"], "betta"),
        (["resume", "."], "config.yaml"),
    ],
)
def test_other_commands_refuse_in_the_same_way(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_text("this is no folder")
    refused(arguments, words, capsys)


@slow
def test_a_process_of_its_own_ends_so_too(folder: Path) -> None:
    command = [sys.executable, "-m", "lit_bottleneck", "fit", *config("vib_digits"), "--model.num_classes=5"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert not done.stdout
    check(done.stderr, "num_classes")
    assert done.stderr.startswith("usage: ") or "\nusage: " in done.stderr
    assert not list(folder.iterdir())
