"""How the dimensions of codes hang together within a class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_bottleneck.checks import whole_number
from lit_bottleneck.metrics.code_metric import CodeMetric
from lit_bottleneck.metrics.code_sums import checked_codes, merged, sums_of
from lit_bottleneck.metrics.marginal_moments import correlations_of


class ClassConditionalTotalCorrelation(CodeMetric):
    """Gaussian total correlation of the codes of each class, in nats.

    ``-1/2 log det Corr(C_c)``, with the covariance ``C_c`` of the class's own codes. Dimensions that tell the classes
    apart correlate over all codes, even if nothing else links them; within a class they need not.

    ``compute`` returns ``total_correlation``, the mean over the classes weighted by their numbers of codes, and
    ``total_correlation_max``, two float32 scalars. Classes without codes are left out. Second moments only: see
    `marginal_moments`. Sums in float64 are kept, not codes: however they are split into batches and processes, the
    result is the same.

    Args:
        num_classes: how many classes there are.
        kwargs: those of `torchmetrics.Metric`.

    Raises:
        ValueError: for ``num_classes`` below 1, by ``update`` for codes that are none or of another width than earlier
            ones and for labels out of range, by ``compute`` for a class with 1 code, or with fewer than one more than
            there are dimensions without noise.

    >>> metric = ClassConditionalTotalCorrelation(num_classes=2)
    >>> mean = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [5.0, 5.0], [5.0, 7.0]])
    >>> metric.update(mean, torch.zeros(4, 2), labels=torch.tensor([0, 0, 1, 1]))
    >>> {name: round(value.item(), 4) for name, value in metric.compute().items()}
    {'total_correlation': 0.0719, 'total_correlation_max': 0.1438}
    """

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        self.num_classes = whole_number("num_classes", num_classes, at_least=1)
        super().__init__(joint=True, groups=self.num_classes, **kwargs)

    def update(self, mean: Tensor, log_var: Tensor, labels: Tensor) -> None:  # type: ignore[override]
        """Take in codes and their classes.

        Args:
            mean: ``(B, K, ...)``.
            log_var: the shape of ``mean``; ``-inf`` where a code has no noise.
            labels: integers ``(B,)``.

        Raises:
            ValueError: for codes that are none, or of another width than earlier ones; for other labels.
        """
        mean, log_var = checked_codes(mean, log_var)
        self._check_labels(labels, len(mean))
        self._widen(mean.shape[1])
        sums = self.sums
        for label in labels.unique().tolist():
            rows = labels == label
            of_class = merged(sums.part(label), sums_of(mean[rows], log_var[rows], joint=True))
            for name, value in vars(of_class).items():
                getattr(self, name)[label] = value

    def in_float64(self) -> dict[str, Tensor]:
        """Return the results of the codes so far (on this process, unless the metric is synchronised), unrounded."""
        if self.count.sum() == 0:
            raise ValueError("class-conditional total correlation needs at least 2 codes; got 0")
        present = self.count.nonzero().flatten().tolist()
        found = torch.stack(
            [correlations_of(self.sums.part(label), f"codes of class {label}").total_correlation for label in present]
        )
        weights = self.count[present] / self.count.sum()
        return {"total_correlation": (weights * found).sum(), "total_correlation_max": found.max()}

    def _check_labels(self, labels: Tensor, wanted: int) -> None:
        if labels.is_floating_point() or labels.dtype == torch.bool or labels.shape != (wanted,):
            raise ValueError(
                f"labels must be integers ({wanted},), one for each code; got {labels.dtype} {tuple(labels.shape)}"
            )
        if wanted and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise ValueError(
                f"labels must be in [0, {self.num_classes}); got {int(labels.min())} to {int(labels.max())}"
            )
