"""Metrics of codes in two processes are those of all codes in one, whatever each process has."""

import warnings

import pytest
import torch
import torch.distributed
from torch import Tensor

from lit_bottleneck.metrics.bounds import ELBO, ImportanceWeightedBound
from lit_bottleneck.metrics.class_conditional import ClassConditionalTotalCorrelation
from lit_bottleneck.metrics.code_metric import CodeMetric
from lit_bottleneck.metrics.marginal_moments import MarginalMoments
from lit_bottleneck.metrics.mutual_information import MutualInformation
from lit_bottleneck.metrics.rate import Rate
from tests.distributed.pool import Pool

Results = dict[str, dict[str, float]]


def codes() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mean, raw = (torch.randn(60, 3, generator=generator) for _ in range(2))
    return 5 + mean, raw - 1, torch.arange(60) % 7 // 3  # classes 0, 1, 2


def metrics() -> dict[str, CodeMetric]:
    return {
        "rate": Rate(),
        "moments": MarginalMoments(),
        "information": MutualInformation(),
        "part": MutualInformation(max_codes=11, num_draws=2),
        "by class": ClassConditionalTotalCorrelation(3),
    }


def measured(batches: list[list[int]]) -> Results:
    """Unrounded results of the metrics after these batches, over all processes; twice, with more codes in between."""
    warnings.simplefilter("ignore")  # a process without codes is told so by torchmetrics
    mean, log_var, labels = codes()
    results: Results = {}
    for name, metric in metrics().items():
        for rows in batches:
            arguments = (labels[rows],) if name == "by class" else ()
            metric.update(mean[rows], log_var[rows], *arguments)
        for time in ("first", "again"):
            alone = not torch.distributed.is_initialized()
            with metric.sync_context(should_sync=not alone, should_unsync=not alone):
                results[f"{name}, {time}"] = {key: value.item() for key, value in metric.in_float64().items()}
        rounded = {key: value.item() for key, value in metric.compute().items()}
        assert rounded == pytest.approx(results[f"{name}, again"], rel=1e-6)
    return results


def measured_by_rank(rank: int, parts: list[list[list[int]]]) -> Results:
    return measured(parts[rank])


EMPTY: list[int] = []


@pytest.mark.parametrize(
    "parts",
    [
        [[[*range(30)]], [[*range(30, 60)]]],
        [[[*range(5)], [*range(5, 11)]], [[*range(11, 60)]]],
        [[[*range(60)]], []],  # nothing came to one of them, so that it does not know the width
        [[], [[*range(40)], [*range(40, 60)]]],
        [[EMPTY], [EMPTY, [*range(60)]]],
        [[[*range(0, 60, 7), *range(1, 60, 7)]], [[i for i in range(60) if i % 7 > 1]]],  # classes that one has not
    ],
)
def test_metrics_are_those_of_all_codes_whatever_each_process_has(parts: list[list[list[int]]], pool: Pool) -> None:
    first, second = pool(measured_by_rank, parts)
    assert first == second
    alone = measured([[*range(60)]])
    for name, result in first.items():
        assert result == pytest.approx(alone[name], rel=1e-12, abs=1e-14)


def refused_by_rank(rank: int, batches: list[int], widths: list[int]) -> list[str]:
    warnings.simplefilter("ignore")
    messages = []
    for metric in (Rate(), MarginalMoments(), MutualInformation()):
        for _ in range(batches[rank]):
            metric.update(*torch.zeros(2, 0 if widths[rank] < 0 else 4, abs(widths[rank])))
        try:
            metric.compute()
        except ValueError as error:
            messages.append(str(error))
    return messages


def test_without_any_code_all_processes_say_so(pool: Pool) -> None:
    for batches in ([0, 0], [1, 0], [1, 2]):
        first, second = pool(refused_by_rank, batches, [-3, -3])  # batches of no rows
        assert first == second
        assert [message.rpartition(";")[2] for message in first] == [" got 0"] * 3


def test_codes_of_two_widths_are_refused_on_all_processes(pool: Pool) -> None:
    first, second = pool(refused_by_rank, [1, 1], [3, 2])
    assert first == second == ["codes must have one width on all processes; got [2, 3]"] * 3


def bounds_by_rank(rank: int, parts: list[list[int]]) -> list[float]:
    warnings.simplefilter("ignore")
    mean, log_var, _ = codes()
    elbo, importance = ELBO(), ImportanceWeightedBound(2)
    if parts[rank]:
        elbo.update(mean[parts[rank], 0], log_var[parts[rank], 1])
        importance.update(mean[parts[rank]].T[:2])
    return [elbo.compute()["elbo"].item(), importance.compute().item()]


@pytest.mark.parametrize("sizes", [(20, 40), (60, 0)])
def test_bounds_are_means_over_all_examples(sizes: tuple[int, int], pool: Pool) -> None:
    parts = [list(range(sizes[0])), list(range(sizes[0], 60))]
    first, second = pool(bounds_by_rank, parts)
    assert first == second == pytest.approx(bounds_by_rank(0, [list(range(60))]), rel=1e-6)
