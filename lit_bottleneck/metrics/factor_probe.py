"""Scores of predictors of factors from the code."""

import warnings
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from lit_bottleneck.checks import ConfigurationError, one_of, whole_number
from lit_bottleneck.metrics.factor_metric import Array, FactorMetric, Named, Names, halves, is_class, ordered

ProbeKind = Literal["linear", "mlp"]
_KINDS: tuple[ProbeKind, ...] = ("linear", "mlp")
_HIDDEN = 128
_HELD_OUT = 10  # early stopping holds out one row in ten


class Probed(NamedTuple):
    """Score of a probe.

    Attributes:
        score: accuracy for classes; R2 for numbers, negative if the mean would have been better.
        chance: for classes, the share of the most frequent one among the scored rows; None for numbers.
    """

    score: float
    chance: float | None


class FactorProbe(FactorMetric):
    """Score of a probe for every factor, ``{name}``, and for classes also ``{name}_chance``: see ``probe``.

    Args:
        kind: ``"linear"`` (ridge or logistic regression) or ``"mlp"`` (one hidden layer of 128).
        test_size: the share of the rows to score on; the probe is trained on the others.
        seed: of the rows and of the network. The global random state is neither read nor changed.
        names: of the factors. Default: ``factor_0``, ``factor_1``, ...
        max_rows: the number of rows to use, drawn at random if there are more.
        kwargs: those of ``torchmetrics.Metric``.

    Raises:
        ConfigurationError: for arguments out of range, or names that repeat.
        ValueError: by ``update`` for invalid codes or factors; by ``compute`` for fewer than 4 rows or a factor that
            does not vary.

    >>> import torch
    >>> metric, angle = FactorProbe(names=["angle"]), torch.linspace(0, 1, 100)
    >>> metric.update(torch.stack([angle, angle.square()], 1), angle)
    >>> {name: round(value.item(), 2) for name, value in metric.compute().items()}
    {'angle': 1.0}
    """

    def __init__(
        self,
        kind: ProbeKind = "linear",
        test_size: float = 0.5,
        seed: int = 0,
        names: Names = None,
        max_rows: int = 10_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(names, **kwargs)
        _check(kind, test_size, max_rows)
        self.kind, self.test_size, self.seed, self.max_rows = kind, test_size, seed, max_rows

    def compute(self) -> dict[str, Tensor]:
        """Return float32 scalars by name."""
        z, named_factors = _rows(*self.known(), self.names, self.seed, self.max_rows)
        scores: dict[str, float] = {}
        for name, factor in named_factors:
            scores[name], chance = _probe(z, factor, name, self.kind, self.test_size, self.seed)
            if chance is not None:
                scores[f"{name}_chance"] = chance
        return self.scalars(scores)


def probe(
    codes: Tensor,
    factor: Tensor,
    kind: ProbeKind = "linear",
    test_size: float = 0.5,
    seed: int = 0,
    max_rows: int = 10_000,
) -> Probed:
    """Train a predictor of a factor on some of the rows, and score it on the others.

    Codes (and numbers) are standardised by the rows that are trained on. A factor that a probe does not find may be in
    the code all the same.

    Args:
        codes: ``(N, K)``.
        factor: ``(N,)``; integers are classes.
        kind: ``"linear"``, ridge or logistic regression with a penalty of 1; ``"mlp"``, one hidden layer of 128, with
            early stopping if there are 100 rows to train on, and 10 of each class.
        test_size: the share of the rows to score on.
        seed: of the rows and of the network.
        max_rows: the number of rows to use, drawn at random if there are more.

    Raises:
        ConfigurationError: for arguments out of range.
        ValueError: for fewer than 4 rows, or a factor that does not vary.

    >>> import torch
    >>> probe(torch.tensor([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]]), torch.tensor([0, 0, 0, 1, 1, 1])).score
    1.0
    """
    _check(kind, test_size, max_rows)
    if factor.dim() != 1:
        raise ValueError(f"factor must be (N,); got {tuple(factor.shape)}")
    z, [(name, values)] = _rows(codes, factor, ["factor"], seed, max_rows)
    return _probe(z, values, name, kind, test_size, seed)


def _check(kind: ProbeKind, test_size: float, max_rows: int) -> None:
    one_of("kind", kind, _KINDS)
    whole_number("max_rows", max_rows, at_least=4)
    if not 0 < test_size < 1:
        raise ConfigurationError(f"test_size must be above 0 and below 1; got {test_size!r}")


def _rows(codes: Tensor, factors: Tensor, names: Names, seed: int, max_rows: int) -> tuple[Array, Named]:
    z, named_factors = ordered(codes, factors, names, "a probe", rows=4)
    some = np.random.default_rng(seed).permutation(len(z))[:max_rows]
    return z[some], [(name, factor[some]) for name, factor in named_factors]


def _probe(z: Array, factor: Array, name: str, kind: ProbeKind, test_size: float, seed: int) -> Probed:
    from sklearn.exceptions import ConvergenceWarning  # here: scikit-learn takes up to a second
    from sklearn.metrics import accuracy_score, r2_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, test = halves(factor, name, seed, test_size)
    target = factor if is_class(factor) else (factor - factor[train].mean()) / factor[train].std()
    predictor = make_pipeline(StandardScaler(), _predictor(target[train], kind, seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the score shows how far it came
        predicted = predictor.fit(z[train], target[train]).predict(z[test])
    if not is_class(factor):
        return Probed(float(r2_score(target[test], predicted)), None)
    counts = np.unique(factor[test], return_counts=True)[1]
    return Probed(float(accuracy_score(target[test], predicted)), float(counts.max() / counts.sum()))


def _predictor(target: Array, kind: ProbeKind, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    if kind == "linear":
        return LogisticRegression(max_iter=1000) if is_class(target) else Ridge()
    smallest = np.unique(target, return_counts=True)[1].min() if is_class(target) else len(target)
    stopped = len(target) >= _HELD_OUT**2 and smallest >= _HELD_OUT
    network = MLPClassifier if is_class(target) else MLPRegressor
    return network(
        hidden_layer_sizes=(_HIDDEN,),
        max_iter=500,
        early_stopping=stopped,
        validation_fraction=1 / _HELD_OUT,
        random_state=seed,
    )
