"""The checkpoint from which a stopped run continues."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_bottleneck.cli.newest_checkpoint import newest_checkpoint


def write(path: Path, step: int, time: float, **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {}, "optimizer_states": [], "global_step": step, **more}, path)
    os.utime(path, (time, time))


def test_the_resume_point_is_chosen_or_else_the_newest_complete_checkpoint(tmp_path: Path) -> None:
    write(tmp_path / "resume.ckpt", 3, time=100)
    write(tmp_path / "checkpoints" / "best.ckpt", 5, time=200)
    write(tmp_path / "checkpoints" / "older.ckpt", 4, time=50)
    assert newest_checkpoint(tmp_path)[1]["global_step"] == 3
    (tmp_path / "resume.ckpt").write_bytes(b"half of one")
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"half of one")  # newer still
    (tmp_path / "checkpoints" / "link.ckpt").symlink_to("nowhere")
    torch.save({"state_dict": {}}, tmp_path / "checkpoints" / "weights.ckpt")  # of weights alone
    write(tmp_path / "checkpoints" / "within.ckpt", 6, time=2e9, under_way=True)
    with pytest.warns(UserWarning, match="it is ignored") as told:
        path, checkpoint = newest_checkpoint(tmp_path)
    assert (path.name, checkpoint["global_step"]) == ("best.ckpt", 5)
    ignored = [str(one.message) for one in told if "is no complete checkpoint" in str(one.message)]
    assert [name in words for name, words in zip(("resume.ckpt", "last.ckpt"), ignored, strict=True)] == [True, True]
    assert all(words.endswith("; it is ignored") for words in ignored)
