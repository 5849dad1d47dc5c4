"""Properties that all metrics share: batches, merging, pickling, casts and the global random state change no result."""

import pickle
import random

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn
from torchmetrics import Metric

from lit_bottleneck import metrics
from lit_bottleneck.metrics.code_metric import CodeMetric
from lit_bottleneck.metrics.mode_coverage import mode_coverage
from lit_bottleneck.metrics.path_quality import path_quality
from tests.metrics import cases
from tests.metrics.cases import CASES, LOG_VAR, MEAN, ROWS, Case, default_dtype, fed, results

EACH = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def assert_same(found: Metric, expected: Metric) -> None:
    rtol = 1e-12 if isinstance(found, CodeMetric) else 2e-6
    torch.testing.assert_close(results(found), results(expected), rtol=rtol, atol=rtol)


def assert_equal(found: Metric, expected: Metric) -> None:
    torch.testing.assert_close(results(found), results(expected), rtol=0, atol=0)


@EACH
def test_results_depend_neither_on_batches_and_their_order_nor_on_earlier_rows(case: Case) -> None:
    whole, order = fed(case, slice(None)), torch.randperm(ROWS, generator=torch.Generator().manual_seed(1))
    metric = fed(case, slice(20))
    metric.reset()
    assert_same(fed(case, *order.split(17), order[:0], metric=metric), whole)


@EACH
def test_merged_states_are_those_of_all_rows_and_forget_earlier_results(case: Case) -> None:
    whole, first, second = fed(case, slice(None)), fed(case, slice(25)), fed(case, slice(25, None))
    second.compute()
    second.merge_state(first)
    torch.testing.assert_close(second.compute(), whole.compute())
    assert_same(second, whole)
    second.merge_state(case.make())
    assert_same(second, whole)
    fresh = case.make()
    fresh.merge_state(second.metric_state)
    fed(case, slice(0), metric=fresh)
    assert_same(fresh, whole)
    assert_same(second, whole)


@EACH
@pytest.mark.parametrize("cast", ["half", "bfloat16", "to", "set_dtype", "default"])
def test_casts_and_a_default_dtype_of_bfloat16_round_nothing(case: Case, cast: str) -> None:
    model = nn.ModuleDict({"metric": fed(case, slice(25))})
    with default_dtype(torch.bfloat16 if cast == "default" else torch.float32):
        if cast == "to":
            model.to(torch.bfloat16)
        elif cast == "set_dtype":
            model["metric"].set_dtype(torch.float16)
        elif cast == "default":
            model.to("cpu")
        else:
            getattr(model, cast)()
        metric = fed(case, slice(25, None), metric=model["metric"])
        found = metric.compute()
        assert metric.dtype == torch.float64
    expected = fed(case, slice(25), slice(25, None))
    torch.testing.assert_close(found, expected.compute(), rtol=0, atol=0)
    assert_equal(metric, expected)


@EACH
def test_metrics_are_pickled_with_their_states(case: Case) -> None:
    metric = pickle.loads(pickle.dumps(fed(case, slice(25))))
    assert_equal(fed(case, slice(25, None), metric=metric), fed(case, slice(25), slice(25, None)))


@EACH
def test_results_are_float32_without_a_graph_and_the_random_states_are_left_alone(case: Case) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]
    found = fed(case, slice(None)).compute()
    for value in found.values() if isinstance(found, dict) else [found]:
        assert value.dtype == torch.float32
        assert not value.requires_grad
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # type: ignore[index]
    assert random.getstate() == before[2]


@EACH
def test_results_can_be_plotted(case: Case) -> None:
    metric, axes = fed(case, slice(None)), Figure().add_subplot()
    found = metric.compute()
    assert metric.plot(ax=axes)[1] is axes
    assert len(axes.lines) == (len(found) if isinstance(found, dict) else 1)


def test_rows_of_another_layout_are_refused_and_leave_no_trace() -> None:
    for case, other, message in (
        (CASES["rate"], (MEAN[:, :2], LOG_VAR[:, :2]), "codes of 2 dimensions and codes of 3 dimensions"),
        (CASES["mig"], (MEAN, cases.NUMBERS), "codes of 3 dimensions with 2 numbers and .* with 2 classes"),
        (CASES["kernel"], (MEAN[:, :2], True), r"features \(B, 2\) and features \(B, 3\)"),
    ):
        metric, another = fed(case, slice(None)), case.make()
        with pytest.raises(ValueError, match=f"all batches, on all processes, must be alike; got {message}"):
            metric.update(*other)
        another.update(*other)
        with pytest.raises(ValueError, match=f"must be alike; got {message}"):
            metric.merge_state(another)
        with pytest.raises(ValueError, match="Expected incoming state to be an instance of"):
            metric.merge_state(metrics.ELBO())
        assert_equal(metric, fed(case, slice(None)))


def test_functions_return_what_their_metrics_do() -> None:
    of_paths = path_quality(cases.LOGS, cases.PATHS, cases.ENDS)
    torch.testing.assert_close(fed(CASES["paths"], slice(None)).compute(), of_paths)
    torch.testing.assert_close(fed(CASES["coverage"], slice(None)).compute(), mode_coverage(MEAN, cases.MODES, 0.5))
