"""Metrics of several labels for each example, each a mean over the labels for which it is defined."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics.classification import MultilabelAveragePrecision, MultilabelStatScores
from torchmetrics.functional.classification import binary_average_precision
from torchmetrics.utilities.data import dim_zero_cat


class LabelF1(MultilabelStatScores):
    """Mean over the labels of F1, ``2 TP / (2 TP + FP + FN)``, at a probability of one half.

    A label that neither occurs nor is predicted has no F1, and is left out: ``MultilabelF1Score`` counts it as 0.

    Args:
        num_labels: number of labels.
        kwargs: those of ``torchmetrics.Metric``.

    >>> metric = LabelF1(num_labels=3)
    >>> metric.update(torch.tensor([[0.9, 0.8, 0.1], [0.2, 0.7, 0.3]]), torch.tensor([[1, 1, 0], [0, 0, 0]]))
    >>> metric.compute()  # (1 + 2/3) / 2
    tensor(0.8333)
    """

    higher_is_better = True

    def __init__(self, num_labels: int, **kwargs: Any) -> None:
        super().__init__(
            num_labels, average="none", validate_args=False, **kwargs
        )  # with which it takes one label, too

    def compute(self) -> Tensor:
        """Return the mean, a scalar; 0 if no label occurs or is predicted."""
        hits, false_alarms, _, misses, _ = super().compute().float().unbind(-1)
        total = 2 * hits + false_alarms + misses
        return _mean(2 * hits[total > 0] / total[total > 0])


class LabelAveragePrecision(MultilabelAveragePrecision):
    """Mean over the labels of the average precision, of those that occur.

    Without an example that has it a label has none: torchmetrics counts it as 0 or leaves it out, by its version, and
    warns. It keeps all probabilities of a split, since the precision is exact.

    Args:
        num_labels: number of labels.
        kwargs: those of ``torchmetrics.Metric``.

    >>> metric = LabelAveragePrecision(num_labels=2)
    >>> metric.update(torch.tensor([[0.9, 0.8], [0.2, 0.7], [0.5, 0.4]]), torch.tensor([[1, 0], [1, 0], [0, 0]]))
    >>> metric.compute()  # of the first label, (1 + 2/3) / 2
    tensor(0.8333)
    """

    def __init__(self, num_labels: int, **kwargs: Any) -> None:
        super().__init__(num_labels, average="none", validate_args=False, **kwargs)

    def compute(self) -> Tensor:  # type: ignore[override]
        """Return the mean, a scalar; 0 if no label occurs."""
        probabilities, labels = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        pairs = zip(probabilities.unbind(1), labels.unbind(1), strict=True)
        each = [binary_average_precision(*pair, validate_args=False) for pair in pairs if pair[1].any()]
        return _mean(torch.stack(each) if each else probabilities.new_zeros(0))


def _mean(scores: Tensor) -> Tensor:
    """Return the mean, which is 0 of none."""
    return scores.sum() / max(1, len(scores))
