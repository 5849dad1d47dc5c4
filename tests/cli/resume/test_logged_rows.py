"""The logged rows that a continued run keeps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger

from lit_bottleneck.cli.logged_rows import keep_logged, logged_until, rows_of, rows_until
from tests import quiet

HEAD = "epoch,loss,step\n"


@pytest.mark.parametrize(
    ("text", "until", "kept"),
    [
        (f"{HEAD}0,0.5,18\n0,,19\n0,0.4,19\n0,0.3,20\n", 19, ["18", "19", "19"]),
        (f"{HEAD}0,0.5,0.0\n0,0.4,1.0\n", 0, ["0.0"]),  # a model's own "step"
        (f"{HEAD}0,0.5,18\n0,0.4,3\n", 30, ["18"]),  # of a future that is run again
    ],
)
def test_rows_of_later_steps_are_not_kept(text: str, until: int, kept: list[str]) -> None:
    rows, is_damaged = rows_of(text)
    assert [row["step"] for row in rows_until(rows, until)] == kept
    assert not is_damaged
    assert [row["step"] for row in rows_until(rows, until=-1, at_least=2)] == [row["step"] for row in rows[:2]]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"{HEAD}0,0.5,18\n0,0.4,19", ["18"]),  # perhaps 190
        (f"{HEAD}0,0.5,18\n0,", ["18"]),
        (f"{HEAD}0,0.5,18\n0,0.4\n0,0.3,20\n", ["18"]),
        (f"{HEAD}0,0.5,18\n0,0.\0\0\0\0\0\n0,0.3,20\n", ["18"]),
        (f"{HEAD}0,0.5,18\n0,0.4,19,0.3\n", ["18"]),
        (f"{HEAD}0,0.5,18\n0,0.4,nan\n", ["18"]),
        ("0,0.5,18\n0,0.4,19\n", []),
        ("\0" * 40, []),
        (HEAD[:9], []),
    ],
)
def test_rows_are_read_up_to_the_first_that_is_damaged(text: str, kept: list[str]) -> None:
    rows, is_damaged = rows_of(text)
    assert [row["step"] for row in rows] == kept
    assert is_damaged


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "no header": lambda file: file.write_text(file.read_text().partition("\n")[2]),
    "zeros": lambda file: file.write_bytes(file.read_bytes()[:-30] + b"\0" * 30),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_a_file_lacks_is_restored_from_the_checkpoint_and_told(damage: str, tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    file.write_text(f"{HEAD}0,0.5,17\n0,0.4,18\n")
    saved = file.read_text()
    DAMAGE[damage](file)
    loggers = [CSVLogger(tmp_path / "other"), CSVLogger(tmp_path, name="", version="")]
    with pytest.warns(UserWarning, match=r"metrics\.csv is (damaged|missing): its 2 rows up to the resume point"):
        keep_logged(quiet.trainer(logger=loggers), until=18, saved=[None, saved])
    assert file.read_text().split() == saved.split()
    assert [path.name for path in tmp_path.glob("metrics.*")].count("metrics.damaged.csv") == (damage != "missing")


def test_a_test_keeps_what_it_can_read(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    file.write_text(f"{HEAD}0,0.5,17\n0,0.4,1")
    with pytest.warns(UserWarning, match=r"is damaged: its first 1 rows are kept"):
        keep_logged(quiet.trainer(logger=CSVLogger(tmp_path, name="", version="")))
    assert file.read_text().split() == [*HEAD.split(), "0,0.5,17"]
    assert (tmp_path / "metrics.damaged.csv").read_text().endswith("0,0.4,1")


def test_the_count_of_steps_is_one_ahead_after_the_end_of_an_epoch() -> None:
    def loop(processed: int, completed: int) -> dict[str, Any]:
        progress = {"current": {"started": 2, "processed": processed, "completed": completed}}
        return {"epoch_progress": progress, "epoch_loop.state_dict": {"_batches_that_stepped": 22}}

    assert logged_until(loop(processed=1, completed=1)) == 22
    assert logged_until(loop(processed=2, completed=1)) == logged_until(loop(processed=2, completed=2)) == 21
