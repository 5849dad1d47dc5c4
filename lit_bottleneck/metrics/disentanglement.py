"""Whether each dimension of the code is about one factor, and each factor in one dimension.

None of it holds without labels: which factors count is in the data, not in the code (arXiv 1811.12359). Scores of other
estimators and other numbers of examples cannot be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.metrics import mutual_info_score
from torch import Tensor

from lit_bottleneck.checks import whole_number
from lit_bottleneck.metrics.factor_metric import Array, FactorMetric, factor_names, halves, is_class, ordered
from lit_bottleneck.metrics.importance import disentanglement_completeness, forest_importance


class MIG(FactorMetric):
    """Mutual information gap, as `mutual_information_gaps`: ``mig``, their mean, and ``mig_{name}`` for each factor.

    Args:
        num_bins: of every dimension of the code.
        names: of the factors; by default ``factor_0``, ``factor_1``, ...
        kwargs: those of `torchmetrics.Metric`.

    Raises:
        ValueError: by ``update`` for what is not codes and factors; by ``compute`` for less than ``num_bins`` rows or 2
            dimensions, or a factor that does not vary.

    >>> metric = MIG(num_bins=2, names=["shape"])
    >>> metric.update(torch.tensor([[0.1, 0.5], [0.9, 0.5], [0.1, 0.5], [0.9, 0.5]]), torch.tensor([0, 1, 0, 1]))
    >>> metric.compute()
    {'mig': tensor(1.), 'mig_shape': tensor(1.)}
    """

    def __init__(self, num_bins: int = 20, names: Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(names, **kwargs)
        self.num_bins = whole_number("num_bins", num_bins, at_least=2)

    def compute(self) -> dict[str, Tensor]:
        """Return the scalars by name."""
        return _by_name(self, "mig", mutual_information_gaps(*self.known(), self.num_bins, self.names))


class SAP(FactorMetric):
    """Separated attribute predictability, as `attribute_gaps`: ``sap``, their mean, and ``sap_{name}`` for each factor.

    Args:
        seed: of the halves. The global random state is neither read nor changed.
        names: of the factors; by default ``factor_0``, ``factor_1``, ...
        kwargs: those of `torchmetrics.Metric`.

    Raises:
        ValueError: by ``update`` for what is not codes and factors; by ``compute`` for less than 4 rows or 2
            dimensions, or a factor that does not vary.

    >>> metric = SAP(names=["scale"])
    >>> metric.update(torch.tensor([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]), torch.arange(4.0))
    >>> metric.compute()
    {'sap': tensor(1.), 'sap_scale': tensor(1.)}
    """

    def __init__(self, seed: int = 0, names: Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(names, **kwargs)
        self.seed = seed

    def compute(self) -> dict[str, Tensor]:
        """Return the scalars by name."""
        return _by_name(self, "sap", attribute_gaps(*self.known(), self.seed, self.names))


class DCI(FactorMetric):
    """Disentanglement, completeness and informativeness (Eastwood and Williams, ICLR 2018).

    How much each dimension matters to a random forest that predicts a factor from the whole code goes into
    `disentanglement_completeness`; see `forest_importance`. ``informativeness`` is the mean of the forests' scores: the
    accuracy (chance is not 0) for classes, R2 for numbers.

    Args:
        num_trees: of each forest.
        seed: of the halves and of the forests. The global random state is neither read nor changed.
        names: of the factors, for messages.
        kwargs: those of `torchmetrics.Metric`.

    Raises:
        ValueError: by ``update`` for what is not codes and factors; by ``compute`` for less than 20 rows, 2 dimensions
            or 2 factors, or a factor that does not vary.

    >>> metric, factors = DCI(), torch.cartesian_prod(torch.arange(4), torch.arange(4)).repeat(40, 1)
    >>> metric.update(factors.float(), factors)
    >>> {name: round(value.item(), 2) for name, value in metric.compute().items()}
    {'disentanglement': 1.0, 'completeness': 1.0, 'informativeness': 1.0}
    """

    def __init__(self, num_trees: int = 20, seed: int = 0, names: Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(names, **kwargs)
        self.num_trees = whole_number("num_trees", num_trees, at_least=1)
        self.seed = seed

    def compute(self) -> dict[str, Tensor]:
        """Return ``{"disentanglement": ..., "completeness": ..., "informativeness": ...}``, three scalars."""
        importance, scores = forest_importance(*self.known(), self.num_trees, self.seed, self.names)
        disentanglement, completeness = disentanglement_completeness(importance)
        values = {"disentanglement": disentanglement, "completeness": completeness, "informativeness": scores.mean()}
        return {name: self.scalar(value.item()) for name, value in values.items()}


def mutual_information_gaps(
    codes: Tensor, factors: Tensor, num_bins: int = 20, names: Sequence[str] | None = None
) -> Tensor:
    """By how much one dimension knows each factor better than any other does (arXiv 1802.04942).

    ``(I(z_1; v) - I(z_2; v)) / H(v)`` with the two dimensions of the largest mutual information. Both are of the
    counts in ``num_bins`` bins of equal width per dimension, as in arXiv 1811.12359. A float factor of more than
    ``num_bins`` values is binned too; of one of less, each value is a class. Few rows per bin make every mutual
    information too large.

    Args:
        codes: ``(N, K)``.
        factors: ``(N, F)`` or ``(N,)``; integers are classes.
        num_bins: of every dimension.
        names: of the factors, for messages.

    Returns:
        ``(F,)`` gaps in [0, 1], float64.

    Raises:
        ValueError: for less than ``num_bins`` rows or 2 dimensions, or a factor that does not vary.

    >>> mutual_information_gaps(torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), torch.arange(4), 2)
    tensor([0.], dtype=torch.float64)
    """
    z, y = ordered(codes, factors, names, "MIG", rows=num_bins, dimensions=2)
    bins = [_binned(dimension, num_bins) for dimension in z.T]
    gaps = []
    for factor in y.T:
        classes = _binned(factor, num_bins) if len(np.unique(factor)) > num_bins and not is_class(factor) else factor
        classes = np.unique(classes, return_inverse=True)[1]
        information = np.array([mutual_info_score(classes, dimension) for dimension in bins])
        gaps.append(_gap(information) / mutual_info_score(classes, classes))
    return torch.tensor(gaps, dtype=torch.float64)


def attribute_gaps(codes: Tensor, factors: Tensor, seed: int = 0, names: Sequence[str] | None = None) -> Tensor:
    """By how much one dimension predicts each factor better than any other does (arXiv 1711.00848).

    The difference of the two best scores of single dimensions. For numbers, a score is the squared correlation, over
    all rows. For classes, it is the balanced accuracy of a linear classifier that is fitted on one half of the rows, on
    the other half: that of the nearest class mean, which is linear discriminant analysis with equal priors. (The
    authors' linear SVM, one class against the rest, cannot find a class that lies between others on a line.)

    Args:
        codes: ``(N, K)``.
        factors: ``(N, F)`` or ``(N,)``; integers are classes.
        seed: of the halves.
        names: of the factors, for messages.

    Returns:
        ``(F,)`` gaps in [0, 1], float64.

    Raises:
        ValueError: for less than 4 rows or 2 dimensions, or a factor that does not vary.

    >>> attribute_gaps(torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [3.0, 2.0]]), torch.arange(4.0))
    tensor([0.6000], dtype=torch.float64)
    """
    z, y = ordered(codes, factors, names, "SAP", rows=4, dimensions=2)
    gaps = []
    for name, factor in zip(factor_names(names, y.shape[1]), y.T, strict=True):
        if is_class(factor):
            train, test = halves(factor, name, seed)
            scores = _nearest_mean(z[train], factor[train], z[test], factor[test])
        else:
            scores = _squared_correlations(z, factor)
        gaps.append(_gap(scores))
    return torch.tensor(gaps, dtype=torch.float64)


def _binned(values: Array, num_bins: int) -> Array:
    """The bin of each value, of bins of equal width; one bin if all are the same."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.zeros(len(values), dtype=np.int64)
    return np.minimum(((values - low) / (high - low) * num_bins).astype(np.int64), num_bins - 1)


def _gap(scores: Array) -> float:
    second, first = np.sort(scores)[-2:]
    return float(first - second)


def _squared_correlations(z: Array, factor: Array) -> Array:
    """Of every dimension ``(K,)``; 0 for one that does not vary."""
    z, factor = z - z.mean(0), factor - factor.mean()
    z = np.where(np.ptp(z, 0) == 0, 0.0, z)  # the mean of equal numbers may round
    squares = (z**2).sum(0) * (factor**2).sum()
    correlations: Array = np.divide((z.T @ factor) ** 2, squares, out=np.zeros_like(squares), where=squares > 0)
    return correlations


def _nearest_mean(z: Array, classes: Array, z_scored: Array, classes_scored: Array) -> Array:
    """Balanced accuracy of every dimension ``(K,)`` alone."""
    known, index = np.unique(classes, return_inverse=True)
    means = np.stack([z[index == i].mean(0) for i in range(len(known))])
    right = np.stack(
        [
            known[np.abs(scored[:, None] - mean).argmin(1)] == classes_scored
            for scored, mean in zip(z_scored.T, means.T, strict=True)
        ]
    )
    accuracy: Array = np.mean([right[:, classes_scored == one].mean(1) for one in np.unique(classes_scored)], axis=0)
    return accuracy


def _by_name(metric: FactorMetric, name: str, gaps: Tensor) -> dict[str, Tensor]:
    each = {f"{name}_{factor}": gap for factor, gap in zip(metric.named(), gaps.tolist(), strict=True)}
    return {key: metric.scalar(value) for key, value in {name: gaps.mean().item(), **each}.items()}
