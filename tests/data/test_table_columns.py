"""Columns by name from files, frames, arrays and bundled sets, against pandas, NumPy and scikit-learn."""

import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data.downloads import MissingDataError
from lit_bottleneck.data.table_columns import as_numbers, as_text, read_columns, reads_as_number

FRAME = pd.DataFrame(
    {
        "age": [31, 47, 25],
        "height": [1.75, None, 1.6],
        "city": ["Rome", None, "Oslo"],
        "smokes": [True, False, True],
        "code": ["1", "A", "2"],
    }
)


def assert_equal(columns: dict[str, Any], expected: dict[str, list[Any]]) -> None:
    assert list(columns) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(columns[name], np.array(values, dtype=columns[name].dtype))


EXPECTED = {
    "age": [31.0, 47.0, 25.0],
    "height": [1.75, math.nan, 1.6],
    "city": ["Rome", "", "Oslo"],
    "smokes": ["True", "False", "True"],
    "code": ["1", "A", "2"],
}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".parquet"])
def test_files_are_read_as_the_frame_that_wrote_them(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"table{suffix}"
    if suffix == ".parquet":
        FRAME.to_parquet(path)
    else:
        FRAME.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    for source in (path, str(path), FRAME):
        assert_equal(read_columns(source), EXPECTED)


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        (pd.Series([1, None, 3], dtype="Int64"), [1.0, math.nan, 3.0]),
        (pd.Series([0.5, None], dtype="Float32"), [0.5, math.nan]),
        (pd.Series([True, None], dtype="boolean"), ["True", ""]),
        (pd.Series([True, None], dtype=object), ["True", ""]),
        (pd.Series(["a", None], dtype="category"), ["a", ""]),
        (pd.Series([2, 1], dtype="category"), [2.0, 1.0]),
        (pd.Series([" a", pd.NA], dtype="string"), ["a", ""]),
        (pd.Series([1, "a", None], dtype=object), ["1", "a", ""]),
        (pd.Series([1, 2.5, None], dtype=object), [1.0, 2.5, math.nan]),
        (pd.Series([None, None], dtype=object), [math.nan, math.nan]),
    ],
)
def test_types_of_pandas(series: pd.Series, expected: list[Any]) -> None:
    assert_equal(read_columns(pd.DataFrame({"x": series})), {"x": expected})


def test_arrays_by_name_one_array_and_a_structured_one() -> None:
    x = np.arange(6, dtype=np.int32).reshape(3, 2)
    assert_equal(read_columns(x), {"x0": [0, 2, 4], "x1": [1, 3, 5]})
    assert_equal(
        read_columns({"f": x, "y": np.array(["a", "b", ""])}), {"f0": [0, 2, 4], "f1": [1, 3, 5], "y": ["a", "b", ""]}
    )
    masked = np.ma.array([1.5, 2.5, 3.5], mask=[False, True, False])
    assert_equal(read_columns({"m": masked}), {"m": [1.5, math.nan, 3.5]})
    structured = np.array([(1, "u"), (2, "v")], dtype=[("n", np.int64), ("s", "U1")])
    assert_equal(read_columns(structured), {"n": [1.0, 2.0], "s": ["u", "v"]})


def test_bundled_sets_are_those_of_scikit_learn_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    diabetes, cancer = read_columns("diabetes"), read_columns("breast_cancer")
    raw = load_diabetes(scaled=False)
    np.testing.assert_array_equal(np.stack([diabetes[name] for name in raw.feature_names], 1), raw.data)
    np.testing.assert_array_equal(diabetes["target"], raw.target)
    bunch = load_breast_cancer()
    np.testing.assert_array_equal(np.stack([cancer[name] for name in bunch.feature_names], 1), bunch.data)
    assert [text == "benign" for text in cancer["target"]] == (bunch.target == 1).tolist()


def test_columns_named_as_text_keep_their_zeros(tmp_path: Path) -> None:
    path = tmp_path / "zip.csv"
    path.write_text("zip,n\n01,1\n 007,2\n,3\n")
    assert_equal(read_columns(path), {"zip": [1.0, 7.0, math.nan], "n": [1, 2, 3]})
    assert_equal(read_columns(path, texts=["zip", "other"]), {"zip": ["01", "007", ""], "n": [1, 2, 3]})
    assert_equal(read_columns({"zip": [1, None, 2.5]}, texts=["zip"]), {"zip": ["1", "", "2.5"]})


def test_numbers_and_text_of_one_another() -> None:
    numbers = np.array([1.0, -2.5, math.nan])
    np.testing.assert_array_equal(as_numbers("x", as_text(numbers)), numbers)
    with pytest.raises(ConfigurationError, match="column 'x' must hold numbers; got 'old' in row 1"):
        as_numbers("x", np.array(["1", "old"], dtype=object))
    assert [reads_as_number(text) for text in ("1", "1e3", "-.5", "", "1,5", "x")] == [True] * 3 + [False] * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no table of csv: No columns"),
        ("a,b\n", "has no rows"),
        ("a,b,a\n1,2,3\n", "has several columns of the name 'a'"),
        (",a\n0,1\n1,2\n", "has 1 columns without a name: .*index=False"),
        ("a,b\n1,2,3\n4,5,6\n", "has rows with more values than the 2 names"),
        ("a,b\n1,2\n1,2,3\n", "is no table of csv: .*Expected 2 fields in line 3"),
        (b"a\n\xff\xfe\n", "is no table of csv: .*codec"),
    ],
)
def test_a_csv_file_that_is_none_is_refused(text: str | bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigurationError, match=f"^{re.escape(str(path))} {message}"):
        read_columns(path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (pd.DataFrame({"t": pd.to_datetime(["2020-01-01"])}), "column 't' holds datetime64.* neither numbers nor text"),
        (pd.DataFrame({"v": [[1, 2], [3]]}), "column 'v' holds a list, no number or text: leave it out"),
        (
            pd.DataFrame({"t": pd.to_datetime(["2020-01-01"]).tz_localize("UTC")}),
            "column 't' holds a Timestamp, no number or text",
        ),
        ({"z": np.array([1j])}, "column 'z' holds complex128"),
        ({"a": [1, 2], "b": [1]}, re.escape("columns must have as many rows each; got {'a': 2, 'b': 1}")),
        ({"x": np.zeros((2, 1)), "x0": [1, 2]}, "several columns of the name 'x0'"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "the frame has several columns of the name 'a'"),
        ({"x": np.zeros((2, 2, 2))}, re.escape("got 'x' of the shape (2, 2, 2)")),
        ({}, "the table has no rows"),
        (pd.DataFrame({"a": []}), "the frame has no rows"),
        (None, re.escape("got 'x' of the shape ()")),
    ],
)
def test_a_table_that_is_none_is_refused(source: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_columns(source)


def test_files_that_are_not_there_or_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"none.csv does not exist; path must be .*'breast_cancer'"):
        read_columns(tmp_path / "none.csv")
    with pytest.raises(MissingDataError, match="is a folder"):
        read_columns(tmp_path)
    (tmp_path / "table.xlsx").write_text("")
    with pytest.raises(ConfigurationError, match=r"a table must be a file that ends in .csv, .tsv, .parquet; got"):
        read_columns(tmp_path / "table.xlsx")
    (tmp_path / "bad.parquet").write_text("no parquet")
    with pytest.raises(ConfigurationError, match=r"bad.parquet is no table of parquet"):
        read_columns(tmp_path / "bad.parquet")


@pytest.mark.parametrize(
    ("suffix", "missing", "message"),
    [
        (".csv", "pandas", "needs pandas: pip install 'lit_bottleneck.table.'"),
        (".parquet", "pyarrow", "needs pandas and pyarrow: pip install 'lit_bottleneck.table.'"),
    ],
)
def test_a_package_that_is_not_installed_is_named(
    suffix: str, missing: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"table{suffix}"
    FRAME.to_csv(path) if suffix == ".csv" else FRAME.to_parquet(path)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError, match=message):
        read_columns(path)
