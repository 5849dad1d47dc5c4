"""A run that is cut and resumed leaves the files of one that runs through, and no others."""

import csv
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from lit_bottleneck.cli import main
from tests.cli.resume.cut_runs import RUN, callback, cut, left, light_fuse, recipe, resume
from tests.cli.resume.trainings import assert_same
from tests.started import PATIENCE, start

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


def alone(folder: Path, callbacks: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, **kwargs: Any) -> Any:
    """Return all that an uninterrupted run leaves."""
    arguments = recipe(folder, callbacks, **kwargs)
    monkeypatch.chdir(folder)
    main(arguments)
    return left(folder / "runs")


QUICK = ["between two"]


@pytest.mark.parametrize("case", [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in CASES])
def test_the_same_files(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    callbacks, kwargs = CASES[case]
    expected = alone(tmp_path / "alone", callbacks, monkeypatch, **kwargs)
    arguments = recipe(tmp_path / "stopped", callbacks, **kwargs)
    monkeypatch.chdir(tmp_path / "stopped")
    light_fuse()
    with pytest.raises(InterruptedError):
        main(arguments)
    if case == "between two":  # once more, at the same moment
        light_fuse()
        with pytest.raises(InterruptedError):
            resume()
    mine = RUN / "checkpoints" / "mine.ckpt"
    shutil.copy(next((RUN / "checkpoints").glob("*.ckpt")), mine)  # a user's own, newer than the resume point
    resume()
    mine.unlink()
    assert_same(left(Path("runs")), expected)


@pytest.mark.slow
def test_after_a_kill_without_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process kills itself within a validation; then its rows are deleted."""
    callbacks = [BEST, callback("LearningRateMonitor"), cut("on_validation_start", 2, is_kill=True)]
    expected = alone(tmp_path / "alone", callbacks, monkeypatch)
    arguments = recipe(tmp_path / "stopped", callbacks)
    monkeypatch.chdir(tmp_path / "stopped")
    light_fuse()
    process = start(arguments, tmp_path / "log.txt", folder=tmp_path / "stopped")
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL, (tmp_path / "log.txt").read_text()
    (RUN / "metrics.csv").unlink()
    leftover = RUN / "checkpoints" / ".best.ckpt.part"
    leftover.write_bytes(b"half of one")
    with pytest.warns(UserWarning, match=r"metrics\.csv is missing: its \d+ rows up to the resume point"):
        resume()
    found = left(Path("runs"))
    # of the step of the resume point, logged after it was written
    lost = set(expected["cut/version_0/metrics.csv"].split()) - set(found["cut/version_0/metrics.csv"].split())
    assert len(lost) == 1
    assert not leftover.exists()
    assert_same(found | {"cut/version_0/metrics.csv": None}, expected | {"cut/version_0/metrics.csv": None})


@pytest.mark.slow
@pytest.mark.parametrize(("epoch", "batch"), [(1, 2), (0, 2), (1, 5)])
def test_after_a_time_limit(epoch: int, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cut epoch is not validated; one whose last batch ended is."""
    expire = callback("tests.cli.resume.cut_runs.Expire", hook="on_train_batch_start", epoch=epoch, batch=batch)
    callbacks, limit = [LAST, BEST, expire], "00:01:00:00"
    expected = alone(tmp_path / "alone", callbacks, monkeypatch, max_time=limit)
    arguments = recipe(tmp_path / "stopped", callbacks, max_time=limit, every_n_steps=100)
    monkeypatch.chdir(tmp_path / "stopped")
    light_fuse()
    main(arguments)
    names = sorted(path.name for path in (RUN / "checkpoints").iterdir())
    validated = epoch + (batch == 5)
    assert names == (["best.ckpt", f"last-epoch={validated - 1}.ckpt"] if validated else ["last.ckpt"])
    rows = (RUN / "metrics.csv").read_text().splitlines()
    epochs = [row["epoch"] for row in csv.DictReader(rows) if row.get("val/cross_entropy")]
    assert epochs == ["0", "1"][:validated]
    resume("--trainer.max_time=09:00:00:00")
    assert_same(left(Path("runs")), expected)
