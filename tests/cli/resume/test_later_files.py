"""A run that is cut and resumed leaves the files of one that runs through, and no others."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from lit_bottleneck.cli import main
from tests.cli.resume.cut_runs import RUN, callback, cut, left, light_fuse, recipe, resume
from tests.cli.resume.trainings import assert_same

BEST = callback("ModelCheckpoint", monitor="val/cross_entropy", filename="best")
LAST = callback("ModelCheckpoint", monitor=None, filename="last-{epoch}")
BETWEEN = "tests.cli.resume.cut_runs.CutBetween"

CASES: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    # resume points after steps 1, 4, (8, 10,) ...: the first best is of a later step than the resume point
    "first best": ([BEST, cut("on_train_epoch_start", 1)], {}),
    "between two": ([BEST, callback(BETWEEN, hook="on_train_epoch_end", epoch=1), LAST], {}),
    "the best two, and last": (
        [
            callback("ModelCheckpoint", monitor="val/cross_entropy", save_top_k=2, save_last=True),
            cut("on_train_batch_start", 2, 0),
        ],
        {},
    ),
    "linked": (
        [
            callback("ModelCheckpoint", monitor="val/cross_entropy", save_last="link"),
            cut("on_train_batch_start", 1, 0),
        ],
        {},
    ),
    "steps": (
        [
            callback("ModelCheckpoint", every_n_train_steps=4, save_top_k=1, filename="{step}"),
            callback("ModelCheckpoint", every_n_train_steps=5, save_top_k=-1, monitor="val/cross_entropy"),
            cut("on_train_batch_start", 2, 3),
        ],
        {"every_n_steps": 4},
    ),
    "weights": (
        [callback("ModelCheckpoint", monitor="val/cross_entropy", save_weights_only=True, every_n_epochs=2),
         cut("on_train_epoch_start", 2)],
        {"every_n_steps": 5},
    ),
    "epochs of a batch": (
        [BEST, LAST, callback("EarlyStopping", monitor="val/cross_entropy", patience=2),
         cut("on_train_batch_start", 3, 0)],
        {"limit_train_batches": 1, "every_n_steps": 1, "max_epochs": 6},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_same_files(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    callbacks, kwargs = CASES[case]
    for folder in (tmp_path / "alone", tmp_path / "stopped"):
        arguments = recipe(folder, callbacks, **kwargs)
        monkeypatch.chdir(folder)
        if folder.name == "stopped":
            light_fuse()
            with pytest.raises(InterruptedError):
                main(arguments)
            mine = RUN / "checkpoints" / "mine.ckpt"
            shutil.copy(next((RUN / "checkpoints").glob("*.ckpt")), mine)  # a user's own, newer than the resume point
            resume()
            mine.unlink()
        else:
            main(arguments)
    assert_same(left(tmp_path / "stopped" / RUN), left(tmp_path / "alone" / RUN))
