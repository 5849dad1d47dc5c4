"""Base class of the metrics that compare codes with known factors, and how rows are checked, ordered and split."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.metrics.base import RowMetric, check_finite, flat

Array: TypeAlias = NDArray[Any]
Names: TypeAlias = Sequence[str] | None  # of factors
Named: TypeAlias = list[tuple[str, Array]]  # each factor's name and values


class FactorError(ValueError):
    """Too few rows, dimensions or factors, or a factor that does not vary: these data have no score."""


class FactorMetric(RowMetric):
    """Base of metrics that keep all codes and factors in memory, in float64.

    Args:
        names: of the factors. Default: ``factor_0``, ``factor_1``, ...
        kwargs: those of ``torchmetrics.Metric``.

    Raises:
        ConfigurationError: for names that repeat, or another number of names than of factors.
    """

    higher_is_better = True
    layout_size = 3  # dimensions of the code, number of factors, 1 for classes and 0 for numbers

    def __init__(self, names: Names = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.names = None if names is None else tuple(names)
        if self.names is not None and len(set(self.names)) < len(self.names):
            raise ConfigurationError(f"names must be different; got {self.names}")

    def describe(self, *layout: int) -> str:
        """Return the width of codes, and number and kind of factors, in words."""
        width, count, classes = layout
        return f"codes of {width} dimensions with {count} {'classes' if classes else 'numbers'}"

    def update(self, mean: Tensor, factors: Tensor) -> None:
        """Add codes and the factors of their examples.

        Args:
            mean: ``(B, K, ...)``, flattened to ``(B, K)``.
            factors: ``(B, F)`` or ``(B,)``. An integer (or bool) tensor holds classes, a float tensor numbers.

        Raises:
            ValueError: for other shapes, values that are not finite, or another K, F or kind than before.
        """
        codes, factors = checked(mean, factors)
        if self.names is not None and len(self.names) != factors.shape[1]:
            raise ConfigurationError(f"names={self.names} need as many factors; got {tuple(factors.shape)}")
        rows = torch.cat([codes, factors.double()], 1)
        self.add_rows(rows, codes.shape[1], factors.shape[1], not factors.is_floating_point())

    def known(self) -> tuple[Tensor, Tensor]:
        """Return all codes ``(N, K)`` in float64, and all factors ``(N, F)``: int64 for classes, else float64."""
        width, count, classes = self.layout or (1, 1, 0)
        codes, factors = flat(self.rows).view(-1, width + count).split([width, count], 1)
        return codes, factors.long() if classes else factors

    def gaps(self, name: str, gaps: Tensor) -> dict[str, Tensor]:
        """Return the mean of gaps ``(F,)`` and that of each factor, by name, as ``scalars``."""
        names = (f"{name}_{factor}" for factor in factor_names(self.names, len(gaps)))
        return self.scalars({name: gaps.mean().item(), **dict(zip(names, gaps.tolist(), strict=True))})

    def scalars(self, values: dict[str, float]) -> dict[str, Tensor]:
        """Return values as float32 scalars on the device of the metric."""
        return {name: torch.tensor(value, dtype=torch.float32, device=self.device) for name, value in values.items()}


def checked(mean: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes ``(B, K)`` in float64 and factors ``(B, F)``, if they have as many rows and are finite."""
    factors = factors[:, None] if factors.dim() == 1 else factors
    if mean.dim() < 2 or factors.dim() != 2 or 0 in (*mean.shape[1:], *factors.shape[1:]):
        got = f"{tuple(mean.shape)} and {tuple(factors.shape)}"
        raise ValueError(f"codes must be (B, K, ...) and factors (B, F) or (B,); got {got}")
    if len(mean) != len(factors):
        raise ValueError(f"codes and factors must have as many rows; got {len(mean)} and {len(factors)}")
    check_finite("codes must be finite", mean)
    check_finite("factors must be finite", factors)
    return mean.detach().flatten(1).double(), factors.detach()


def ordered(
    codes: Tensor, factors: Tensor, names: Names, who: str, rows: int, dimensions: int = 1
) -> tuple[Array, Named]:
    """Return codes ``(N, K)`` and the name and values ``(N,)``, int64 or float64, of each factor, with sorted rows.

    A later draw by seed then does not depend on the order in which rows came.

    Args:
        codes: ``(N, K)``.
        factors: ``(N, F)`` or ``(N,)``; integers are classes.
        names: of the factors, for errors.
        who: the metric, for errors.
        rows: the least number of rows.
        dimensions: the least number of dimensions.

    Raises:
        FactorError: for fewer rows or dimensions, or a factor that does not vary.
        ValueError: for invalid codes or factors.
    """
    codes, factors = checked(codes, factors)
    if len(codes) < rows:
        raise FactorError(f"{who} needs at least {rows} rows of codes and factors; got {len(codes)}")
    if codes.shape[1] < dimensions:
        raise FactorError(f"{who} needs codes of at least {dimensions} dimensions; got {codes.shape[1]}")
    kind = torch.float64 if factors.is_floating_point() else torch.int64
    z, y = codes.cpu().numpy() + 0.0, factors.to(kind).cpu().numpy()  # + 0.0 makes -0 a 0
    columns = list(zip(factor_names(names, y.shape[1]), y.T, strict=True))
    for name, column in columns:
        if (column == column[0]).all():
            raise FactorError(f"{who} needs factors that vary; {name!r} is {column[0]} in all {len(column)} rows")
    order = np.lexsort((*y.T[::-1], *z.T[::-1]))
    return z[order], [(name, column[order]) for name, column in columns]


def halves(factor: Array, name: str, seed: int, test_size: float = 0.5) -> tuple[Array, Array]:
    """Draw rows to train on and rows to score on; of each class the same share, up to a row.

    Raises:
        FactorError: if the factor does not vary in either of them.
    """
    order = np.random.default_rng(seed).permutation(len(factor))
    if is_class(factor):
        order = order[np.argsort(factor[order], kind="stable")]
    scored = np.diff(np.floor(test_size * np.arange(len(factor) + 1))) > 0
    train, test = order[~scored], order[scored]
    for purpose, part in (("train on", train), ("score on", test)):
        if not len(part) or (factor[part] == factor[part[0]]).all():
            raise FactorError(f"{name!r} does not vary in the {len(part)} rows to {purpose}: it needs more rows")
    return train, test


def is_class(factor: Array) -> bool:
    """Return whether a factor holds classes, that is integers."""
    return np.issubdtype(factor.dtype, np.integer)


def factor_names(names: Names, count: int) -> tuple[str, ...]:
    """Return the names of ``count`` factors."""
    return tuple(f"factor_{i}" for i in range(count)) if names is None else tuple(names)
