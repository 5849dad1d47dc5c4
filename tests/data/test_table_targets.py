"""Targets from columns of a table, against pandas; targets that the task does not fit."""

import json
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data.table_columns import read_columns
from lit_bottleneck.data.table_targets import TargetEncoding


def fit(task: str, columns: Any, rows: Any = None, standardize: bool = True) -> TargetEncoding:
    read = read_columns(columns)
    rows = np.arange(len(next(iter(read.values())))) if rows is None else np.array(rows)
    return TargetEncoding.fit(task, read, rows, standardize)


def test_regression_targets_are_standardised_by_the_training_rows() -> None:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"y": generator.normal(1e4, 3, 50), "z": generator.exponential(2, 50)})
    encoding = fit("regression", frame, range(30))
    train = frame.iloc[:30]
    expected = (frame - train.mean()) / train.std(ddof=0)
    y = encoding.encode(read_columns(frame))
    assert y.dtype == torch.float32
    np.testing.assert_allclose(y.numpy(), expected.to_numpy(), rtol=1e-5, atol=1e-6)
    assert TargetEncoding(**json.loads(json.dumps(encoding.state()))) == encoding


def test_targets_in_their_units() -> None:
    y = fit("regression", {"n": [0, 3, 7]}, standardize=False).encode(read_columns({"n": [0, 3, 7]}))
    assert y.tolist() == [[0], [3], [7]]


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["b", "a", "b"], ["a", "b"]),
        ([10, 9, 9, 10], ["9", "10"]),
        ([-1.0, 1.0, 1.0], ["-1", "1"]),
        ([True, False, True], ["False", "True"]),
        (["x", "2", "10", "2"], ["2", "10", "x"]),
    ],
)
def test_classes_are_numbered_in_their_order(values: list[Any], classes: list[str]) -> None:
    encoding = fit("classification", {"y": values}, rows=[0])
    labels = encoding.encode(read_columns({"y": values}))
    assert encoding.classes == classes
    assert labels.dtype == torch.int64
    assert [classes[label] for label in labels] == [str(value).removesuffix(".0") for value in values]


def test_several_labels() -> None:
    columns = {"p": [0, 1, 1], "q": [True, False, True], "r": ["1", "0", "0"]}
    y = fit("multilabel", columns | {"r": [1, 0, 0]}).encode(read_columns(columns | {"r": [1, 0, 0]}))
    assert (y.dtype, y.tolist()) == (torch.int64, [[0, 1, 1], [1, 0, 0], [1, 1, 0]])


@pytest.mark.parametrize(
    ("task", "values", "message"),
    [
        ("regression", [2, 2, 2], "target 'y' is constant, 2 in all 3 rows"),
        ("regression", ["low", "high", "low"], "target 'y' holds text, such as 'low': task='classification' reads"),
        ("regression", [True, False, True], "target 'y' holds text, such as 'True'"),
        ("regression", [1, np.inf, 2], "target 'y' must have a finite value in each row; got inf in row 1"),
        ("regression", [1, 2, None], r"got no value in row 2 \(1 such rows\)"),
        ("regression", [1, 2, 1e40], r"target 'y' has a standard deviation of 4.71\d*e\+39: give it in other units"),
        ("regression", [1, 2, 1e200], r"got 1e\+200 in row 2"),
        ("classification", ["a", "", "b"], "'y' must have a finite value in each row; got no value in row 1"),
        ("classification", [1, -np.inf, 2], "got -inf in row 1"),
        ("classification", ["a", "a", "a"], "target 'y' is constant, 'a' in all rows"),
        ("classification", ["a", "b", "c"], "target 'y' has 3 classes in 3 rows: .*task='regression'"),
        ("classification", [0, 0.5, 1], "needs a target of whole numbers or text; got 0.5 in 'y'; task='regression'"),
        ("multilabel", [1, 1, 1], "target 'y' is constant, 1 in all 3 rows"),
        ("multilabel", [0, 2, 1], "needs targets of 0 and 1; got 2 in 'y'"),
        ("multilabel", ["a", "b", "a"], "target 'y' holds text, such as 'a': write 0 and 1"),
        ("multilabel", [0, None, 1], "got no value in row 1"),
    ],
)
def test_targets_that_the_task_does_not_fit(task: str, values: list[Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        fit(task, {"y": values})


def test_targets_too_large_for_float32() -> None:
    encoding = fit("regression", {"y": [0, 1, 2]}, standardize=False)
    with pytest.raises(ConfigurationError, match=r"column 'y' has 1e\+50 in row 1, .* too much for float32"):
        encoding.encode(read_columns({"y": [1, 1e50]}))


def test_a_class_that_the_checkpoint_has_not() -> None:
    encoding = fit("classification", {"y": ["a", "b", "a"]})
    with pytest.raises(ConfigurationError, match=re.escape("must be one of the classes ['a', 'b']; got 'c'")):
        encoding.encode(read_columns({"y": ["a", "c"]}))
