"""Errors that end a command in one line with exit status 2, and errors that keep their traceback."""

import builtins
import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning import LightningDataModule, LightningModule
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_bottleneck.bottleneck import GaussianBottleneck
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli import main
from lit_bottleneck.cli.recipes import recipe_paths
from tests.started import PATIENCE, start

PATHS = recipe_paths()
SHORT = ["--trainer.max_epochs=1", "--trainer.logger=false", "--trainer.enable_checkpointing=false"]
VIB = ["fit", "--config", str(PATHS["vib_digits"])]
MINE = ["fit", f"--data={__name__}.Points", *SHORT, f"--model={__name__}."]
HOW_TO_SEE_MORE = " (LIT_BOTTLENECK_TRACEBACK=1 shows the traceback)"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def of_model(name: str, *options: str) -> list[str]:
    return [*MINE[:-1], f"{MINE[-1]}{name}", *options]


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The line that a command ends with, after ``error: `` and before how to see the traceback."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    [said] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert said.endswith(HOW_TO_SEE_MORE)
    return said.removeprefix("error: ").removesuffix(HOW_TO_SEE_MORE)


class Line(LightningModule):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss: Tensor = self.layer(batch).square().mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Points(LightningDataModule):
    def train_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(torch.ones(8, 3), batch_size=4)  # type: ignore[arg-type]


class Failing(Line):
    """Raise an error of a kind in one of the methods."""

    def __init__(self, method: str, kind: str) -> None:
        super().__init__()
        ours = {"ConfigurationError": ConfigurationError, "MisconfigurationException": MisconfigurationException}
        self.method, self.error = method, ours.get(kind) or getattr(builtins, kind)
        self.fail("__init__")

    def fail(self, method: str) -> None:
        if method == self.method:
            raise self.error("it is wrong")

    def setup(self, stage: str) -> None:
        self.fail("setup")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self.fail("configure_optimizers")
        return super().configure_optimizers()

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.fail("training_step")
        return super().training_step(batch, batch_idx)


REFUSED = ["ConfigurationError", "MisconfigurationException"]
REFUSED_WHILE_BUILT = [
    *REFUSED, "ValueError", "ImportError", "FileNotFoundError", "PermissionError", "IsADirectoryError",
    "NotADirectoryError",
]  # fmt: skip
BUGS_WHILE_BUILT = ["TypeError", "AttributeError", "KeyError", "RuntimeError", "OSError"]
LATER = ["setup", "configure_optimizers", "training_step"]


@pytest.mark.parametrize(
    ("method", "kind"),
    [("__init__", kind) for kind in REFUSED_WHILE_BUILT] + [(method, kind) for method in LATER for kind in REFUSED],
)
def test_an_error_of_the_configuration_ends_in_one_line(
    method: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refusal(of_model("Failing", f"--model.method={method}", f"--model.kind={kind}"), capsys)
    assert message == ("model (Failing): it is wrong" if method == "__init__" else "it is wrong")


@pytest.mark.parametrize(
    ("method", "kind"),
    [("__init__", kind) for kind in BUGS_WHILE_BUILT] + [(method, "ValueError") for method in LATER],
)
def test_every_other_error_keeps_its_traceback(method: str, kind: str) -> None:
    with pytest.raises(getattr(builtins, kind), match="it is wrong") as bug:
        main(of_model("Failing", f"--model.method={method}", f"--model.kind={kind}"))
    assert Failing.fail.__code__ in [entry.frame.code.raw for entry in bug.traceback]


class Decoder(nn.Linear):
    def __init__(self) -> None:
        super().__init__(32, 10)
        self.width = len(None)  # type: ignore[arg-type]


def test_a_bug_is_not_taken_for_a_type_that_does_not_fit() -> None:
    """The decoder may be a module or None: jsonargparse tries both, and would report that neither fits."""
    with pytest.raises(TypeError, match="object of type 'NoneType' has no len") as bug:
        main([*VIB, f"--model.decoder={__name__}.Decoder"])
    assert Decoder.__init__.__code__ in [entry.frame.code.raw for entry in bug.traceback]


@pytest.mark.parametrize(
    ("bug", "kind"),
    [(lambda: len(None), TypeError), (lambda: object().missing, AttributeError)],  # type: ignore
)
def test_a_bug_of_the_library_is_not_the_users_mistake(
    bug: Callable[[], object], kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GaussianBottleneck, "__init__", lambda *args, **kwargs: bug())
    with pytest.raises(kind):
        main(VIB)


def test_a_full_disk_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(self: Path, text: str, encoding: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", no_space)
    with pytest.raises(OSError, match=r"No space left on device: '.*config\.yaml'"):
        main([*VIB, "--config", str(PATHS["trainer/smoke"])])


# --- the line ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ["--model.encoder.in_features=0"],
            "model.init_args.encoder (MLP): in_features must be a whole number, at least 1; got 0",
        ),
        (
            ["--model.optimizer.betas=[2,2]"],  # built in configure_optimizers
            "model.init_args.optimizer (Adam): Invalid beta parameter at index 0: 2.0",
        ),
        (
            [f"--trainer.callbacks+={ck}" for ck in ("lightning.pytorch.callbacks.ModelCheckpoint",)]
            + ["--trainer.callbacks.save_top_k=-2"],
            "trainer.callbacks.init_args.save_top_k (ModelCheckpoint): must be a whole number, at least -1",
        ),
        (["--trainer.profiler=none"], "trainer: When passing string value for the `profiler` parameter"),
        (["--trainer.max_epochs=many"], "trainer.max_epochs: must be int; got many"),
    ],
)
def test_the_line_names_key_class_and_value(options: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal([*VIB, *options], capsys).startswith(line)


@pytest.mark.parametrize("options", [["--model.encoder.in_features=0"], ["--trainer.max_epochs=many"]])
def test_the_environment_variable_shows_the_traceback(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_BOTTLENECK_TRACEBACK", "1")
    with pytest.raises(ConfigurationError, match=r"in_features|max_epochs") as error:
        main([*VIB, *options])
    assert error.value.__cause__ is not None


def test_what_lightning_calls_a_misconfiguration_is_one_whenever_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = ["--config", str(PATHS["vib_digits"]), "--config", str(PATHS["trainer/smoke"])]
    message = refusal(["fit", *recipe, "--trainer.callbacks.monitor=val/acuracy"], capsys)
    assert "ModelCheckpoint(monitor='val/acuracy')" in message


def test_the_configuration_is_written_where_training_starts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = ["--config", str(PATHS["vib_digits"]), "--config", str(PATHS["trainer/smoke"])]
    refusal(["fit", *recipe, "--model.num_classes=5"], capsys)
    assert not list(folder.iterdir())
    Path("runs").mkdir()
    Path("runs/of_another").touch()
    refusal(["fit", *recipe, "--model.optimizer.betas=[2,2]"], capsys)
    assert [path.name for path in folder.rglob("*")] == ["runs", "of_another"]
    main(["fit", *recipe])
    assert (folder / "runs/vib_digits/version_0/config.yaml").is_file()


# --- several processes ------------------------------------------------------------------------------------------------


class OnlyTheSecond(Points):
    """Data that only one of two processes cannot have."""

    def setup(self, stage: str) -> None:
        if os.environ.get("LOCAL_RANK") == "1":
            raise ConfigurationError("not on this process")


def refusal_on_two_processes(folder: Path, *arguments: str) -> list[str]:
    """Return the lines of the errors, after both processes have ended and left no file."""
    log, place = folder / "log.txt", folder / "run"
    place.mkdir()
    trainer = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
    quiet = {"CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
    process = start([*arguments, *trainer], log, quiet, place)
    process.join(PATIENCE)
    output = log.read_text()
    assert process.exitcode == 2, output[-3000:]
    assert "Traceback" not in output
    assert place not in map(Path.resolve, Path("/proc").glob("[0-9]*/cwd"))  # where there is a /proc
    assert not list(place.iterdir())
    return [line for line in output.splitlines() if re.search(r"(^|: )error: ", line)]


@pytest.mark.slow  # one process waits ten seconds for the other to speak
def test_two_processes_that_are_refused_say_it_once_and_both_end(folder: Path) -> None:
    said = refusal_on_two_processes(folder, *VIB, "--model.num_classes=5")
    assert said == [f"error: num_classes=5, but the labels of Digits have 10 values{HOW_TO_SEE_MORE}"]


@pytest.mark.slow
def test_an_error_of_one_of_two_processes_alone_is_said_too_and_both_end(folder: Path) -> None:
    said = refusal_on_two_processes(folder, *of_model("Line"), f"--data={__name__}.OnlyTheSecond")
    assert said == [f"error: not on this process{HOW_TO_SEE_MORE}"]
