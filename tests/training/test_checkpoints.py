"""Checkpoint files are complete or not written at all."""

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_bottleneck.training.checkpoints import WholeCheckpointIO
from tests.full_disk import no_file_longer_than
from tests.started import CONTEXT


class KillsItsProcess:
    """Kills the process that pickles it."""

    def __reduce__(self) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def write_and_be_killed(path: Path) -> None:
    WholeCheckpointIO().save_checkpoint({"weight": torch.ones(2**20), "last": KillsItsProcess()}, path)


def test_a_checkpoint_holds_what_was_written_and_no_other_file_is_left(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "one.ckpt"
    for step in range(2):
        WholeCheckpointIO().save_checkpoint({"step": step, "weight": torch.arange(3)}, path)
        found = torch.load(path, weights_only=True)
        assert found["step"] == step
        assert found["weight"].tolist() == [0, 1, 2]
    assert list(path.parent.iterdir()) == [path]


def test_a_process_killed_while_writing_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "one.ckpt"
    WholeCheckpointIO().save_checkpoint({"step": 0}, path)
    process = CONTEXT.Process(target=write_and_be_killed, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert torch.load(path, weights_only=True) == {"step": 0}
    WholeCheckpointIO().save_checkpoint({"step": 1}, path)  # despite the partial file
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("size", [1, 2**22])
def test_a_full_disk_leaves_the_previous_checkpoint_and_names_the_new_one(size: int, tmp_path: Path) -> None:
    path = tmp_path / "one.ckpt"
    WholeCheckpointIO().save_checkpoint({"step": 0}, path)
    words = rf"could not be written; the previous one is complete: File too large: '{path}'"
    with no_file_longer_than(100), pytest.raises(OSError, match=words) as raised:
        WholeCheckpointIO().save_checkpoint({"step": 1, "weight": torch.ones(size)}, path)
    assert raised.value.errno == errno.EFBIG
    assert torch.load(path, weights_only=True) == {"step": 0}
    assert list(tmp_path.iterdir()) == [path]


def test_storage_options_are_left_to_lightning_which_refuses_them(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="storage_options"):
        WholeCheckpointIO().save_checkpoint({}, tmp_path / "one.ckpt", storage_options={"anything": 1})
