"""What `lit-bottleneck resume` finds in a folder, and what it says where there is nothing to go on with."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lit_bottleneck.cli import main
from lit_bottleneck.resuming import _continue_loggers, _logged_until, _newest_checkpoint, _rows


def write(path: Path, step: int, time: float, **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {}, "optimizer_states": [], "global_step": step, **more}, path)
    os.utime(path, (time, time))


def test_the_newest_whole_checkpoint_with_all_states_is_taken(tmp_path: Path) -> None:
    write(tmp_path / "resume.ckpt", 3, time=100)
    write(tmp_path / "checkpoints" / "best.ckpt", 5, time=200)
    assert _newest_checkpoint(tmp_path)[1]["global_step"] == 5
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"half of one")  # newer still
    torch.save({"state_dict": {}}, tmp_path / "checkpoints" / "weights.ckpt")  # of weights alone
    with pytest.warns(UserWarning, match=r"last\.ckpt is no checkpoint .* it is left aside"):
        path, checkpoint = _newest_checkpoint(tmp_path)
    assert (path.name, checkpoint["global_step"]) == ("best.ckpt", 5)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "holds no config.yaml: it is no run of"),
        (
            ["config.yaml"],
            "holds no resume.ckpt: the training has come to its end, or was stopped before its first step",
        ),
        (["config.yaml", "resume.ckpt"], "holds no checkpoint that can be read"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*it is left aside")
def test_a_folder_with_nothing_to_go_on_with_is_refused(
    files: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in files:
        (tmp_path / name).write_text(yaml.safe_dump({"trainer": {}}))
    with pytest.raises(SystemExit) as left:
        main(["resume", str(tmp_path)])
    assert left.value.code == 2
    assert words in capsys.readouterr().err


def test_rows_end_where_the_checkpoint_was_written_or_where_one_was_cut(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    file.write_text("epoch,loss,step\n0,0.5,18\n0,,19\n0,0.4,19\n0,0.3,20\n")
    assert _rows(file, until=19) == [
        {"epoch": "0", "loss": "0.5", "step": "18"},
        {"epoch": "0", "step": "19"},
        {"epoch": "0", "loss": "0.4", "step": "19"},
    ]
    file.write_text("epoch,loss,step\n0,0.5,18\n0,0.4,1")  # the last was to be 19
    assert [row["step"] for row in _rows(file, until=30)] == ["18"]
    file.write_text("epoch,loss,step\n0,0.5,18\n0,")
    assert [row["step"] for row in _rows(file, until=30)] == ["18"]


def test_steps_are_counted_on_already_at_the_end_of_an_epoch() -> None:
    def loop(processed: int) -> dict[str, Any]:
        progress = {"current": {"processed": processed, "completed": 1}}
        return {"epoch_progress": progress, "epoch_loop.state_dict": {"_batches_that_stepped": 22}}

    assert _logged_until(loop(processed=1)) == 22
    assert _logged_until(loop(processed=2)) == 21


def test_every_logger_goes_on_with_its_own_run() -> None:
    trainer: dict[str, Any] = {
        "logger": [
            {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "runs", "version": None}},
            {"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": {"project": "mine"}},
            {"class_path": "mine.Logger"},
        ]
    }
    _continue_loggers(trainer, ["version_3", "a1b2", 7])
    csv, wandb, mine = trainer["logger"]
    assert csv["init_args"] == {"save_dir": "runs", "version": "version_3"}
    assert wandb["init_args"] == {"project": "mine", "id": "a1b2", "resume": "allow"}
    assert mine["init_args"] == {}
