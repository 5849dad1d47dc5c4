"""Means, spreads and paired intervals, compared with scipy."""

import csv
import io
import math

import numpy as np
import pytest
from scipy import stats

from lit_bottleneck.cli.compare.table import markdown_table, paired_difference, values_csv


def test_the_interval_equals_that_of_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    reference, arm = rng.normal(size=7), rng.normal(1.0, 2.0, size=7)
    interval = stats.ttest_rel(arm, reference).confidence_interval(0.95)
    mean, low, high = paired_difference(dict(enumerate(arm)), dict(enumerate(reference)))
    assert [mean, low, high] == pytest.approx([(arm - reference).mean(), interval.low, interval.high])


def test_only_common_seeds_are_paired() -> None:
    difference = paired_difference({0: 1.0, 1: 5.0, 2: math.nan, 3: 2.0}, {3: 1.0, 2: 1.0, 0: 0.0})
    assert difference == pytest.approx((1.0, 1.0, 1.0))
    assert all(map(math.isnan, paired_difference({0: 1.0}, {1: 1.0})))


def test_one_seed_has_a_difference_and_no_interval() -> None:
    mean, low, high = paired_difference({0: 3.0}, {0: 1.0})
    assert mean == 2.0
    assert math.isnan(low)
    assert math.isnan(high)


def test_an_infinite_value_is_shown_and_leaves_other_cells_intact() -> None:
    lines = markdown_table(["x"], {"a": [{0: math.inf, 1: 1.0}], "b": [{0: 1.0, 1: 2.0}]}).splitlines()
    assert lines[2:] == ["| x | a | inf |  |", "| x | b | 1.5 (0.71) | - |"]


def test_the_table_holds_means_spreads_differences_and_missing_values() -> None:
    arms = {"vib": [{0: 0.5, 1: 0.7}], "plain": [{0: 0.6, 1: 0.8}], "broken": [{}], "half": [{1: 0.9}]}
    lines = markdown_table(["accuracy"], arms).splitlines()
    assert lines[0] == "| metric | arm | mean | minus vib |"
    assert lines[2] == "| accuracy | vib | 0.6 (0.14) |  |"
    assert lines[3] == "| accuracy | plain | 0.7 (0.14) | +0.1 [+0.1, +0.1], n=2 |"
    assert lines[4] == "| accuracy | broken | - | - |"
    assert lines[5] == "| accuracy | half | 0.9, n=1 | +0.2, n=1 |"


def test_a_difference_states_the_seeds_that_both_arms_have() -> None:
    """Both arms have two values and no n of their own; one seed is common: 5 - 2 = 3, of n = 1."""
    lines = markdown_table(["x"], {"a": [{0: 1.0, 1: 2.0}], "b": [{1: 5.0, 2: 7.0}]}).splitlines()
    assert lines[3] == "| x | b | 6 (1.4) | +3, n=1 |"


def test_a_single_arm_has_no_difference_column() -> None:
    lines = markdown_table(["rate"], {"all": [{0: 1.0}]}).splitlines()
    assert lines[::2] == ["| metric | arm | mean |", "| rate | all | 1 |"]


def test_the_csv_holds_every_value() -> None:
    rows = list(csv.reader(io.StringIO(values_csv(["a", "b"], {"x": [{0: 1.0, 2: 3.0}, {0: 2.0}]}))))
    assert rows == [["arm", "seed", "a", "b"], ["x", "0", "1.0", "2.0"], ["x", "2", "3.0", "nan"]]
