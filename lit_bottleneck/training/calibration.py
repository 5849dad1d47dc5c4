"""Expected calibration error whose last bin holds confidences of exactly 1."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassCalibrationError
from torchmetrics.utilities.data import dim_zero_cat


class CalibrationError(MulticlassCalibrationError):
    """Expected calibration error (arXiv 1706.04599), ``sum_b |sum_{i in b} (right_i - confidence_i)| / N``.

    The bins b have equal width and their lower ends; the last has both. ``MulticlassCalibrationError`` gives
    confidences of exactly 1 a bin of their own, so that an error of one sign there and one of the other sign in the
    last do not cancel. Sums are in float64 (float32 on a device without it).

    Args:
        num_classes: number of classes.
        n_bins: number of bins.
        kwargs: those of ``torchmetrics.Metric``.

    >>> metric = CalibrationError(num_classes=2)
    >>> metric.update(torch.tensor([[1.0, 0.0], [0.95, 0.05]]), torch.tensor([1, 0]))
    >>> metric.compute()  # one bin: |(0 - 1) + (1 - .95)| / 2
    tensor(0.4750)
    """

    def __init__(self, num_classes: int, n_bins: int = 15, **kwargs: Any) -> None:
        super().__init__(num_classes, n_bins, **kwargs)

    def compute(self) -> Tensor:
        """Return the error, a scalar."""
        confidences, right = dim_zero_cat(self.confidences), dim_zero_cat(self.accuracies)
        ends = torch.linspace(0, 1, self.n_bins + 1, dtype=confidences.dtype, device=confidences.device)
        bins = torch.bucketize(confidences, ends[1:-1], right=True)
        exact = torch.float32 if confidences.device.type == "mps" else torch.float64
        gaps = torch.zeros(self.n_bins, dtype=exact, device=confidences.device)
        gaps.index_add_(0, bins, right.to(exact) - confidences.to(exact))
        return (gaps.abs().sum() / len(confidences)).float()
