"""Disentanglement, completeness and informativeness of a code."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_bottleneck.checks import whole_number
from lit_bottleneck.metrics.factor_metric import FactorError, FactorMetric, Names, halves, is_class, ordered

_LEAF = 5  # rows: smaller leaves split noise, and every dimension would matter


class DCI(FactorMetric):
    """Disentanglement, completeness and informativeness (Eastwood and Williams, ICLR 2018).

    A random forest predicts each factor from the whole code; the importance of each dimension to it (see
    ``forest_importance``) goes into ``disentanglement_completeness``. ``informativeness`` is the mean score of the
    forests: accuracy for classes (chance is not 0), R2 for numbers. For N rows of K dimensions the time is that of
    ``num_trees`` trees for each factor, of about ``K N log N`` each.

    Args:
        num_trees: of each forest.
        seed: of the halves and of the forests. The global random state is neither read nor changed.
        names: of the factors, for errors.
        kwargs: those of ``torchmetrics.Metric``.

    Raises:
        ConfigurationError: for ``num_trees`` below 1, or names that repeat.
        ValueError: by ``update`` for invalid codes or factors; by ``compute`` for fewer than 20 rows, 2 dimensions or 2
            factors, or a factor that does not vary.

    >>> metric, factors = DCI(), torch.cartesian_prod(torch.arange(4), torch.arange(4)).repeat(40, 1)
    >>> metric.update(factors.float(), factors)
    >>> {name: round(value.item(), 2) for name, value in metric.compute().items()}
    {'disentanglement': 1.0, 'completeness': 1.0, 'informativeness': 1.0}
    """

    def __init__(self, num_trees: int = 20, seed: int = 0, names: Names = None, **kwargs: Any) -> None:
        super().__init__(names, **kwargs)
        self.num_trees = whole_number("num_trees", num_trees, at_least=1)
        self.seed = seed

    def compute(self) -> dict[str, Tensor]:
        """Return ``disentanglement``, ``completeness`` and ``informativeness``, float32 scalars by name."""
        importance, scores = forest_importance(*self.known(), self.num_trees, self.seed, self.names)
        disentanglement, completeness = disentanglement_completeness(importance)
        values = {"disentanglement": disentanglement, "completeness": completeness, "informativeness": scores.mean()}
        return self.scalars({name: value.item() for name, value in values.items()})


def forest_importance(
    codes: Tensor, factors: Tensor, num_trees: int = 20, seed: int = 0, names: Names = None
) -> tuple[Tensor, Tensor]:
    """Fit a random forest per factor on one half of the rows, and score it on the other.

    Args:
        codes: ``(N, K)``.
        factors: ``(N, F)`` or ``(N,)``; integers are classes.
        num_trees: of each forest. Every split may use any dimension, and leaves at least 5 rows on each side.
        seed: of the halves and of the forests.
        names: of the factors, for errors.

    Returns:
        The importance (mean decrease of impurity) of every dimension for every factor, ``(K, F)``, with columns that
        sum to 1 (or 0, where the code does not vary); and the scores ``(F,)``, accuracy for classes and R2 for numbers.
        Both float64.

    Raises:
        ValueError: for fewer than 20 rows or 2 dimensions, or a factor that does not vary.

    >>> factor = torch.arange(40.0)
    >>> importance, scores = forest_importance(torch.stack([factor, torch.zeros(40)], 1), factor)
    >>> importance
    tensor([[1.],
            [0.]], dtype=torch.float64)
    """
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor  # here: it takes up to a second

    z, named_factors = ordered(codes, factors, names, "DCI", rows=4 * _LEAF, dimensions=2)
    importance, scores = [], []
    for name, factor in named_factors:
        train, test = halves(factor, name, seed)
        forest = (RandomForestClassifier if is_class(factor) else RandomForestRegressor)(
            num_trees, max_features=None, min_samples_leaf=_LEAF, random_state=seed
        ).fit(z[train], factor[train])
        importance.append(forest.feature_importances_)
        scores.append(forest.score(z[test], factor[test]))
    return torch.from_numpy(np.stack(importance, 1)), torch.tensor(scores, dtype=torch.float64)


def disentanglement_completeness(importance: Tensor) -> tuple[Tensor, Tensor]:
    """Return how few factors a dimension matters to, and how few dimensions a factor needs (Eastwood, Williams, 2018).

    Disentanglement of a dimension is 1 minus the entropy of its importances, to the base of the number of factors;
    their mean weights each dimension by its share of all importance. Completeness of a factor is the same over
    dimensions, with a plain mean. A factor to which nothing matters has completeness 0; if nothing matters at all, both
    are 0.

    Args:
        importance: ``(K, F)``, not negative.

    Returns:
        Disentanglement and completeness, two float64 scalars in [0, 1].

    Raises:
        ValueError: for other values, or fewer than 2 dimensions or factors.

    >>> disentanglement_completeness(torch.tensor([[1.0, 0.0], [0.0, 0.5], [0.0, 0.5]]))
    (tensor(1., dtype=torch.float64), tensor(0.6845, dtype=torch.float64))
    """
    if importance.dim() != 2 or min(importance.shape) < 2:
        got = tuple(importance.shape)
        raise FactorError(f"importance must be (K, F), of at least 2 dimensions and 2 factors; got {got}")
    if not (importance.isfinite() & (importance >= 0)).all():
        raise ValueError("importance must be finite and not negative")
    importance = importance.double()
    weights = importance.sum(1) / importance.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return (weights * _concentration(importance)).sum(), _concentration(importance.T).mean()


def _concentration(rows: Tensor) -> Tensor:
    """Return 1 minus the entropy of each row, to the base of its length; 0 for a row of zeros."""
    total = rows.sum(1, keepdim=True)
    shares = torch.where(total > 0, rows / total, 0.0)
    entropy: Tensor = torch.special.entr(shares).sum(1) / math.log(rows.shape[1])
    return torch.where(total[:, 0] > 0, 1 - entropy, 0.0).clamp(0, 1)
