"""The command ``resume``: the checkpoint it chooses, the rows it keeps, and folders it refuses."""

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from lit_bottleneck.cli import main
from lit_bottleneck.cli.recipes import recipe_paths
from lit_bottleneck.cli.resume import _continue_loggers
from tests.cli.commands import refusal


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "holds no config.yaml: it is no run of"),
        (["config.yaml"], "holds no resume.ckpt: the run is finished, or keeps no checkpoints"),
        (["config.yaml", "resume.ckpt"], "holds no checkpoint that can be read"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*it is ignored")
def test_a_folder_without_a_checkpoint_is_refused(
    files: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in files:
        (tmp_path / name).write_text(yaml.safe_dump({"trainer": {}}))
    assert words in refusal(["resume", str(tmp_path)], capsys)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "a\nb"])
def test_a_name_that_no_folder_has_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no config.yaml: it is no run of" in refusal(["resume", name], capsys)


def test_the_configuration_is_not_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lightning warns of arguments beside those of the process, with all of them."""
    monkeypatch.setattr(sys, "argv", ["lit-bottleneck", "resume", str(tmp_path)])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"trainer": {"max_epochs": "mine"}}))
    torch.save({"state_dict": {}, "stage": "begun", "logger_versions": []}, tmp_path / "resume.ckpt")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert "trainer.max_epochs" in refusal(["resume", str(tmp_path)], capsys)
    assert not [one for one in told if "args parameter" in str(one.message)]


class Stop(Callback):
    """Raise an error in the fourth batch, if there is a file."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 3 and Path("fuse").exists():
            raise InterruptedError("the fuse")


@pytest.mark.parametrize("case", ["from elsewhere", "a folder of each run's own"])
def test_a_run_continues_in_its_own_folder_or_not_at_all(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fuse").touch()
    of_each_own = ["--trainer.logger=true"] if case == "a folder of each run's own" else []
    stopping = ["--trainer.callbacks+=tests.cli.resume.test_command.Stop", "--trainer.limit_train_batches=6"]
    with pytest.raises(InterruptedError):
        main(["fit", "--config", str(recipe_paths()["vib_digits"]), *stopping, *of_each_own])
    [point] = tmp_path.rglob("resume.ckpt")
    before = sorted(path for path in tmp_path.rglob("*") if "elsewhere" not in path.parts)
    if not of_each_own:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
    assert "call resume from where the run was started" in refusal(["resume", str(point.parent)], capsys)
    assert sorted(path for path in tmp_path.rglob("*") if "elsewhere" not in path.parts) == before
    assert not list((tmp_path / "elsewhere").rglob("*"))

    if not of_each_own:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "fuse").unlink()
        main(["resume", str(point.parent), "--trainer.max_epochs=2"])
        assert not point.exists()
        assert len(list((tmp_path / "runs" / "vib_digits").iterdir())) == 1


def test_every_logger_continues_its_own_run() -> None:
    csv: dict[str, Any] = {"class_path": "CSVLogger", "init_args": {"save_dir": "runs", "version": None}}
    wandb: dict[str, Any] = {"class_path": "loggers.WandbLogger", "init_args": {"project": "mine"}}
    mine: dict[str, Any] = {"class_path": "mine.Logger"}
    _continue_loggers({"logger": [csv, wandb, mine]}, ["version_3", "a1b2", 7])
    assert csv["init_args"] == {"save_dir": "runs", "version": "version_3"}
    assert wandb["init_args"] == {"project": "mine", "id": "a1b2", "resume": "allow"}
    assert mine["init_args"] == {}
