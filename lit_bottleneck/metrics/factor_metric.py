"""Codes of examples beside the factors these were made by: kept, checked, put in order and split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_bottleneck.metrics.base import Float64Metric

Array: TypeAlias = NDArray[Any]


class FactorError(ValueError):
    """There are too few rows, dimensions or factors, or a factor does not vary: nothing can be said of these data."""


class FactorMetric(Float64Metric):
    """All codes and factors, kept in memory in float64.

    Args:
        names: of the factors; by default ``factor_0``, ``factor_1``, ...
        kwargs: those of `torchmetrics.Metric`.

    Raises:
        ValueError: for names that are not different.
    """

    higher_is_better = True

    rows: list[Tensor]
    layout: Tensor

    def __init__(self, names: Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.names = None if names is None else tuple(names)
        if self.names is not None and len(set(self.names)) < len(self.names):
            raise ValueError(f"names must be different; got {self.names}")
        # Flat, so that a process that saw nothing, and so no width, can take part in gathering.
        self.add_state("rows", [], dist_reduce_fx="cat")
        # Width of the codes, number of factors, whether there were classes, whether there were numbers.
        self.add_state("layout", torch.zeros(4, dtype=torch.int64), dist_reduce_fx="max")

    def update(self, mean: Tensor, factors: Tensor) -> None:
        """Take in codes and what their examples were made by.

        Args:
            mean: ``(B, K, ...)``, flattened to ``(B, K)``.
            factors: ``(B, F)`` or ``(B,)``. An integer (or bool) tensor holds classes, a float tensor numbers.

        Raises:
            ValueError: for other shapes, values that are not finite, or another K, F or kind than before.
        """
        codes, factors = checked(mean, factors)
        if self.names is not None and len(self.names) != factors.shape[1]:
            raise ValueError(f"names={self.names} need as many factors; got {tuple(factors.shape)}")
        classes = not factors.is_floating_point()
        layout = self.layout.new_tensor([codes.shape[1], factors.shape[1], classes, not classes])
        if self.layout.any() and not layout.equal(self.layout):
            raise ValueError(
                f"codes and factors must be of the widths and the kind of those before, {_told(self.layout)}; "
                f"got {_told(layout)}"
            )
        self.layout = layout
        self.rows.append(torch.cat([codes, factors.double()], 1).flatten())

    def known(self) -> tuple[Tensor, Tensor]:
        """Return all codes ``(N, K)`` in float64, and all factors ``(N, F)``: int64 if classes, else float64."""
        width, count, classes, numbers = self.layout.tolist()
        if not width:
            return torch.empty(0, 1, dtype=torch.float64), torch.empty(0, 1, dtype=torch.float64)
        if classes and numbers:
            raise ValueError("factors must be classes in all processes, or numbers in all; got both")
        kept = torch.cat(list(self.rows)) if isinstance(self.rows, list) else self.rows
        codes, factors = kept.view(-1, width + count).split([width, count], 1)
        return codes, factors.long() if classes else factors

    def named(self) -> tuple[str, ...]:
        """Return the names of the factors."""
        return factor_names(self.names, int(self.layout[1]))

    def scalar(self, value: float) -> Tensor:
        """Return a float32 scalar on the device of the metric."""
        return torch.tensor(float(value), dtype=torch.float32, device=self.device)

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        if not len(self.rows):  # torchmetrics would send an empty tensor of another precision
            self.rows = [torch.empty(0, dtype=torch.float64, device=self.device)]
        super()._sync_dist(*args, **kwargs)


def checked(mean: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes ``(B, K)`` in float64 and factors ``(B, F)``, if they are of as many rows and finite."""
    factors = factors[:, None] if factors.dim() == 1 else factors
    if mean.dim() < 2 or factors.dim() != 2 or 0 in (*mean.shape[1:], *factors.shape[1:]):
        raise ValueError(
            f"codes must be (B, K, ...) and factors (B, F) or (B,); got {tuple(mean.shape)} and {tuple(factors.shape)}"
        )
    if len(mean) != len(factors):
        raise ValueError(f"there must be as many codes as rows of factors; got {len(mean)} and {len(factors)}")
    for name, values in (("codes", mean), ("factors", factors)):
        bad = len(values) - int(values.flatten(1).isfinite().all(1).sum())
        if bad:
            raise ValueError(f"{name} must be finite; {bad} of {len(values)} rows have an infinity or NaN")
    return mean.detach().flatten(1).double(), factors.detach()


def ordered(
    codes: Tensor, factors: Tensor, names: Sequence[str] | None, who: str, rows: int, dimensions: int = 1
) -> tuple[Array, Array]:
    """Return codes ``(N, K)`` and factors ``(N, F)``, int64 or float64, their rows in an order of their own.

    However the rows came, what is drawn by a seed afterwards is then the same.

    Raises:
        FactorError: for less than ``rows`` rows or ``dimensions`` dimensions, or a factor that does not vary.
        ValueError: for what `checked` refuses.
    """
    codes, factors = checked(codes, factors)
    if len(codes) < rows:
        raise FactorError(f"{who} needs at least {rows} rows of codes and factors; got {len(codes)}")
    if codes.shape[1] < dimensions:
        raise FactorError(f"{who} needs codes of at least {dimensions} dimensions; got {codes.shape[1]}")
    kind = torch.float64 if factors.is_floating_point() else torch.int64
    z, y = codes.cpu().numpy() + 0.0, factors.to(kind).cpu().numpy()  # + 0.0: there is but one zero
    for name, column in zip(factor_names(names, y.shape[1]), y.T, strict=True):
        if (column == column[0]).all():
            raise FactorError(f"{who} needs factors that vary; {name!r} is {column[0]} in all {len(column)} rows")
    order = np.lexsort((*y.T[::-1], *z.T[::-1]))
    return z[order], y[order]


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
    """Say whether a factor holds classes: integers."""
    return np.issubdtype(factor.dtype, np.integer)


def factor_names(names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """Return the names of ``count`` factors."""
    return tuple(f"factor_{i}" for i in range(count)) if names is None else tuple(names)


def _told(layout: Tensor) -> str:
    width, count, classes, _ = layout.tolist()
    return f"codes of {width} dimensions and {count} {'classes' if classes else 'numbers'}"
