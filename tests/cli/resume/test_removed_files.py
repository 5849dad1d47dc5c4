"""Which files of a stopped run ``resume`` removes, and which it never touches."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from lit_bottleneck.cli.later_files import remove_later_files
from tests import quiet

RUN, CHECKPOINTS = Path("runs", "version_0"), Path("runs", "version_0", "checkpoints")
ONLY_WEIGHTS = Path("weights")


def write(path: Path, step: int, names: list[str] | None, time: float = 2e9, run: str = "version_0") -> None:
    """Write a checkpoint of a step, whose ``ModelCheckpoint`` names files in its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done = {"total": {"completed": step}}
    content: dict[str, Any] = {"state_dict": {}, "global_step": step, "logger_versions": [run]}
    content["loops"] = {"fit_loop": {"epoch_loop.batch_progress": done, "epoch_progress": done}}
    if names is not None:
        best = {str(CHECKPOINTS / name): torch.tensor(0.5) for name in names}
        state = {"best_model_path": next(iter(best), ""), "last_model_path": "", "best_k_models": best}
        content["callbacks"] = {"ModelCheckpoint": state, "EarlyStopping": {"wait_count": 1}}
    torch.save(content, path)
    os.utime(path, (time, time))


def trainer() -> Trainer:
    weights = ModelCheckpoint(ONLY_WEIGHTS, filename="{epoch}-of-{step}", save_weights_only=True, monitor="val/loss")
    logger = CSVLogger("runs", name="", version="version_0")
    return quiet.trainer(enable_checkpointing=True, callbacks=[ModelCheckpoint(), weights], logger=logger)


def test_only_what_the_run_itself_wrote_later_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(RUN / "resume.ckpt", 10, ["best.ckpt", "gone.ckpt"], time=1e9)
    kept = {
        "best.ckpt": (20, ["best.ckpt"]),  # overwritten since, and the best so far
        "copy.ckpt": (20, ["later.ckpt"]),  # a user's own copy of another file
        "earlier.ckpt": (10, ["earlier.ckpt"]),  # written before, and kept by save_top_k=-1
        "mine.ckpt": (20, []),  # trainer.save_checkpoint(...)
    }
    for name, (step, names) in kept.items():
        write(CHECKPOINTS / name, step, names)
    write(CHECKPOINTS / "other.ckpt", 20, ["other.ckpt"], run="version_1")
    write(CHECKPOINTS / "old.ckpt", 20, ["old.ckpt"], time=5e8)
    (CHECKPOINTS / "broken.ckpt").write_bytes(b"half of one")
    (CHECKPOINTS / "link.ckpt").symlink_to("later.ckpt")
    write(ONLY_WEIGHTS / "mine.ckpt", 20, None)
    write(ONLY_WEIGHTS / "epoch=0-of-step=10.ckpt", 10, None)
    (RUN / ".cache").mkdir()
    before = sorted(tmp_path.rglob("*"))

    write(CHECKPOINTS / "later.ckpt", 20, ["best.ckpt", "later.ckpt"])
    (CHECKPOINTS / "last.ckpt").symlink_to("later.ckpt")
    write(ONLY_WEIGHTS / "epoch=1-of-step=20.ckpt", 20, None)
    write(ONLY_WEIGHTS / "epoch=1-of-step=20-v1.ckpt", 20, None)
    (CHECKPOINTS / ".part-host-1-a").mkdir()
    (CHECKPOINTS / ".part-host-1-a" / "best.ckpt").touch()
    (CHECKPOINTS / ".best.ckpt.part").touch()
    (RUN / ".resume.ckpt").touch()
    remove_later_files(trainer(), RUN / "resume.ckpt")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_that_begins_anew_keeps_none_of_its_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    RUN.mkdir(parents=True)
    torch.save({"state_dict": {}, "logger_versions": ["version_0"], "stage": "begun"}, RUN / "resume.ckpt")
    write(CHECKPOINTS / "best.ckpt", 1, ["best.ckpt"])
    remove_later_files(trainer(), RUN / "resume.ckpt")
    assert list(CHECKPOINTS.iterdir()) == []
