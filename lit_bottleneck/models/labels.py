"""Labels that a classifier reads from C logits: one class of each example, or several labels.

``OneClass`` and ``SeveralLabels`` have the same methods: the form of labels, their likelihood, and their metrics.
"""

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import BinaryAccuracy, MulticlassAccuracy

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.models.batch import described, tensor_from
from lit_bottleneck.models.label_metrics import LabelAveragePrecision, LabelF1
from lit_bottleneck.training.calibration import CalibrationError

_ROUNDING = 4e-3  # of the sum of a row, to bfloat16 or to three decimals
_SEVERAL = ": several labels of an example need multilabel=True"


class OneClass:
    """One of C classes for each example: a categorical distribution.

    >>> OneClass(3).labels_from(torch.tensor([[0], [2]], dtype=torch.uint8), rows=2)
    tensor([0, 2])
    """

    metric_names: ClassVar = ("accuracy", "calibration_error")

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def check_number(self, num_classes: int, data: str) -> None:
        """Refuse data of more classes; those of fewer do no harm."""
        if num_classes > self.num_classes:
            raise ConfigurationError(
                f"num_classes={self.num_classes}, but the labels of {data} have {num_classes} values"
            )

    def labels_from(self, labels: Any, rows: int) -> Tensor:
        """Return labels in one form; their values are left to ``check``.

        Args:
            labels: a tensor or NumPy array: whole numbers or bools ``(B,)`` or ``(B, 1)``, or soft labels, floating
                ``(B, C)``.
            rows: number of inputs B.

        Returns:
            Class indices ``(B,)``, int64, or soft labels ``(B, C)``.

        Raises:
            ConfigurationError: for anything else, and for another number of labels than of inputs.
        """
        labels = tensor_from("labels", labels)
        is_soft = labels.is_floating_point() and labels.shape[1:] == (self.num_classes,)
        is_whole = not (labels.is_floating_point() or labels.is_complex()) and labels.shape[1:] in ((), (1,))
        if not (is_soft or is_whole) or labels.dim() == 0:
            forms = f"labels (B,) of whole numbers, or soft labels (B, {self.num_classes}) of floats"
            way_out = _SEVERAL if labels.shape[1:] == (self.num_classes,) else ""
            raise ConfigurationError(f"num_classes={self.num_classes} needs {forms}; got {described(labels)}{way_out}")
        classes: Tensor = labels if is_soft else labels.long().reshape(-1)
        return _as_many(classes, rows)

    def check(self, labels: Tensor) -> None:
        """Refuse labels, as ``labels_from`` returns them, that are no classes or no probabilities.

        Raises:
            ConfigurationError: for an index out of range, a negative probability, or a row that does not sum to 1.
        """
        if not labels.numel():
            return
        least, most = (bound.item() for bound in labels.aminmax())
        needs = f"num_classes={self.num_classes} needs"
        if not labels.is_floating_point():
            if least < 0 or most >= self.num_classes:
                outside = labels[(labels < 0) | (labels >= self.num_classes)]
                raise ConfigurationError(f"{needs} labels 0 to {self.num_classes - 1}; got {outside[0].item()}")
            return
        sums = labels.sum(1, dtype=torch.float32)
        wrong = ~((sums - 1).abs() <= _ROUNDING)  # also where the sum is NaN
        if least < 0:
            raise ConfigurationError(f"{needs} soft labels that are not negative; got {least:.6g}")
        if wrong.any():
            came = f"got a sum of {sums[wrong][0].item():.6g}"
            raise ConfigurationError(f"{needs} soft labels whose rows sum to 1; {came}{_SEVERAL}")

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of each example in nats, ``(B,)``."""
        return F.cross_entropy(logits, labels, reduction="none")

    def average(self, logits: Tensor) -> Tensor:
        """Return the log-probabilities ``(B, C)`` of the mean probabilities of S draws with logits ``(S, B, C)``."""
        mean = F.log_softmax(logits, dim=-1).logsumexp(0) - math.log(len(logits))
        return mean.clamp(max=0)  # a probability of 1 + 1e-7 would be taken for a logit

    def log_probabilities(self, averaged: Tensor) -> Tensor:
        """Return the log-probabilities ``(B, C)`` of what ``average`` returns."""
        return averaged

    def predicted(self, logits: Tensor) -> Tensor:
        """Return the most probable classes ``(B,)``."""
        return logits.argmax(-1)

    def hard(self, labels: Tensor) -> Tensor:
        """Return the classes ``(B,)``, of a soft label that of its largest entry."""
        return labels.argmax(1) if labels.dim() == 2 else labels

    def metrics(self) -> dict[str, Metric]:
        """Return the metrics of a split, of probabilities ``(B, C)`` and classes ``(B,)``."""
        accuracy = MulticlassAccuracy(self.num_classes, average="micro")
        return {"accuracy": accuracy, "calibration_error": CalibrationError(self.num_classes)}


class SeveralLabels:
    """Any of C labels for each example: a Bernoulli distribution of each.

    >>> SeveralLabels(2).labels_from(torch.tensor([[True, False]]), rows=1)
    tensor([[1., 0.]])
    """

    metric_names: ClassVar = ("accuracy", "f1", "average_precision")

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def check_number(self, num_classes: int, data: str) -> None:
        """Refuse data of another number of labels."""
        if num_classes != self.num_classes:
            raise ConfigurationError(f"num_classes={self.num_classes}, but {data} has num_classes={num_classes} labels")

    def labels_from(self, labels: Any, rows: int) -> Tensor:
        """Return labels in one form; their values are left to ``check``.

        Args:
            labels: a tensor or NumPy array ``(B, C)``, or ``(B,)`` for one label.
            rows: number of inputs B.

        Returns:
            Floating labels ``(B, C)``.

        Raises:
            ConfigurationError: for anything else, and for another number of labels than of inputs.
        """
        labels = tensor_from("labels", labels)
        if self.num_classes == 1 and labels.dim() == 1:
            labels = labels[:, None]
        if labels.dim() != 2 or labels.shape[1] != self.num_classes or labels.is_complex():
            needs = f"multilabel=True with num_classes={self.num_classes} needs labels (B, {self.num_classes})"
            way_out = ""
            if labels.dim() and labels.shape[1:] in ((), (1,)):
                way_out = ": labels of one class for each example need multilabel=False"
            elif labels.dim() == 2 and not labels.is_complex():
                way_out = f": these have num_classes={labels.shape[1]}"
            raise ConfigurationError(f"{needs} of 0 and 1; got {described(labels)}{way_out}")
        return _as_many(labels if labels.is_floating_point() else labels.float(), rows)

    def check(self, labels: Tensor) -> None:
        """Refuse labels outside [0, 1], and NaN.

        Raises:
            ConfigurationError: with the first of them.
        """
        outside = ~((labels >= 0) & (labels <= 1))
        if outside.any():
            came = labels[outside][0].item()
            raise ConfigurationError(f"multilabel=True needs labels of 0 and 1, or soft ones between; got {came:.6g}")

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the binary cross-entropy of each example in nats, summed over the labels, ``(B,)``."""
        return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(1)

    def average(self, logits: Tensor) -> Tensor:
        """Return the logits ``(B, C)`` of the mean probabilities of S draws with logits ``(S, B, C)``."""
        return F.logsigmoid(logits).logsumexp(0) - F.logsigmoid(-logits).logsumexp(0)

    def log_probabilities(self, averaged: Tensor) -> Tensor:
        """Return the log-probabilities ``(B, C)`` of what ``average`` returns."""
        return F.logsigmoid(averaged)

    def predicted(self, logits: Tensor) -> Tensor:
        """Return 1 for labels with a probability above one half, ``(B, C)``."""
        return (logits > 0).long()

    def hard(self, labels: Tensor) -> Tensor:
        """Return 0 and 1 ``(B, C)``, 1 for a soft label above one half."""
        return (labels > 0.5).long()

    def metrics(self) -> dict[str, Metric]:
        """Return the metrics of a split, of probabilities and of 0 and 1, both ``(B, C)``."""
        f1, average_precision = LabelF1(self.num_classes), LabelAveragePrecision(self.num_classes)
        return {"accuracy": BinaryAccuracy(validate_args=False), "f1": f1, "average_precision": average_precision}


def _as_many(labels: Tensor, rows: int) -> Tensor:
    if len(labels) != rows:
        raise ConfigurationError(f"a batch of {rows} inputs needs as many labels; got {len(labels)}")
    return labels
