"""Damaged, hostile and foreign checkpoints are refused in one line with their path, and nothing of them is called."""

import resource
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli import main
from lit_bottleneck.cli.recipes import recipe_paths
from lit_bottleneck.training.checkpoints import WholeCheckpointIO, load_model, read_checkpoint
from tests.cli.commands import refusal, trained
from tests.training.damaged_checkpoints import OF_ANOTHER_MODEL, OF_NO_TRAINING, SIGN, UNREADABLE, all_kinds

RECIPE = "vae_digits"
SETTINGS = [f"--config={recipe_paths()[name]}" for name in (RECIPE, "trainer/smoke")]
ALL = {**UNREADABLE, **OF_ANOTHER_MODEL, **OF_NO_TRAINING}
QUICK = ("a flipped bit of a weight", "integer weights", "a counter below 0", "a state that is a number")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(RECIPE, tmp_path_factory.mktemp("good"))


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path(SIGN).exists()


def test_a_good_checkpoint_is_read(good: Path) -> None:
    assert read_checkpoint(good)["global_step"] > 0
    assert WholeCheckpointIO().load_checkpoint(good, weights_only=True).keys() == read_checkpoint(good).keys()
    load_model(good)


@pytest.mark.filterwarnings("ignore::UserWarning:torch")  # of what they hold
@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_is_no_checkpoint_is_refused_by_every_reader(kind: str, good: Path) -> None:
    damage, words = UNREADABLE[kind]
    path = Path("one.ckpt").absolute()
    damage(good, path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    of_a_trainer = partial(WholeCheckpointIO().load_checkpoint, weights_only=True)
    for read in (read_checkpoint, load_model, of_a_trainer):
        with pytest.raises(ConfigurationError) as refused:
            read(path)
        message = str(refused.value)
        assert message.startswith(f"{path} is no ")
        assert words in message
        assert len(message.splitlines()) == 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert grown < 2**19


@pytest.mark.parametrize("kind", OF_ANOTHER_MODEL)
def test_weights_of_another_kind_are_not_loaded(kind: str, good: Path) -> None:
    damage, words = OF_ANOTHER_MODEL[kind]
    path = Path("one.ckpt").absolute()
    damage(good, path)
    with pytest.raises(ConfigurationError, match=f"{path}") as refused:
        load_model(path)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in all_kinds(ALL)]
)
def test_the_commands_refuse_them_in_one_line(kind: str, good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage, words = ALL[kind]
    path = Path("one.ckpt").absolute()
    damage(good, path)
    commands = {"fit": [*SETTINGS, "--trainer.logger=false", "--trainer.max_epochs=2"]}
    if kind not in OF_NO_TRAINING and kind not in QUICK:
        commands |= {"test": [*SETTINGS, "--trainer.logger=false"], "sample": ["--num=1"]}
        commands["export"] = ["--part=code", "--dims", "1", "8", "8", "--out=one.onnx"]
    for command, arguments in commands.items():
        message = refusal([command, *arguments, f"--ckpt_path={path}"], capsys)
        assert "--ckpt_path: " in message
        assert words in message
    others = [file.name for file in Path().iterdir() if file.suffix != ".ckpt" and file.name != ".owner.json"]
    assert others == []


def test_a_checkpoint_of_before_is_still_read(good: Path) -> None:
    main(["test", *SETTINGS, f"--ckpt_path={good}", "--trainer.logger=false"])


def test_a_file_that_is_cut_anywhere_is_refused(good: Path, tmp_path: Path) -> None:
    whole, path = good.read_bytes(), tmp_path / "cut.ckpt"
    for length in (0, 1, 3, 100, *range(1000, len(whole), len(whole) // 40), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ConfigurationError, match=r"cut\.ckpt is no "):
            read_checkpoint(path)
