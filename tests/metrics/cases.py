"""Every metric of the package, with rows of data for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_bottleneck import metrics
from lit_bottleneck.metrics.code_metric import CodeMetric

ROWS = 60
GENERATOR = torch.Generator().manual_seed(0)
MEAN, LOG_VAR, GENERATED = (torch.randn(ROWS, 3, generator=GENERATOR) for _ in range(3))
MEAN += 5
LABELS, ENDS = torch.arange(ROWS) % 2, torch.stack([torch.arange(ROWS) % 4, torch.arange(ROWS) % 3])
CLASSES, NUMBERS = torch.randint(3, (ROWS, 2), generator=GENERATOR), torch.rand(ROWS, 2, generator=GENERATOR)
LOGS, PATHS = torch.randn(5, ROWS, 4, generator=GENERATOR).log_softmax(-1), torch.randn(5, ROWS, 3, generator=GENERATOR)
MODES = torch.eye(3) + 5
# Sequences of 4 positions, of which one and others are padding.
STEPS, STEP_LOG_VARS = (torch.randn(ROWS, 4, 3, generator=GENERATOR) for _ in range(2))
MASK = (torch.rand(ROWS, 4, generator=GENERATOR) < 0.7) & (torch.arange(4) != 2)
STEPS[~MASK] = torch.nan


class Case(NamedTuple):
    """A metric, and the calls of its ``update`` for some of the rows."""

    make: Callable[[], Metric]
    calls: Callable[[Any], list[tuple[Any, ...]]]


def codes(rows: Any) -> list[tuple[Any, ...]]:
    return [(MEAN[rows], LOG_VAR[rows])]


def labelled(rows: Any) -> list[tuple[Any, ...]]:
    return [(MEAN[rows], LOG_VAR[rows], LABELS[rows])]


def steps(rows: Any) -> list[tuple[Any, ...]]:
    return [(STEPS[rows], STEP_LOG_VARS[rows], MASK[rows], -1)]


def labelled_steps(rows: Any) -> list[tuple[Any, ...]]:
    return [(STEPS[rows], STEP_LOG_VARS[rows], LABELS[rows], MASK[rows], -1)]


def classes(rows: Any) -> list[tuple[Any, ...]]:
    return [(MEAN[rows], CLASSES[rows])]


def numbers(rows: Any) -> list[tuple[Any, ...]]:
    return [(MEAN[rows], NUMBERS[rows])]


def samples(rows: Any) -> list[tuple[Any, ...]]:
    return [(MEAN[rows], True), (GENERATED[rows] + 5, False)]


CASES = {
    "rate": Case(lambda: metrics.Rate(per_dimension=True), codes),
    "moments": Case(metrics.MarginalMoments, codes),
    "information": Case(metrics.MutualInformation, codes),
    "information of some": Case(lambda: metrics.MutualInformation(max_codes=10, num_draws=2), codes),
    "by class": Case(lambda: metrics.ClassConditionalTotalCorrelation(2), labelled),
    "rate of sequences": Case(lambda: metrics.Rate(per_dimension=True), steps),
    "moments of sequences": Case(metrics.MarginalMoments, steps),
    "information of sequences": Case(lambda: metrics.MutualInformation(max_codes=20), steps),
    "by class, of sequences": Case(lambda: metrics.ClassConditionalTotalCorrelation(2), labelled_steps),
    "elbo": Case(metrics.ELBO, lambda rows: [(MEAN[rows, 0], LOG_VAR[rows, 1])]),
    "iwae": Case(lambda: metrics.ImportanceWeightedBound(3), lambda rows: [(MEAN[rows].T,)]),
    "mig": Case(lambda: metrics.MIG(names=["a", "b"]), classes),
    "sap of classes": Case(metrics.SAP, classes),
    "sap": Case(metrics.SAP, numbers),
    "dci of classes": Case(lambda: metrics.DCI(num_trees=2), classes),
    "dci": Case(lambda: metrics.DCI(num_trees=2), numbers),
    "probe of classes": Case(lambda: metrics.FactorProbe(max_rows=50), classes),
    "probe": Case(lambda: metrics.FactorProbe(max_rows=50), numbers),
    "paths": Case(metrics.PathQuality, lambda rows: [(LOGS[:, rows], PATHS[:, rows], ENDS[:, rows])]),
    "coverage": Case(lambda: metrics.ModeCoverage(MODES, 0.5), lambda rows: [(MEAN[rows],)]),
    "frechet": Case(lambda: metrics.FrechetDistance(3), samples),
    "kernel": Case(metrics.KernelDistance, samples),
    "precision": Case(metrics.PrecisionRecall, samples),
}


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def values(scores: dict[str, Tensor]) -> dict[str, float]:
    """Scores as numbers, if they are float32 scalars."""
    assert all(score.shape == () and score.dtype == torch.float32 for score in scores.values())
    return {name: score.item() for name, score in scores.items()}


def exact(metric: CodeMetric, *batches: tuple[Tensor, ...]) -> dict[str, float]:
    """Unrounded results after these batches of codes."""
    for batch in batches:
        metric.update(*batch)
    return {name: value.item() for name, value in metric.in_float64().items()}


def fed(case: Case, *batches: Any, metric: Metric | None = None) -> Metric:
    """The metric after these batches of rows."""
    metric = case.make() if metric is None else metric
    for rows in batches:
        for arguments in case.calls(rows):
            metric.update(*arguments)
    return metric


def results(metric: Metric) -> Any:
    """Unrounded results, if the metric returns them."""
    return metric.in_float64() if isinstance(metric, CodeMetric) else metric.compute()


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Set torch's default dtype, as Lightning does with ``precision="bf16-true"``."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
