"""A wrong configuration ends with the exit status 2 and one message that names what is wrong, and trains nothing."""

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
from tests.cli.contradictions import CONTRADICTIONS
from tests.cli.wrong_recipes import PATHS, Wrong, distinct, missing, one_of_each_name, slips, wrong_leaves
from tests.data.original_formats import forbid_network

LEAVES, SLIPS, MISSING = map(distinct, (wrong_leaves, slips, missing))
QUICK = [*one_of_each_name(LEAVES), *SLIPS[::2], *MISSING]
OTHERS = [wrong for wrong in (*LEAVES, *SLIPS, *MISSING) if wrong not in QUICK]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in, from which no download is possible."""
    monkeypatch.chdir(tmp_path)
    forbid_network(monkeypatch)
    return tmp_path


def check(message: str, word: str) -> None:
    """One line at the end says what is wrong."""
    assert "Traceback" not in message
    said = [line for line in message.splitlines() if re.search(r"(^|: )error: ", line)]
    assert len(said) == 1
    assert word in said[0]


def refused(arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A command is refused, and leaves nothing behind that was not there."""
    before = set(Path().rglob("*"))
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    check(capsys.readouterr().err, word)
    assert set(Path().rglob("*")) == before


def config(*names: str) -> list[str]:
    return [word for name in names for word in ("--config", str(PATHS[name]))]


@pytest.mark.parametrize("wrong", [*QUICK, *(pytest.param(wrong, marks=pytest.mark.slow) for wrong in OTHERS)], ids=str)
def test_a_recipe_in_which_one_thing_is_wrong_is_refused(wrong: Wrong, capsys: pytest.CaptureFixture[str]) -> None:
    Path("wrong.yaml").write_text(yaml.safe_dump(wrong.configuration(), sort_keys=False))
    refused(["fit", *wrong.base, "--config", "wrong.yaml"], wrong.word, capsys)


@pytest.mark.parametrize(("recipes", "options", "word"), CONTRADICTIONS)
def test_settings_that_do_not_go_together_are_refused(
    recipes: str, options: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(["fit", *config(*recipes.split()), *options.split()], word, capsys)


def test_there_are_enough_of_them() -> None:
    assert len(QUICK) + len(CONTRADICTIONS) >= 200
    assert len({(wrong.key, repr(wrong.value)) for wrong in (*QUICK, *OTHERS)}) >= 800


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "given.yaml must hold keys and their values; it holds nothing"),
        (b"- trainer\n- model\n", "given.yaml must hold keys and their values; it holds a list"),
        (b"trainer", "given.yaml must hold keys and their values; it holds a str"),
        (b"trainer: {max_epochs: 1", "given.yaml is no YAML file"),
        ("trainer: {max_epochs: 1}  # für Zahlen".encode("latin-1"), "given.yaml is no YAML file"),
        (None, "given.yaml"),
        ("a folder", "given.yaml"),
    ],
)
def test_a_configuration_file_that_is_none_is_named(
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


NO_CHECKPOINTS: dict[str, Callable[[bytes], object]] = {
    "missing": lambda whole: None,
    "a folder": lambda whole: Path("given.ckpt").mkdir(),
    "empty": lambda whole: Path("given.ckpt").touch(),
    "cut short": lambda whole: Path("given.ckpt").write_bytes(whole[: len(whole) // 2]),
    "text": lambda whole: Path("given.ckpt").write_text("trainer: {max_epochs: 1}"),
    "weights alone": lambda whole: torch.save({"weights": torch.zeros(3)}, "given.ckpt"),
    "a pickled module": lambda whole: torch.save(nn.Linear(2, 2), "given.ckpt"),
}


@pytest.mark.parametrize("kind", NO_CHECKPOINTS)
@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict", "sample"])
def test_what_is_no_checkpoint_is_named(
    command: str, kind: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    NO_CHECKPOINTS[kind](checkpoint.read_bytes())
    recipe = [] if command == "sample" else config("vib_digits")
    word = "--ckpt_path: given.ckpt is no checkpoint" if kind != "a folder" else "--ckpt_path"
    refused([command, *recipe, "--ckpt_path", "given.ckpt"], word, capsys)


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_a_checkpoint_of_another_model_is_named(
    command: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--ckpt_path", str(checkpoint)]
    refused(
        [command, *config("vae_digits"), *given],
        "--ckpt_path: of another model than this VAE: it lacks decoder.",
        capsys,
    )
    price = ["--model.beta=lit_bottleneck.beta.DualBeta", "--model.beta.capacity=3"]
    refused([command, *config("vib_digits"), *price, *given], "beta_controller", capsys)


def test_a_checkpoint_of_weights_alone_does_not_go_on(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = torch.load(checkpoint, weights_only=True)
    torch.save({key: value for key, value in whole.items() if key != "optimizer_states"}, "weights.ckpt")
    with pytest.raises(SystemExit, match="2"):
        main(["fit", *config("vib_digits"), "--ckpt_path", "weights.ckpt"])
    check(capsys.readouterr().err, "--ckpt_path: weights.ckpt holds weights alone")
    assert [path.name for path in Path().rglob("*.ckpt")] == ["weights.ckpt"]


# --- other commands ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["validate", *config("vib_digits"), "--data.init_args.val_size=0"], "val_size"),
        (["test", *config("vib_digits"), "--ckpt_path=best"], "ckpt_path"),
        (["predict", *config("vib_digits"), "--model.init_args.num_classes=5"], "num_classes"),
        (["train", *config("vib_digits")], "train"),
        ([], "subcommand"),
        (["sample", "--ckpt_path", "x.ckpt", "--num=none"], "--num"),
        (["sample", "--ckpt_path", "x.ckpt", "--seed=-1"], "--seed"),
        (["sample", "--ckpt_path", "x.ckpt", "--value_range", "0", "inf"], "--value_range"),
        (["recipes", "--copy", "vib_digit"], "vib_digit"),
        (["recipes", "--copy", "vib_digits", "--to", "file"], "--to"),
        (["compare", *config("vib_digits"), "--out", "file"], "--out"),
        (["compare", *config("vib_digits"), "--grid", "model.init_args.betta=1,2"], "betta"),
        (["compare", "--config", "missing.yaml"], "missing.yaml"),
        (["resume", "."], "config.yaml"),
    ],
)
def test_other_commands_refuse_in_the_same_way(
    arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_text("which is no folder")
    refused(arguments, word, capsys)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([*config("vib_digits"), "--model.init_args.num_classes=5"], "num_classes"),
        pytest.param(
            [*config("vib_digits"), "--trainer.max_epochs=many"], "trainer.max_epochs", marks=pytest.mark.slow
        ),
        pytest.param([*config("vae_digits"), "--ckpt_path=missing.ckpt"], "ckpt_path", marks=pytest.mark.slow),
        pytest.param([*config("vib_digits"), "--data.init_args.val_size=-3"], "val_size", marks=pytest.mark.slow),
        pytest.param(config("vdbgan_digits", "trainer/ddp"), "strategy", marks=pytest.mark.slow),
    ],
)
def test_the_real_command_ends_so_too(arguments: list[str], word: str, folder: Path) -> None:
    command = [sys.executable, "-m", "lit_bottleneck", "fit", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert not done.stdout
    check(done.stderr, word)
    assert done.stderr.startswith("usage: ") or "\nusage: " in done.stderr
    assert not list(folder.iterdir())
