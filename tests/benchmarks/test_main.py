"""The program: the rows it is asked for, as a table and a file."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks import __main__, data, text
from tests.benchmarks.timing import Row


def test_rows_are_printed_and_kept_though_a_later_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def rows(root: Path) -> Iterator[Row]:
        yield Row(f"of {root}", 1.0, 2.0, 0.5, (0.4, 0.6), bar=0.45)

    def fails(root: Path) -> Iterator[Row]:
        raise OSError("no data")

    monkeypatch.setattr(data, "rows", rows)
    monkeypatch.setattr(text, "rows", fails)
    monkeypatch.setattr(__main__, "_settle", lambda: None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(sys, "argv", ["", "--root", "folder", "--only", "data", "text", "--json", str(tmp_path / "a")])
    with pytest.raises(OSError, match="no data"):
        __main__.main()
    line = " ".join(capsys.readouterr().out.splitlines()[1].split())
    assert line == "of folder 1 ms 2 ms 0.500 0.400-0.600 0.45 missed"
    [row] = json.loads((tmp_path / "a").read_text())
    assert row["name"] == "of folder"
    assert row["quartiles"] == [0.4, 0.6]
