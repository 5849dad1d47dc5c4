"""The command ``resume``: the checkpoint it chooses, the rows it keeps, and folders it refuses."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from lit_bottleneck.cli import main
from lit_bottleneck.cli.recipes import recipe_paths
from lit_bottleneck.cli.resume import _continue_loggers, _logged_until, _newest_checkpoint, _rows
from tests.cli.commands import refusal


def write(path: Path, step: int, time: float, **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {}, "optimizer_states": [], "global_step": step, **more}, path)
    os.utime(path, (time, time))


def test_the_newest_complete_checkpoint_is_chosen(tmp_path: Path) -> None:
    write(tmp_path / "resume.ckpt", 3, time=100)
    write(tmp_path / "checkpoints" / "best.ckpt", 5, time=200)
    assert _newest_checkpoint(tmp_path)[1]["global_step"] == 5
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"half of one")  # newer still
    torch.save({"state_dict": {}}, tmp_path / "checkpoints" / "weights.ckpt")  # of weights alone
    with pytest.warns(UserWarning, match=r"last\.ckpt is no complete checkpoint .* it is ignored"):
        path, checkpoint = _newest_checkpoint(tmp_path)
    write(tmp_path / "checkpoints" / "within.ckpt", 6, time=2e9, under_way=True)
    with pytest.warns(UserWarning, match=r"last\.ckpt"):
        assert _newest_checkpoint(tmp_path) == (path, checkpoint)
    assert (path.name, checkpoint["global_step"]) == ("best.ckpt", 5)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "holds no config.yaml: it is no run of"),
        (["config.yaml"], "holds no resume.ckpt: finished, or stopped before its first step"),
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


def test_kept_rows_end_at_the_checkpoints_step_or_at_a_cut_row(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    file.write_text("epoch,loss,step\n0,0.5,18\n0,,19\n0,0.4,19\n0,0.3,20\n")
    assert _rows(file, until=19) == [
        {"epoch": "0", "loss": "0.5", "step": "18"},
        {"epoch": "0", "step": "19"},
        {"epoch": "0", "loss": "0.4", "step": "19"},
    ]
    for rows, until, kept in (
        ("0,0.5,0.0\n0,0.4,1.0\n", 0, ["0.0"]),  # a model's own "step"
        ("0,0.5,18\n0,0.4,1", 30, ["18"]),  # a cut 19
        ("0,0.5,18\n0,", 30, ["18"]),
    ):
        file.write_text(f"epoch,loss,step\n{rows}")
        assert [row["step"] for row in _rows(file, until)] == kept


def test_the_count_of_steps_is_one_ahead_at_the_end_of_an_epoch() -> None:
    def loop(processed: int) -> dict[str, Any]:
        progress = {"current": {"processed": processed, "completed": 1}}
        return {"epoch_progress": progress, "epoch_loop.state_dict": {"_batches_that_stepped": 22}}

    assert _logged_until(loop(processed=1)) == 22
    assert _logged_until(loop(processed=2)) == 21


def test_every_logger_continues_its_own_run() -> None:
    csv: dict[str, Any] = {"class_path": "CSVLogger", "init_args": {"save_dir": "runs", "version": None}}
    wandb: dict[str, Any] = {"class_path": "loggers.WandbLogger", "init_args": {"project": "mine"}}
    mine: dict[str, Any] = {"class_path": "mine.Logger"}
    _continue_loggers({"logger": [csv, wandb, mine]}, ["version_3", "a1b2", 7])
    assert csv["init_args"] == {"save_dir": "runs", "version": "version_3"}
    assert wandb["init_args"] == {"project": "mine", "id": "a1b2", "resume": "allow"}
    assert mine["init_args"] == {}
