"""Inputs from columns of a table, against pandas and NumPy; what was fitted is plain values."""

import json
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data.table_columns import Columns, read_columns
from lit_bottleneck.data.table_inputs import InputEncoding, check_inputs, check_mixed


def table(rows: int = 60, seed: int = 0) -> pd.DataFrame:
    """Numbers with and without missing values, a constant, and text with rare and missing categories."""
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "a": generator.normal(5e3, 200, rows),
            "city": generator.choice(["Rome", "Oslo", "Lima"], rows),
            "b": generator.exponential(1e-3, rows),
            "one": np.full(rows, 3),
            "flag": generator.choice([True, False], rows),
        }
    )
    frame.loc[generator.choice(rows, 7, replace=False), "b"] = np.nan
    frame.loc[[3, 5], "city"] = None
    frame.loc[4, "city"] = "Atlantis"
    return frame


def by_pandas(frame: pd.DataFrame, train: pd.DataFrame) -> np.ndarray:
    """The inputs of ``frame``, by statistics of ``train``, with pandas alone; Atlantis is in one training row only."""
    columns = []
    for name in ("a", "b", "one"):
        filled = train[name].fillna(train[name].median())
        scale = filled.std(ddof=0) or 1.0
        columns.append((frame[name].fillna(train[name].median()) - filled.mean()) / scale)
    columns.append(frame["b"].isna())
    cities, flags = frame["city"].fillna(""), frame["flag"]
    known = ["", "Lima", "Oslo", "Rome"]
    columns += [cities == city for city in known] + [~flags, flags]
    columns += [~cities.isin(known), flags.isna()]
    return np.stack([column.to_numpy(np.float64) for column in columns], 1)


def test_inputs_equal_those_of_pandas() -> None:
    train, other = table(), table(20, seed=1)
    encoding = InputEncoding.fit(read_columns(train), min_frequency=2)
    for frame in (train, other):
        x = encoding.encode(read_columns(frame))
        assert x.dtype == torch.float32
        np.testing.assert_allclose(x.numpy(), by_pandas(frame, train), rtol=1e-6, atol=1e-6)
    assert encoding.feature_names == (
        *("a", "b", "one", "b missing"),
        *("city=", "city=Lima", "city=Oslo", "city=Rome", "flag=False", "flag=True", "city unknown", "flag unknown"),
    )


def test_what_was_fitted_goes_through_plain_values() -> None:
    columns = read_columns(table())
    encoding = InputEncoding.fit(columns, min_frequency=2)
    copy = InputEncoding(**json.loads(json.dumps(encoding.state())))
    assert copy == encoding
    assert torch.equal(copy.encode(columns), encoding.encode(columns))


def test_numbers_alone_and_text_alone() -> None:
    columns = read_columns(table())
    for names, width in ((["a", "b"], 3), (["city", "flag"], 8)):
        part = {name: columns[name] for name in names}
        encoding = InputEncoding.fit(part, min_frequency=2)
        assert encoding.encode(part).shape == (60, width) == (60, len(encoding.feature_names))


def test_a_missing_value_where_none_was_missing_is_the_median_and_an_unseen_category_is_unknown() -> None:
    encoding = InputEncoding.fit(read_columns(table()), min_frequency=2)
    row = pd.DataFrame({"a": [None], "city": ["Paris"], "b": [None], "one": [3], "flag": ["maybe"]})
    [x] = encoding.encode(read_columns(row))
    train = table()
    expected = (train["a"].median() - train["a"].mean()) / train["a"].std(ddof=0)
    assert x[0].item() == pytest.approx(expected, rel=1e-5)
    assert x[3:].tolist() == [1, 0, 0, 0, 0, 0, 0, 1, 1]


def test_categories_are_read_from_numbers_and_numbers_from_text() -> None:
    columns = read_columns({"grade": ["1", "2", "x", "1", "2", "x"], "n": [1, 2, 3, 4, 5, 6]})
    encoding = InputEncoding.fit(columns, min_frequency=1)
    swapped: Columns = read_columns({"grade": [2, 1], "n": ["4", ""]}) | {"n": np.array(["4", ""], dtype=object)}
    x = encoding.encode(swapped)
    assert x[:, 1:].tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]
    assert x[0, 0].item() == pytest.approx(0.5 / np.std(range(6)))
    assert x[1, 0].item() == 0  # the median is the mean here


@pytest.mark.parametrize("min_frequency", [1, 2, 3])
def test_rare_categories_train_the_unknown_column(min_frequency: int) -> None:
    texts = ["a", "b", "b", "c", "c", "c", ""]
    columns = read_columns({"t": texts, "n": range(7)})
    encoding = InputEncoding.fit(columns, min_frequency)
    known = [text for text in ("", "a", "b", "c") if texts.count(text) >= min_frequency]
    assert encoding.categories == {"t": known}
    assert encoding.encode(columns)[:, -1].tolist() == [text not in known for text in texts]


def test_of_many_categories_the_most_frequent_are_known() -> None:
    texts = ["d", "b", "b", "c", "c", "c", "a", "long " * 1000]
    encoding = InputEncoding.fit(read_columns({"t": texts}), min_frequency=1, max_categories=3)
    assert encoding.categories == {"t": ["a", "b", "c"]}
    assert encoding.encode(read_columns({"t": texts}))[:, -1].tolist() == [1, 0, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [np.nan, np.nan], "b": [1, 2]}, "column 'a' has no value in the training rows: leave it out"),
        ({"id": ["u", "v", "w"]}, "column 'id' has 3 categories in 3 training rows, .*ignore="),
    ],
)
def test_columns_that_nothing_is_learned_from(columns: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        InputEncoding.fit(read_columns(columns), min_frequency=1)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [1, np.inf]}, "column 'a' must hold numbers up to 1e.150; got inf in row 1"),
        ({"a": [-1e200, 1]}, re.escape("column 'a' must hold numbers up to 1e+150; got -1e+200 in row 0")),
        ({"a": [1, None, None], "t": ["x", "", ""]}, "2 rows have no value in any column, such as row 1: leave them"),
    ],
)
def test_infinite_values_and_rows_without_any(columns: Any, message: str) -> None:
    columns = read_columns(columns)
    with pytest.raises(ConfigurationError, match=message):
        check_inputs(columns)
    encoding = InputEncoding.fit(read_columns({"a": [1, 2, 3], "t": ["x", "x", "y"]}), min_frequency=1)
    with pytest.raises(ConfigurationError, match=message):
        encoding.encode({"t": read_columns({"t": ["x"] * 3})["t"][: len(columns["a"])]} | columns)


def test_a_value_too_far_from_the_training_rows_for_float32() -> None:
    encoding = InputEncoding.fit(read_columns({"a": [0, 1e-30, 2e-30]}), min_frequency=1)
    with pytest.raises(ConfigurationError, match=r"column 'a' has 1\.\d*e\+50 in row 1, .* too much for float32"):
        encoding.encode(read_columns({"a": [1e-30, 1e20]}))


def test_numbers_with_text_among_them() -> None:
    columns = read_columns({"age": ["31", "?", "47", "31"], "size": ["1", "2", "3+", "S"]})
    with pytest.raises(ConfigurationError, match=r"'age' mixes numbers and text such as '\?': .*categorical=\['age'\]"):
        check_mixed({"age": columns["age"]}, [])
    check_mixed(columns, ["age", "size"])
    check_mixed(read_columns({"t": ["a", "b", "1"], "zip": ["01", "02", ""], "n": [1, 2, 3]}), [])
