"""config.yaml, read again, gives the configuration of the run; what it cannot hold is refused by name."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import get_loader
from jsonargparse.typing import register_type
from lightning.pytorch.callbacks import Callback

from lit_bottleneck.cli import fit_configuration, main
from lit_bottleneck.cli.recipes import recipe_paths
from lit_bottleneck.cli.yaml_files import dump_yaml
from tests.cli.commands import refusal

PATHS = recipe_paths()
SMOKE = ["--config", str(PATHS["vib_digits"]), "--config", str(PATHS["trainer/smoke"])]
RUN = Path("runs/vib_digits/version_0")
LIGHTNING = "--trainer.callbacks+=lightning.pytorch.callbacks."
register_type(Fraction, lambda value: f"about {float(value):.1f}", lambda text: Fraction(text.removeprefix("about ")))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Rounded(Callback):
    """A callback whose argument is written as something else."""

    def __init__(self, part: Fraction = Fraction(1, 2)) -> None:
        self.part = part


class Thing:
    """Something that no text says."""


THINGS = {"it": Thing()}


class WithDefaults(Callback):
    """A callback with defaults that cannot be written."""

    def __init__(self, thing: Thing | None = THINGS["it"], beta: float = 1e-3) -> None:
        self.thing, self.beta = thing, beta


def test_what_is_written_is_read_as_the_same() -> None:
    """All at once; a default that cannot be written is left out."""
    options = [
        *(f"{LIGHTNING}StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.1"),
        *(f"{LIGHTNING}Timer", "--trainer.callbacks.duration=00:00:01:00"),
        *(f"{LIGHTNING}Timer", "--trainer.callbacks.duration={minutes: 3}", "--trainer.callbacks.interval=epoch"),
        *(f"{LIGHTNING}ModelCheckpoint", "--trainer.callbacks.train_time_interval=1 day, 0:00:05"),
        *(f"{LIGHTNING}ModelPruning", "--trainer.callbacks.pruning_fn=l1_unstructured"),
        *(f"{LIGHTNING}BackboneFinetuning", f"{LIGHTNING}RichProgressBar"),
        f"--trainer.callbacks+={__name__}.WithDefaults",
    ]
    configuration = fit_configuration([*SMOKE, *options])
    text = dump_yaml(configuration)
    assert "Unable to serialize" not in text
    assert configuration["trainer"]["callbacks"][1]["init_args"]["device"] == "cpu"
    assert configuration["trainer"]["callbacks"][2]["init_args"]["interval"] == "step"
    assert configuration["trainer"]["callbacks"][-1]["init_args"] == {"beta": 0.001}
    assert fit_configuration(["--config", text]) == configuration


@pytest.mark.parametrize(
    "word",
    ["1e-3", "1e3", "-2E+4", "1_000", "0x10", "12:30:00", "2026-01-01", "true", "yes", ".nan", "1.", "é", "- a", "%"],
)
def test_words_that_look_like_something_else_stay_words(word: str) -> None:
    for value in (word, f"{word} ", [word], {word: word}):
        assert yaml.safe_load(dump_yaml(value)) == value
        assert get_loader("yaml")(dump_yaml({"key": value})) == {"key": value}


def test_a_name_that_looks_like_a_number_stays_a_name() -> None:
    configuration = fit_configuration([*SMOKE, "--trainer.logger.init_args.name=1e-3"])
    assert configuration["trainer"]["logger"]["init_args"]["name"] == "1e-3"
    assert fit_configuration(["--config", dump_yaml(configuration)]) == configuration


def test_what_is_read_as_something_else_is_refused_by_name_before_training(capsys: pytest.CaptureFixture[str]) -> None:
    rounded = f"--trainer.callbacks+={__name__}.Rounded"
    main(["fit", *SMOKE, rounded, "--trainer.callbacks.part=1/2"])
    said = refusal(["fit", *SMOKE, rounded, "--trainer.callbacks.part=1/3"], capsys)
    assert "error: trainer.callbacks.init_args.part: config.yaml cannot hold Fraction(1, 3)" in said
    assert not (RUN.parent / "version_1").exists()


def _swa_has_a_plain_state() -> bool:
    schedule = torch.optim.swa_utils.SWALR(torch.optim.SGD([torch.zeros(1)], lr=0.1), swa_lr=0.1)
    return not any(map(callable, schedule.state_dict().values()))


@pytest.mark.skipif(not _swa_has_a_plain_state(), reason="this torch's SWALR keeps a function in checkpoints")
def test_a_run_with_such_callbacks_is_repeated_from_its_file() -> None:
    averaging = [f"{LIGHTNING}StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.1"]
    main(["fit", *SMOKE, *averaging, f"{LIGHTNING}Timer", "--trainer.callbacks.duration={minutes: 3}"])
    main(["fit", "--config", str(RUN / "config.yaml")])
    again = RUN.parent / "version_1"
    assert (again / "config.yaml").read_text() == (RUN / "config.yaml").read_text()
    assert (again / "metrics.csv").read_text() == (RUN / "metrics.csv").read_text()
