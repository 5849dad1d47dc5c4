"""Total correlation within classes: that of each class on its own, weighted by the numbers of codes."""

import math

import pytest
import torch
from torch import Tensor

from lit_bottleneck.metrics import ClassConditionalTotalCorrelation, MarginalMoments
from tests.metrics.cases import exact, randn


def test_it_is_the_weighted_mean_over_the_classes() -> None:
    labels = torch.arange(60) % 5 % 3  # 24, 24, 12
    labels[labels == 1] = 3  # no codes of class 1
    mean, log_var = randn(60, 3) @ randn(3, 3, seed=1) + 10 * labels[:, None], randn(60, 3, seed=2) - 2
    batches = zip(mean.split(17), log_var.split(17), labels.split(17), strict=True)
    found = exact(ClassConditionalTotalCorrelation(num_classes=4), *batches)
    own = {label: labels == label for label in (0, 2, 3)}
    expected = {i: exact(MarginalMoments(), (mean[own[i]], log_var[own[i]]))["total_correlation"] for i in own}
    weighted = sum(own[i].sum().item() * expected[i] for i in own) / 60
    assert found["total_correlation"] == pytest.approx(weighted, rel=1e-12)
    assert found["total_correlation_max"] == pytest.approx(max(expected.values()), rel=1e-12)


def test_correlation_between_classes_does_not_count() -> None:
    labels = torch.arange(1000) % 2
    mean = randn(1000, 2) + 20 * labels[:, None]
    within = exact(ClassConditionalTotalCorrelation(2), (mean, torch.zeros(1000, 2), labels))
    overall = exact(MarginalMoments(), (mean, torch.zeros(1000, 2)))
    assert within["total_correlation"] < 0.01 < 1 < overall["total_correlation"]


def test_a_dimension_that_is_constant_within_a_class_is_uncorrelated_there() -> None:
    labels = torch.arange(40) % 2
    mean = torch.stack([randn(40), labels / 3 + 0.1], 1)
    batches = zip(mean.split(7), torch.full((40, 2), -torch.inf).split(7), labels.split(7), strict=True)
    assert list(exact(ClassConditionalTotalCorrelation(2), *batches).values()) == [0, 0]


def test_exact_dependence_within_a_class_is_infinite() -> None:
    labels = torch.arange(40) % 2
    mean = randn(40, 2)
    mean[labels == 1, 1] = 2 * mean[labels == 1, 0]
    found = exact(ClassConditionalTotalCorrelation(2), (mean, torch.full((40, 2), -torch.inf), labels))
    assert found["total_correlation_max"] == math.inf


def test_classes_with_too_few_codes_are_named() -> None:
    one, two = torch.tensor([0, 0, 2, 0, 0]), torch.tensor([0, 0, 2, 0, 2])
    with pytest.raises(ValueError, match="codes of class 2 need at least 2 codes; got 1"):
        exact(ClassConditionalTotalCorrelation(3), (randn(5, 2), torch.zeros(5, 2), one))
    with pytest.raises(ValueError, match="codes of class 2 without noise in 2 dimensions need at least 3; got 2"):
        exact(ClassConditionalTotalCorrelation(3), (randn(5, 2), torch.full((5, 2), -torch.inf), two))


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
