"""Mutual information gap of the dimensions of a code."""

from typing import Any

import numpy as np
import torch
from sklearn.metrics import mutual_info_score
from torch import Tensor

from lit_bottleneck.checks import whole_number
from lit_bottleneck.metrics.factor_metric import Array, FactorMetric, Names, is_class, ordered


class MIG(FactorMetric):
    """Mutual information gap; see ``mutual_information_gaps``.

    ``compute`` returns ``mig``, the mean over factors, and ``mig_{name}`` for each factor.

    Args:
        num_bins: of every dimension of the code.
        names: of the factors. Default: ``factor_0``, ``factor_1``, ...
        kwargs: those of ``torchmetrics.Metric``.

    Raises:
        ConfigurationError: for ``num_bins`` below 2, or names that repeat.
        ValueError: by ``update`` for invalid codes or factors; by ``compute`` for fewer than ``num_bins`` rows or 2
            dimensions, or a factor that does not vary.

    >>> metric = MIG(num_bins=2, names=["shape"])
    >>> metric.update(torch.tensor([[0.1, 0.5], [0.9, 0.5], [0.1, 0.5], [0.9, 0.5]]), torch.tensor([0, 1, 0, 1]))
    >>> metric.compute()
    {'mig': tensor(1.), 'mig_shape': tensor(1.)}
    """

    def __init__(self, num_bins: int = 20, names: Names = None, **kwargs: Any) -> None:
        super().__init__(names, **kwargs)
        self.num_bins = whole_number("num_bins", num_bins, at_least=2)

    def compute(self) -> dict[str, Tensor]:
        """Return float32 scalars by name."""
        return self.gaps("mig", mutual_information_gaps(*self.known(), self.num_bins, self.names))


def mutual_information_gaps(codes: Tensor, factors: Tensor, num_bins: int = 20, names: Names = None) -> Tensor:
    """Return by how much one dimension knows each factor better than any other dimension does (arXiv 1802.04942).

    ``(I(z_1; v) - I(z_2; v)) / H(v)`` with the two dimensions of the largest mutual information. Both are those of the
    counts in ``num_bins`` bins of equal width per dimension, as in arXiv 1811.12359. A float factor of more than
    ``num_bins`` values is binned too; otherwise each value is a class. Few rows per bin make every mutual information
    too large.

    Args:
        codes: ``(N, K)``.
        factors: ``(N, F)`` or ``(N,)``; integers are classes.
        num_bins: of every dimension.
        names: of the factors, for errors.

    Returns:
        ``(F,)`` gaps in [0, 1], float64.

    Raises:
        ValueError: for fewer than ``num_bins`` rows or 2 dimensions, or a factor that does not vary.

    >>> mutual_information_gaps(torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), torch.arange(4), 2)
    tensor([0.], dtype=torch.float64)
    """
    z, named_factors = ordered(codes, factors, names, "MIG", rows=num_bins, dimensions=2)
    bins = [_binned(dimension, num_bins) for dimension in z.T]
    gaps = []
    for _, factor in named_factors:
        classes = _binned(factor, num_bins) if len(np.unique(factor)) > num_bins and not is_class(factor) else factor
        classes = np.unique(classes, return_inverse=True)[1]
        second, first = sorted(mutual_info_score(classes, dimension) for dimension in bins)[-2:]
        gaps.append((first - second) / mutual_info_score(classes, classes))
    return torch.tensor(gaps, dtype=torch.float64)


def _binned(values: Array, num_bins: int) -> Array:
    """Return the bin of each value, for bins of equal width; one bin if all values are the same."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.zeros(len(values), dtype=np.int64)
    return np.minimum(((values - low) / (high - low) * num_bins).astype(np.int64), num_bins - 1)
