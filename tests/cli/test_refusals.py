"""Which errors are told in one line, and which keep their traceback: the tests' own classes are a user's."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lit_bottleneck import GaussianBottleneck
from lit_bottleneck.cli import main
from lit_bottleneck.cli.reasons import in_one_line
from lit_bottleneck.cli.recipes import recipe_paths
from tests.distributed.process_group import run_group

PATHS = recipe_paths()
SHORT = ["--trainer.max_epochs=1", "--trainer.logger=false", "--trainer.enable_checkpointing=false"]
VIB = ["fit", "--config", str(PATHS["vib_digits"])]
MINE = ["fit", "--data=tests.cli.test_refusals.Points", *SHORT, "--model"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Line(LightningModule):
    """A user's model, which is right."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 1)
        self.rate = 0.1

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss: Tensor = self.layer(batch).square().mean()
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.rate)


class Points(LightningDataModule):
    """A user's data."""

    def train_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(torch.ones(8, 3), batch_size=4)  # type: ignore[arg-type]


class NoneHasNoLength(Line):
    def __init__(self) -> None:
        super().__init__()
        self.width = len(None)  # type: ignore[arg-type]


class NoSuchAttribute(Line):
    def __init__(self) -> None:
        super().__init__()
        self.width = self.layr


class NoNumber(Line):
    def __init__(self) -> None:
        super().__init__()
        self.width = int("three")


class InTorch(Line):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear("3", 1)  # type: ignore[arg-type]


class InSetup(Line):
    def setup(self, stage: str) -> None:
        raise KeyError("width")


class InTheStep(Line):
    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        raise ValueError("in the step")


class OfTheLibraryInTheStep(GaussianBottleneck, Line):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(beta=1.0)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.rate_penalty(self.bottleneck(batch).rate)  # of an odd number of moments


class Rows(Dataset[Tensor]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, row: int) -> Tensor:
        return torch.ones(len(None))  # type: ignore[arg-type]


class InALoadersProcess(Points):
    def train_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(Rows(), batch_size=4, num_workers=1)


class Decoder(nn.Linear):
    def __init__(self) -> None:
        super().__init__(32, 10)
        self.width = len(None)  # type: ignore[arg-type]


class Encoder(nn.Flatten):
    out_features = 64

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) @ torch.ones(3, 64)


@pytest.mark.parametrize(
    ("arguments", "kind", "function"),
    [
        ([*MINE, "tests.cli.test_refusals.NoneHasNoLength"], TypeError, NoneHasNoLength.__init__),
        ([*MINE, "tests.cli.test_refusals.NoSuchAttribute"], AttributeError, NoSuchAttribute.__init__),
        ([*MINE, "tests.cli.test_refusals.NoNumber"], ValueError, NoNumber.__init__),
        ([*MINE, "tests.cli.test_refusals.InTorch"], TypeError, InTorch.__init__),
        ([*MINE, "tests.cli.test_refusals.InSetup"], KeyError, InSetup.setup),
        ([*MINE, "tests.cli.test_refusals.InTheStep"], ValueError, InTheStep.training_step),
        ([*MINE, "tests.cli.test_refusals.OfTheLibraryInTheStep"], ValueError, OfTheLibraryInTheStep.training_step),
        ([*VIB, "--model.decoder=tests.cli.test_refusals.Decoder"], TypeError, Decoder.__init__),
    ],
)  # fmt: skip
def test_a_bug_in_the_users_code_shows_where_it_is(
    arguments: list[str], kind: type[Exception], function: Callable[..., Any]
) -> None:
    with pytest.raises(kind) as bug:
        main(arguments)
    assert function.__code__ in [entry.frame.code.raw for entry in bug.traceback]


def test_what_is_behind_a_refusal_of_ours_is_shown_if_it_is_the_users() -> None:
    with pytest.raises(ValueError, match="encoder=Encoder does not take the examples of Digits") as bug:
        main([*VIB, "--model.encoder=tests.cli.test_refusals.Encoder"])
    assert isinstance(bug.value.__cause__, RuntimeError)


def test_and_so_does_one_in_a_process_of_a_loader() -> None:
    with pytest.raises(TypeError, match=r"(?s)Original Traceback.*torch\.ones\(len\(None\)\)"):
        main([*MINE, "tests.cli.test_refusals.Line", "--data=tests.cli.test_refusals.InALoadersProcess"])


# --- what is told -----------------------------------------------------------------------------------------------------


class Wide(Line):
    def __init__(self, width: int) -> None:
        super().__init__()
        if width < 4:
            raise ValueError(f"width must be at least 4; got {width}")


class Falling(Line):
    def __init__(self) -> None:
        super().__init__()
        self.rate = -1.0


class NoFile(Points):
    def prepare_data(self) -> None:
        Path("points.txt").read_text()


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The line with which the command ends, with status 2."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    return said[0]


def test_what_the_users_code_refuses_in_words_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal([*MINE, "tests.cli.test_refusals.Wide", "--model.width=3"], capsys)
    assert message == "error: width must be at least 4; got 3"
    message = refusal([*MINE, "tests.cli.test_refusals.Falling"], capsys)
    assert message == "error: SGD(lr=-1.0): Invalid learning rate: -1.0"
    message = refusal([*MINE, "tests.cli.test_refusals.Line", "--data=tests.cli.test_refusals.NoFile"], capsys)
    assert "No such file or directory: 'points.txt'" in message


def test_what_lightning_calls_a_misconfiguration_is_one_whenever_it_comes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = ["--config", str(PATHS["vib_digits"]), "--config", str(PATHS["trainer/smoke"])]
    message = refusal(["fit", *recipe, "--trainer.callbacks.monitor=val/acuracy"], capsys)
    assert "ModelCheckpoint(monitor='val/acuracy')" in message


class Greys(LightningDataModule):
    """Black images, and from the given batch on grey ones, which a Bernoulli likelihood does not take."""

    dims = (1, 8, 8)

    def __init__(self, grey_from: int) -> None:
        super().__init__()
        self.grey_from = grey_from

    def train_dataloader(self) -> DataLoader[Tensor]:
        images = torch.zeros(12, 1, 8, 8)
        images[4 * self.grey_from :] = 0.5
        return DataLoader(images, batch_size=4)  # type: ignore[arg-type]


def of_greys(grey_from: int) -> list[str]:
    recipe = ["--config", str(PATHS["vae_digits"]), "--trainer.max_epochs=1"]
    model = ["--model.likelihood=bernoulli", "--model.decoder.numbers_per_output=1"]
    return ["fit", *recipe, *model, "--data=tests.cli.test_refusals.Greys", f"--data.grey_from={grey_from}"]


def test_data_that_do_not_fit_are_refused_with_the_first_batch_and_break_the_training_later(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "x must be 0 or 1 for Bernoulli; got 0.5" in refusal(of_greys(0), capsys)
    with pytest.raises(ValueError, match=r"x must be 0 or 1 for Bernoulli; got 0\.5"):
        main(of_greys(1))


class Loud(Greys):
    """Images that no generator makes whose pixels end at 1."""

    def train_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(torch.full((12, 1, 8, 8), 16.0), batch_size=4)  # type: ignore[arg-type]

    val_dataloader = train_dataloader


def test_the_first_batch_is_the_first_of_the_training_though_lightning_tries_the_validation_before(
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = ["--data=tests.cli.test_refusals.Loud", "--data.grey_from=0"]
    message = refusal(["fit", "--config", str(PATHS["vdbgan_digits"]), *data], capsys)
    assert "the generator's values are in [-1, 1] and those of the data in [16, 16]" in message


def test_the_configuration_is_written_where_training_starts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = ["--config", str(PATHS["vib_digits"]), "--config", str(PATHS["trainer/smoke"])]
    refusal(["fit", *recipe, "--model.num_classes=5"], capsys)
    assert not list(folder.iterdir())
    Path("runs").mkdir()
    Path("runs/of_another").touch()
    refusal(["fit", *recipe, "--model.optimizer.lr=-1"], capsys)
    assert [path.name for path in folder.rglob("*")] == ["runs", "of_another"]
    main(["fit", *recipe])
    assert (folder / "runs/vib_digits/version_0/config.yaml").is_file()


# --- the line ---------------------------------------------------------------------------------------------------------

OF_AN_OLD_JSONARGPARSE = """Parser key "trainer.callbacks":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'NoneType'>, list[lightning.pytorch.callbacks.callback.Callback]]
  Errors:
    - Expected a <class 'NoneType'>
    - Problem with given class_path 'lightning.pytorch.callbacks.ModelCheckpoint':
        Validation failed: Key 'monitr' is not expected
    - Not a valid subclass of Callback
      Subclass types expect one of:
      - a class path (str)
      - a dict with class_path entry
  Given value type: <class 'list'>
  Given value: [{'class_path': 'lightning.pytorch.callbacks.ModelCheckpoint', 'init_args': {'monitr': 1}}]"""
OF_A_CALLABLE = """Parser key "model":
  Errors:
    - Problem with given class_path 'lit_bottleneck.VIBClassifier':
        Parser key "optimizer":

          - Expected a path but x either not accessible or invalid
          - Type typing.Callable[..., Optimizer] expects a function or a callable class: Parser key "lr":
              - Expected a <class 'float'>
              - Expected a typing.Literal['fast', 'slow']
              Given value: x. Got value: Namespace(class_path='torch.optim.Adam', init_args=Namespace(lr='x'))
    - Expected a <class 'NoneType'>"""


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (OF_AN_OLD_JSONARGPARSE, "trainer.callbacks (ModelCheckpoint): Key 'monitr' is not expected"),
        (OF_A_CALLABLE, "model.init_args.optimizer.init_args.lr: must be float or Literal['fast', 'slow']; got x"),
        ("Errors:\n  - beta must be finite; got inf\n  - Expected a <class 'float'>", "beta must be finite; got inf"),
        ("latent_dim=3 needs more", "latent_dim=3 needs more"),
        ("two\n\n  lines", "two; lines"),
        ("Errors:\n  Subtypes: none", "Errors:; Subtypes: none"),
        ("a" * 1001, f"{'a' * 1000} ..."),
    ],
)
def test_a_message_becomes_one_line_of_what_counts(message: str, line: str) -> None:
    assert in_one_line(message) == line


# --- several processes ------------------------------------------------------------------------------------------------


class OnlyTheSecond(Points):
    """Data that only one of two processes cannot have."""

    def setup(self, stage: str) -> None:
        if os.environ.get("LOCAL_RANK") == "1":
            raise ValueError("not on this process")


def on_two_processes(folder: Path, *arguments: str) -> tuple[int, list[str]]:
    """Exit status and lines of a real command; it returns when the last process has closed its output."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    trainer = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
    command = [sys.executable, "-m", "lit_bottleneck", "fit", *arguments, *trainer]
    done = run_group(command, cwd=folder, environment=environment)
    assert "Traceback" not in done.stderr
    return done.returncode, [line for line in done.stderr.splitlines() if re.search(r"(^|: )error: ", line)]


def test_two_processes_that_are_refused_say_it_once_and_both_end(folder: Path) -> None:
    status, said = on_two_processes(folder, "--config", str(PATHS["vib_digits"]), "--model.num_classes=5")
    assert status == 2
    assert said == ["error: num_classes=5, but the labels of Digits have 10 values"]
    assert not list(folder.iterdir())


@pytest.mark.slow
def test_what_one_of_two_processes_is_refused_alone_is_said_too_and_both_end(folder: Path) -> None:
    data = "--data=tests.cli.test_refusals.OnlyTheSecond"
    status, said = on_two_processes(folder, "--model=tests.cli.test_refusals.Line", data, *SHORT)
    assert status == 2
    assert said == ["error: not on this process"]
