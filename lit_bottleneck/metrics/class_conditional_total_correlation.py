"""Total correlation of codes within each class."""

from typing import Any

import torch
from torch import Tensor

from lit_bottleneck.checks import whole_number
from lit_bottleneck.metrics.base import check_labels
from lit_bottleneck.metrics.code_metric import CodeMetric, checked_mask, sums_of
from lit_bottleneck.metrics.marginal_moments import correlations_of


class ClassConditionalTotalCorrelation(CodeMetric):
    """Gaussian total correlation of the codes of each class, in nats.

    ``-1/2 log det Corr(C_c)``, with the covariance ``C_c`` of the codes of class c. Dimensions that tell classes apart
    correlate over all codes even if nothing else links them; within a class they need not.

    ``compute`` returns ``total_correlation``, the mean over classes weighted by their numbers of codes, and
    ``total_correlation_max``, two float32 scalars. Classes without codes are left out. Second moments only: see
    ``marginal_moments``. Keeps sums in float64, not codes: however these are split into batches and processes, the
    result is the same.

    Args:
        num_classes: the number of classes.
        kwargs: ``max_dimensions``, the largest K (default: 4096; memory grows with its square, the time of ``compute``
            with its cube), and those of ``torchmetrics.Metric``.

    Raises:
        ConfigurationError: for ``num_classes`` below 1; by ``update`` for codes of more than ``max_dimensions``.
        ValueError: by ``update`` for invalid codes or labels, or codes of another width than earlier ones; by
            ``compute`` for a class with 1 code, or with no more codes than dimensions without noise.

    >>> metric = ClassConditionalTotalCorrelation(num_classes=2)
    >>> mean = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [5.0, 5.0], [5.0, 7.0]])
    >>> metric.update(mean, torch.zeros(4, 2), labels=torch.tensor([0, 0, 1, 1]))
    >>> {name: round(value.item(), 4) for name, value in metric.compute().items()}
    {'total_correlation': 0.0719, 'total_correlation_max': 0.1438}
    """

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(joint=True, **kwargs)
        self.num_classes = whole_number("num_classes", num_classes, at_least=1)

    def update(  # type: ignore[override]
        self, mean: Tensor, log_var: Tensor, labels: Tensor, mask: Tensor | None = None, dim: int = 1
    ) -> None:
        """Add codes and their classes, see ``CodeMetric.update``.

        Args:
            mean: ``(B, K, ...)``.
            log_var: the shape of ``mean``; ``-inf`` where a code has no noise.
            labels: integers ``(B,)``; all positions of an example have its class.
            mask: ``(B, *positions)``: each position where it is true has a code of width K.
            dim: dimension of the K numbers, where there is a mask.

        Raises:
            ValueError: for invalid codes, codes of another width than earlier ones, other labels, or a mask of another
                shape.
        """
        means, log_vars = self.checked(mean, log_var, mask, dim)
        check_labels(labels, (len(mean),), self.num_classes)
        if mask is not None:
            mask = checked_mask(mask, mean, dim)
            labels = labels.view(-1, *[1] * (mask.dim() - 1)).expand_as(mask)[mask]
        rows = {label: labels == label for label in labels.unique().tolist()}
        sums = {label: sums_of(means[own], log_vars[own], joint=True) for label, own in rows.items()}
        self.add_sums(sums, means.shape[1])
        self.fold()

    def in_float64(self) -> dict[str, Tensor]:
        """Return the unrounded results of the codes so far, on this process unless the metric is synchronised."""
        classes = self.groups
        if not classes:
            raise ValueError("class-conditional total correlation needs at least 2 codes; got 0")
        counts = torch.stack([sums.count for sums in classes.values()])
        correlations = [correlations_of(sums, f"codes of class {label}") for label, sums in classes.items()]
        found = torch.stack([one.total_correlation for one in correlations])
        return {"total_correlation": (counts / counts.sum() * found).sum(), "total_correlation_max": found.max()}
