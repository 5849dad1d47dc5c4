"""Metrics in two processes equal those of all rows in one, whatever each process has."""

import re
import warnings
from typing import Any

import pytest
import torch

from lit_bottleneck.metrics import MIG, KernelDistance, MarginalMoments, MutualInformation, Rate
from lit_bottleneck.metrics.code_metric import CodeMetric
from tests.distributed.pool import Pool
from tests.metrics.cases import CASES, MEAN, NUMBERS, ROWS, default_dtype, fed, results

Results = dict[str, dict[str, float]]


def as_numbers(found: Any) -> dict[str, Any]:
    return {name: value.tolist() for name, value in (found if isinstance(found, dict) else {"": found}).items()}


def measured(batches: list[list[int]], alone: bool = True) -> Results:
    """Results of all metrics after these batches, over all processes; unrounded and rounded."""
    found: Results = {}
    for name, case in CASES.items():
        metric = fed(case, *batches)
        with default_dtype(torch.bfloat16):  # Lightning moves them so under bf16-true
            metric.to("cpu")
            rounded = metric.compute()
        if isinstance(metric, CodeMetric):
            with metric.sync_context(should_sync=not alone, should_unsync=not alone):
                found[f"{name}, unrounded"] = as_numbers(results(metric))
        found[name] = as_numbers(rounded)
    return found


def measured_by_rank(rank: int, parts: list[list[list[int]]]) -> Results:
    warnings.simplefilter("ignore")  # torchmetrics warns in a process without rows
    return measured(parts[rank], alone=False)


ALL = [*range(ROWS)]
EMPTY: list[int] = []


@pytest.mark.parametrize(
    "parts",
    [
        [[ALL[:5], ALL[5:11]], [ALL[11:]]],
        [[ALL], []],  # a process without rows, which does not know the width
        [[], [ALL[:40], ALL[40:]]],
        [[EMPTY], [EMPTY, ALL]],
        [[ALL[::2]], [ALL[1::2]]],  # each process has one of the two classes
    ],
    ids=["ragged", "only the first", "only the second", "empty batches", "class by class"],
)
def test_metrics_are_those_of_all_rows_whatever_each_process_has(parts: list[list[list[int]]], pool: Pool) -> None:
    first, second = pool(measured_by_rank, parts)
    assert first == second
    alone = measured([ALL])
    for name, result in first.items():
        tolerance = 1e-12 if name.endswith("unrounded") else 2e-6
        for key, value in alone[name].items():
            assert result[key] == pytest.approx(value, rel=tolerance, abs=tolerance)


def error_by_rank(rank: int, metric: Any, batches: list[tuple[Any, ...] | None]) -> str:
    warnings.simplefilter("ignore")
    if batches[rank] is not None:
        metric.update(*batches[rank])
    with pytest.raises(ValueError) as error:  # noqa: PT011  the test compares the message
        metric.compute()
    return str(error.value)


@pytest.mark.parametrize("make", [Rate, MarginalMoments, MutualInformation])
@pytest.mark.parametrize("batches", [[None, None], [(torch.zeros(0, 3), torch.zeros(0, 3)), None]])
def test_without_any_code_all_processes_say_so(make: Any, batches: list[Any], pool: Pool) -> None:
    first, second = pool(error_by_rank, make(), batches)
    assert first == second
    assert first.endswith("; got 0")


@pytest.mark.parametrize(
    ("make", "batches", "found"),
    [
        (Rate, [(MEAN, MEAN), (MEAN[:, :2], MEAN[:, :2])], "codes of 2 dimensions and codes of 3 dimensions"),
        (MutualInformation, [(MEAN, MEAN), (MEAN[:, :2], MEAN[:, :2])], "codes of 2 dimensions and codes of 3 dim"),
        (MIG, [(MEAN, NUMBERS), (MEAN, NUMBERS > 0)], "codes of 3 dimensions with 2 numbers and .* with 2 classes"),
        (KernelDistance, [(MEAN, True), (MEAN[:, :2], False)], r"features \(B, 2\) and features \(B, 3\)"),
    ],
)
def test_two_layouts_are_refused_on_all_processes(make: Any, batches: list[Any], found: str, pool: Pool) -> None:
    for message in pool(error_by_rank, make(), batches):
        assert re.match(f"all batches, on all processes, must be alike; got {found}", message)
