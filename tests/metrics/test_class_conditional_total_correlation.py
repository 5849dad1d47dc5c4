"""Total correlation within classes: that of each class on its own, weighted by the numbers of codes."""

import math

import pytest
import torch
from torch import Tensor

from lit_bottleneck.metrics import ClassConditionalTotalCorrelation, MarginalMoments


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_the_weighted_mean_over_the_classes() -> None:
    labels = torch.arange(60) % 5 % 3  # 24, 24, 12
    labels[labels == 1] = 3  # no codes of class 1
    mean, log_var = randn(60, 3) @ randn(3, 3, seed=1) + 10 * labels[:, None], randn(60, 3, seed=2) - 2
    metric = ClassConditionalTotalCorrelation(num_classes=4)
    for rows in torch.arange(60).split(17):
        metric.update(mean[rows], log_var[rows], labels[rows])
    expected = {}
    for label in (0, 2, 3):
        moments = MarginalMoments()
        moments.update(mean[labels == label], log_var[labels == label])
        expected[label] = moments.in_float64()["total_correlation"].item()
    found = metric.in_float64()
    weighted = sum((labels == label).sum().item() * value for label, value in expected.items()) / 60
    assert found["total_correlation"].item() == pytest.approx(weighted, rel=1e-12)
    assert found["total_correlation_max"].item() == pytest.approx(max(expected.values()), rel=1e-12)


def test_correlation_between_classes_does_not_count() -> None:
    labels = torch.arange(1000) % 2
    mean = randn(1000, 2) + 20 * labels[:, None]
    metric, moments = ClassConditionalTotalCorrelation(2), MarginalMoments()
    metric.update(mean, torch.zeros(1000, 2), labels)
    moments.update(mean, torch.zeros(1000, 2))
    assert metric.compute()["total_correlation"] < 0.01 < 1 < moments.compute()["total_correlation"]


def test_a_dimension_that_is_constant_within_a_class_is_uncorrelated_there() -> None:
    labels = torch.arange(40) % 2
    mean = torch.stack([randn(40), labels / 3 + 0.1], 1)
    metric = ClassConditionalTotalCorrelation(2)
    for rows in torch.arange(40).split(7):
        metric.update(mean[rows], torch.full((len(rows), 2), -torch.inf), labels[rows])
    assert [value.item() for value in metric.compute().values()] == [0, 0]


def test_exact_dependence_within_a_class_is_infinite() -> None:
    labels = torch.arange(40) % 2
    mean = randn(40, 2)
    mean[labels == 1, 1] = 2 * mean[labels == 1, 0]
    metric = ClassConditionalTotalCorrelation(2)
    metric.update(mean, torch.full((40, 2), -torch.inf), labels)
    assert metric.compute()["total_correlation_max"] == math.inf


def test_classes_with_too_few_codes_are_named() -> None:
    metric = ClassConditionalTotalCorrelation(3)
    metric.update(randn(5, 2), torch.zeros(5, 2), torch.tensor([0, 0, 2, 0, 0]))
    with pytest.raises(ValueError, match="codes of class 2 need at least 2 codes; got 1"):
        metric.compute()
    metric = ClassConditionalTotalCorrelation(3)
    metric.update(randn(5, 2), torch.full((5, 2), -torch.inf), torch.tensor([0, 0, 2, 0, 2]))
    with pytest.raises(ValueError, match="codes of class 2 without noise in 2 dimensions need at least 3; got 2"):
        metric.compute()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(3).long(), r"labels must be integers \(4,\)"),
        (torch.zeros(4, 1).long(), r"labels must be integers \(4,\)"),
        (torch.zeros(4), r"labels must be integers \(4,\)"),
        (torch.tensor([0, 1, 2, 3]), r"labels must be in \[0, 3\); got 0 to 3"),
        (torch.tensor([0, 1, 2, -1]), r"labels must be in \[0, 3\); got -1 to 2"),
    ],
)
def test_invalid_labels_are_refused(labels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassConditionalTotalCorrelation(3).update(torch.zeros(4, 2), torch.zeros(4, 2), labels)
