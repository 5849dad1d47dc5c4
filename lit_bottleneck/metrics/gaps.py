"""Gaps between the two dimensions of a code that know a factor best: of mutual information, and of scores."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_bottleneck.checks import whole_number
from lit_bottleneck.metrics.factor_metric import Array, FactorMetric, Names, halves, is_class, ordered

_COLLAPSED = 1e-12  # a variance, that of arXiv 1811.12359


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
    from sklearn.metrics import mutual_info_score  # here: it takes up to a second

    z, named_factors = ordered(codes, factors, names, "MIG", rows=num_bins, dimensions=2)
    bins = [_binned(dimension, num_bins) for dimension in z.T]
    gaps = []
    for _, factor in named_factors:
        classes = _binned(factor, num_bins) if len(np.unique(factor)) > num_bins and not is_class(factor) else factor
        classes = np.unique(classes, return_inverse=True)[1]
        second, first = sorted(mutual_info_score(classes, dimension) for dimension in bins)[-2:]
        gaps.append((first - second) / mutual_info_score(classes, classes))
    return torch.tensor(gaps, dtype=torch.float64)


class SAP(FactorMetric):
    """Separated attribute predictability; see ``attribute_gaps``.

    ``compute`` returns ``sap``, the mean over factors, and ``sap_{name}`` for each factor.

    Args:
        seed: of the halves. The global random state is neither read nor changed.
        names: of the factors. Default: ``factor_0``, ``factor_1``, ...
        kwargs: those of ``torchmetrics.Metric``.

    Raises:
        ConfigurationError: for names that repeat.
        ValueError: by ``update`` for invalid codes or factors; by ``compute`` for fewer than 4 rows or 2 dimensions, or
            a factor that does not vary.

    >>> metric = SAP(names=["scale"])
    >>> metric.update(torch.tensor([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]), torch.arange(4.0))
    >>> metric.compute()
    {'sap': tensor(1.), 'sap_scale': tensor(1.)}
    """

    def __init__(self, seed: int = 0, names: Names = None, **kwargs: Any) -> None:
        super().__init__(names, **kwargs)
        self.seed = seed

    def compute(self) -> dict[str, Tensor]:
        """Return float32 scalars by name."""
        return self.gaps("sap", attribute_gaps(*self.known(), self.seed, self.names))


def attribute_gaps(codes: Tensor, factors: Tensor, seed: int = 0, names: Names = None) -> Tensor:
    """Return by how much one dimension predicts each factor better than any other dimension does (arXiv 1711.00848).

    The difference of the two best scores of single dimensions. For numbers, a score is the squared correlation over all
    rows. For classes, it is the balanced accuracy on one half of the rows of a linear classifier that was fitted to the
    other half: the nearest class mean, which is linear discriminant analysis with equal priors. (The authors' linear
    SVM, one class against the rest, cannot find a class that lies between others on a line.)

    A dimension with a variance of at most 1e-12 is collapsed: beside the noise of a code of N(0, 1) it says nothing
    about a factor, and is scored as a constant, as in arXiv 1811.12359.

    Args:
        codes: ``(N, K)``.
        factors: ``(N, F)`` or ``(N,)``; integers are classes.
        seed: of the halves.
        names: of the factors, for errors.

    Returns:
        ``(F,)`` gaps in [0, 1], float64.

    Raises:
        ValueError: for fewer than 4 rows or 2 dimensions, or a factor that does not vary.

    >>> attribute_gaps(torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [3.0, 2.0]]), torch.arange(4.0))
    tensor([0.6000], dtype=torch.float64)
    """
    z, named_factors = ordered(codes, factors, names, "SAP", rows=4, dimensions=2)
    z = np.where(z.var(0) <= _COLLAPSED, 0.0, z)
    gaps = []
    for name, factor in named_factors:
        if is_class(factor):
            train, test = halves(factor, name, seed)
            scores = _nearest_mean(z[train], factor[train], z[test], factor[test])
        else:
            scores = _squared_correlations(z, factor)
        second, first = np.sort(scores)[-2:]
        gaps.append(first - second)
    return torch.tensor(gaps, dtype=torch.float64)


def _binned(values: Array, num_bins: int) -> Array:
    """Return the bin of each value, for bins of equal width; one bin if all values are the same."""
    span = np.ptp(values) or 1.0
    bins: Array = np.minimum(((values - values.min()) / span * num_bins).astype(np.int64), num_bins - 1)
    return bins


def _squared_correlations(z: Array, factor: Array) -> Array:
    """Return those of every dimension, ``(K,)``; 0 for one that does not vary."""
    z, factor = z - z.mean(0), factor - factor.mean()
    z = np.where(np.ptp(z, 0) == 0, 0.0, z)  # the mean of equal numbers may round
    squares = (z**2).sum(0) * (factor**2).sum()
    correlations: Array = np.divide((z.T @ factor) ** 2, squares, out=np.zeros_like(squares), where=squares > 0)
    return correlations


def _nearest_mean(z: Array, classes: Array, z_scored: Array, classes_scored: Array) -> Array:
    """Return the balanced accuracy of every dimension alone, ``(K,)``."""
    known, index, counts = np.unique(classes, return_inverse=True, return_counts=True)
    means = [np.bincount(index, dimension) / counts for dimension in z.T]
    _, scored, sizes = np.unique(classes_scored, return_inverse=True, return_counts=True)
    right = [known[_nearest(*pair)] == classes_scored for pair in zip(z_scored.T, means, strict=True)]
    accuracy: Array = np.mean([np.bincount(scored, hits) / sizes for hits in right], axis=1)
    return accuracy


def _nearest(values: Array, means: Array) -> Array:
    """Return the place among the means ``(C,)`` of that which is nearest to each value ``(N,)``; of several the first.

    All distances would take ``N C`` numbers.
    """
    ascending, place = np.unique(means, return_index=True)
    above = np.searchsorted(ascending, values).clip(1, max(1, len(ascending) - 1))
    pairs = np.stack([above - 1, np.minimum(above, len(ascending) - 1)])
    distances = np.abs(values - ascending[pairs])
    first: Array = np.where(distances == distances.min(0), place[pairs], len(means)).min(0)
    return first
