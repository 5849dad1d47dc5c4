"""Properties that all metrics of codes share: batches and their order change nothing, invalid codes are refused."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics import MetricCollection

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.code import gaussian_code
from lit_bottleneck.metrics.class_conditional_total_correlation import ClassConditionalTotalCorrelation
from lit_bottleneck.metrics.code_metric import CodeMetric
from lit_bottleneck.metrics.marginal_moments import MarginalMoments
from lit_bottleneck.metrics.mutual_information import MutualInformation
from lit_bottleneck.metrics.rate import Rate
from tests.metrics.cases import CASES

Codes = tuple[Tensor, ...]

METRICS: list[Any] = [
    CASES[name].make for name in ("rate", "moments", "information", "information of some", "by class")
]
EACH = pytest.mark.parametrize("make", METRICS)


def codes(n: int, *shape: int, seed: int = 0) -> Codes:
    """Codes far from zero, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    mean, raw = (torch.randn(n, *(shape or (3,)), generator=generator) for _ in range(2))
    return 5 + mean, raw - 1, torch.arange(n) % 2


def taken(metric: CodeMetric, batch: Codes) -> Codes:
    """What the metric takes of a batch: its classes only if it needs them."""
    return batch if isinstance(metric, ClassConditionalTotalCorrelation) else batch[:2]


def fed(metric: CodeMetric, *batches: Codes) -> CodeMetric:
    for batch in batches:
        metric.update(*taken(metric, batch))
    return metric


def part(all_codes: Codes, rows: Any) -> Codes:
    return tuple(tensor[rows] for tensor in all_codes)


def assert_same(found: CodeMetric, expected: CodeMetric, rtol: float = 1e-12) -> None:
    torch.testing.assert_close(found.in_float64(), expected.in_float64(), rtol=rtol, atol=1e-14)


@EACH
@settings(max_examples=20)
@given(cuts=st.lists(st.integers(0, 40), max_size=6), order=st.permutations(range(40)))
def test_batches_and_their_order_change_nothing(
    make: Callable[[], CodeMetric], cuts: list[int], order: list[int]
) -> None:
    whole = codes(40)
    shuffled = part(whole, order)
    ends = [0, *sorted(cuts), 40]
    batches = [part(shuffled, slice(*pair)) for pair in pairwise(ends)]
    assert_same(fed(make(), *batches), fed(make(), whole))


@EACH
def test_forward_returns_the_result_of_the_batch_and_adds_it(make: Callable[[], CodeMetric]) -> None:
    whole, metric = codes(40), make()
    for rows in (slice(25), slice(25, None)):
        batch = part(whole, rows)
        torch.testing.assert_close(metric(*taken(metric, batch)), fed(make(), batch).compute())
    assert_same(metric, fed(make(), whole))
    assert sum(map(len, metric.rows)) == sum(map(len, fed(make(), whole).rows))  # no row for each batch


@EACH
def test_half_precision_and_integers_are_summed_in_float64(make: Callable[[], CodeMetric]) -> None:
    mean, log_var, labels = codes(40)
    half = mean.half(), log_var.half(), labels
    assert_same(fed(make(), half), fed(make(), (half[0].double(), half[1].double(), labels)), rtol=0)
    whole = (10 * mean).long(), log_var.long(), labels
    assert_same(fed(make(), whole), fed(make(), (whole[0].double(), whole[1].double(), labels)), rtol=0)


@EACH
def test_spatial_dimensions_are_dimensions_of_the_code(make: Callable[[], CodeMetric]) -> None:
    mean, log_var, labels = codes(40, 2, 2, 1)
    assert_same(fed(make(), (mean, log_var, labels)), fed(make(), (mean.flatten(1), log_var.flatten(1), labels)), 0)


@EACH
def test_invalid_codes_are_refused_and_leave_no_trace(make: Callable[[], CodeMetric]) -> None:
    metric = fed(make(), codes(40))
    mean, log_var, labels = codes(5, seed=1)
    bad = torch.zeros(5, 3)
    bad[1, 0], bad[3, 2] = torch.nan, torch.inf
    for batch, message in (
        ((mean, log_var[:, :2], labels), r"need the same shape; got \(5, 3\) and \(5, 2\)"),
        ((mean[:, 0], log_var[:, 0], labels), r"must be \(B, K, \.\.\.\), with K at least 1; got \(5,\)"),
        ((mean[:, :0], log_var[:, :0], labels), r"with K at least 1; got \(5, 0\)"),
        ((bad, log_var, labels), "mean must be finite; 2 of 5 rows have an infinity or NaN"),
        ((mean, bad, labels), r"log_var must be finite.*; 2 of 5 rows have an infinity or NaN"),
        (codes(40, 4), "must be alike; got codes of 3 dimensions and codes of 4 dimensions"),
    ):
        with pytest.raises(ValueError, match=message):
            fed(metric, batch)
    with pytest.raises(ValueError, match="must be alike; got codes of 3 dimensions and codes of 4 dimensions"):
        metric.merge_state(fed(make(), codes(40, 4)))
    with pytest.raises(ValueError, match="to be present in incoming state"):
        metric.merge_state({"count": torch.zeros(())})
    assert_same(metric, fed(make(), codes(40)), rtol=0)


@pytest.mark.parametrize(("make", "needed"), [(METRICS[0], 1), *((make, 2) for make in METRICS[1:])])
def test_too_few_codes_are_counted(make: Callable[[], CodeMetric], needed: int) -> None:
    for metric in (make(), fed(make(), codes(0))):
        with (
            pytest.warns(UserWarning, match="before the ``update``") if not metric.update_called else nullcontext(),
            pytest.raises(ValueError, match=rf"needs? at least {needed} codes?; got 0"),
        ):
            metric.compute()
    if needed == 2:
        with pytest.raises(ValueError, match="need at least 2 codes; got 1"):
            fed(make(), codes(1)).compute()
    fed(make(), part(codes(4), slice(0, 2 * needed, 2))).compute()


@pytest.mark.parametrize("make", [Rate, MarginalMoments])
def test_codes_of_deterministic_modules_are_valid(make: Callable[[], CodeMetric]) -> None:
    moments = torch.randn(10, 6, generator=torch.Generator().manual_seed(0))
    code = gaussian_code(moments, sample=False, deterministic=True)
    metric = make()
    metric.update(code.mean, code.log_var)
    found = metric.compute()
    assert found["rate"] == math.inf
    assert not any(value.isnan() for value in found.values())


def test_metrics_of_a_collection_need_no_arguments() -> None:
    collection = MetricCollection([Rate(), MarginalMoments(), MutualInformation()])
    for rows in (slice(25), slice(25, None)):
        collection.update(*part(codes(40), rows)[:2])
    found = collection.compute()
    for make in (Rate, MarginalMoments, MutualInformation):
        for name, value in fed(make(), codes(40)).compute().items():
            [same] = [v for k, v in found.items() if k in (name, f"{make.__name__}_{name}")]
            torch.testing.assert_close(same, value)


@pytest.mark.parametrize(
    "make", [MarginalMoments, MutualInformation, partial(ClassConditionalTotalCorrelation, 2), Rate]
)
def test_codes_too_wide_for_a_covariance_are_refused(make: Callable[..., CodeMetric]) -> None:
    few, most = make(max_dimensions=2), make(max_dimensions=3)
    most.update(*taken(most, codes(4)))
    if isinstance(few, Rate):  # needs no covariance
        few.update(*taken(few, codes(4)))
        return
    with pytest.raises(ConfigurationError, match="takes codes of at most max_dimensions=2; got 3: memory grows"):
        few.update(*taken(few, codes(4)))
    assert few.layout is None
