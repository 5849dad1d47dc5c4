"""Start-up: the seconds of processes, and the rows with commands that do nothing in place of the true ones."""

from pathlib import Path

import pytest

from tests.benchmarks import start_up
from tests.benchmarks.start_up import above, alone, first_step, rows, spent
from tests.benchmarks.timing import Row


def test_a_process_is_timed_and_one_that_fails_is_told() -> None:
    assert 0 < spent("-c", "pass") < spent("-c", "sum(range(10**7))")
    assert spent("-c", "raise SystemExit(2)") > 0
    with pytest.raises(RuntimeError, match=r"raise ValueError(?s:.*)ValueError: why"):
        spent("-c", "raise ValueError('why')")


def test_rows_of_seconds_and_of_differences() -> None:
    assert alone("name", [0.2, 0.4, 0.3], 0.5) == Row(
        "start-up: name, seconds", 300.0, ratio=0.3, quartiles=(0.25, pytest.approx(0.35)), bar=0.5
    )
    row = above("name", [(5.0, 4.0), (7.0, 5.0), (9.0, 6.0)], 2.0)
    assert (row.ours, row.other, row.ratio, row.quartiles, row.bar) == (7000.0, 5000.0, 2.0, (1.5, 2.5), 2.0)


def test_each_row_has_its_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COMMAND", "LIGHTNING", "MODELS"):
        monkeypatch.setattr(start_up, name, ("-c", "sum(range(10**5))"))
    found = list(rows(Path(), rounds=2))
    assert [row.bar for row in found] == [0.5] * 5 + [1.2, 0.3, 2.0, 1.15]
    assert all(row.ratio is not None and row.ours > 0 for row in found)
    assert len({row.name for row in found}) == 9


@pytest.mark.slow
def test_a_training_ends_after_its_first_step() -> None:
    assert first_step() > 0
