"""The calibration error: by hand, with fractions, and beside torchmetrics."""

from fractions import Fraction

import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError

from lit_bottleneck.training.calibration import CalibrationError


def test_a_confidence_of_one_lies_in_the_last_bin() -> None:
    """Four examples, all of the last bin [14/15, 1]: confidences 1, 1, 15/16, 15/16, and one of the first two is wrong.

    (0 - 1) + (1 - 1) + 2 (1 - 15/16) = -7/8, divided by 4: 7/32. In two bins it would be (|-1| + |1/8|) / 4 = 9/32.
    """
    probabilities = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.9375, 0.0625], [0.9375, 0.0625]])
    metric = CalibrationError(2)
    metric.update(probabilities, torch.tensor([1, 0, 0, 0]))
    assert metric.compute().item() == float(Fraction(7, 32))
    theirs = MulticlassCalibrationError(2)
    theirs.update(probabilities, torch.tensor([1, 0, 0, 0]))
    assert theirs.compute().item() == float(Fraction(9, 32))  # the day it is 7/32, ours can go


def test_other_confidences_are_measured_as_torchmetrics_does() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = (3 * torch.randn(500, 4, generator=generator)).softmax(1).clamp(max=0.9999)
    probabilities[:30] = torch.tensor([[8 / 15, 7 / 15, 0, 0]])  # on an end of a bin
    labels, metrics = (
        torch.randint(4, (500,), generator=generator),
        (CalibrationError(4), MulticlassCalibrationError(4)),
    )
    for metric in metrics:
        for rows in (slice(200), slice(200, None)):
            metric.update(probabilities[rows], labels[rows])
    ours, theirs = (metric.compute() for metric in metrics)
    assert ours.dtype == theirs.dtype == torch.float32
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
