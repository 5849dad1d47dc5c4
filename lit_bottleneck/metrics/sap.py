"""Separated attribute predictability of a code."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_bottleneck.metrics.factor_metric import Array, FactorMetric, Names, halves, is_class, ordered


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


def _squared_correlations(z: Array, factor: Array) -> Array:
    """Return those of every dimension, ``(K,)``; 0 for one that does not vary."""
    z, factor = z - z.mean(0), factor - factor.mean()
    z = np.where(np.ptp(z, 0) == 0, 0.0, z)  # the mean of equal numbers may round
    squares = (z**2).sum(0) * (factor**2).sum()
    correlations: Array = np.divide((z.T @ factor) ** 2, squares, out=np.zeros_like(squares), where=squares > 0)
    return correlations


def _nearest_mean(z: Array, classes: Array, z_scored: Array, classes_scored: Array) -> Array:
    """Return the balanced accuracy of every dimension alone, ``(K,)``."""
    known, index = np.unique(classes, return_inverse=True)
    means = np.stack([z[index == i].mean(0) for i in range(len(known))])
    nearest = [known[np.abs(z[:, None] - mean).argmin(1)] for z, mean in zip(z_scored.T, means.T, strict=True)]
    right = np.stack(nearest) == classes_scored
    accuracy: Array = np.mean([right[:, classes_scored == one].mean(1) for one in np.unique(classes_scored)], axis=0)
    return accuracy
