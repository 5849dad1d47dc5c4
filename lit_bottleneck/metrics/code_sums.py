"""Sums over Gaussian codes, from which their rates and moments follow, and which can be merged."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from lit_bottleneck.functional import kl_per_dimension
from lit_bottleneck.metrics.value_checks import check_finite


@dataclass(frozen=True, eq=False)
class CodeSums:
    """Sums over codes, in float64.

    Attributes:
        count: ``()``, the number of codes.
        origin: ``(K,)``, the mean of one of the codes. Offsets are measured from it, so that nothing cancels in a
            variance, which is exactly 0 in a constant dimension.
        offsets: ``(K,)``, of ``mean - origin``.
        squares: ``(K,)`` of the squares of offsets, or ``(K, K)`` of their outer products.
        variances: ``(K,)``, of ``exp(log_var)``.
        log_vars: ``(K,)``, of ``log_var``.
        rates: ``(K,)``, of the KL from N(0, 1) in nats.
    """

    count: Tensor
    origin: Tensor
    offsets: Tensor
    squares: Tensor
    variances: Tensor
    log_vars: Tensor
    rates: Tensor

    @property
    def width(self) -> int:
        """K."""
        return len(self.origin)

    def at(self, origin: Tensor) -> Self:
        """Return the same sums, with offsets from another origin."""
        shift = self.origin - origin
        if self.squares.dim() > 1:
            cross = self.offsets[:, None] * shift
            squares = cross + cross.mT + self.count * shift[:, None] * shift
        else:
            squares = 2 * self.offsets * shift + self.count * shift.square()
        return replace(self, origin=origin, offsets=self.offsets + self.count * shift, squares=self.squares + squares)

    def row(self) -> Tensor:
        """Return all numbers in one row."""
        return torch.cat([value.flatten() for value in vars(self).values()])

    @classmethod
    def from_row(cls, row: Tensor, width: int, joint: bool) -> Self:
        """Return the sums that ``row`` made a row of."""
        count, origin, offsets, squares, *others = row.split(_sizes(width, joint))
        return cls(count[0], origin, offsets, squares.view(width, width) if joint else squares, *others)


def row_size(width: int, joint: bool) -> int:
    """Return how many numbers a row of ``CodeSums`` has."""
    return sum(_sizes(width, joint))


def _sizes(width: int, joint: bool) -> list[int]:
    return [1, width, width, width**2 if joint else width, width, width, width]


def sums_of(mean: Tensor, log_var: Tensor, joint: bool) -> CodeSums:
    """Sum over checked codes.

    Args:
        mean: ``(B, K)``, float64.
        log_var: the shape of ``mean``.
        joint: whether to sum outer products of the means, for their covariance, or squares only.
    """
    origin = mean[0] if len(mean) else mean.new_zeros(mean.shape[1])
    offsets = mean - origin
    return CodeSums(
        count=mean.new_tensor(len(mean)),
        origin=origin,
        offsets=offsets.sum(0),
        squares=offsets.T @ offsets if joint else offsets.square().sum(0),
        variances=log_var.exp().sum(0),
        log_vars=log_var.sum(0),
        rates=kl_per_dimension(mean, log_var).sum(0),
    )


def merged(ours: CodeSums, theirs: CodeSums) -> CodeSums:
    """Return the sums over the codes of both."""
    origin = torch.where(ours.count > 0, ours.origin, theirs.origin)
    first, second = vars(ours.at(origin)), vars(theirs.at(origin))
    return CodeSums(**{name: first[name] + second[name] for name in first} | {"origin": origin})


def checked_codes(mean: Tensor, log_var: Tensor) -> tuple[Tensor, Tensor]:
    """Return Gaussian codes ``(B, K)`` in float64, without a gradient, if they are valid.

    Args:
        mean: ``(B, K, ...)``, finite; dimensions after the second are flattened into it.
        log_var: the shape of ``mean``; ``-inf`` where a code has no noise.

    Raises:
        ValueError: for other shapes, or values that are not finite.
    """
    if mean.shape != log_var.shape:
        raise ValueError(f"mean and log_var need the same shape; got {tuple(mean.shape)} and {tuple(log_var.shape)}")
    if mean.dim() < 2 or 0 in mean.shape[1:]:
        raise ValueError(f"mean and log_var must be (B, K, ...), with K at least 1; got {tuple(mean.shape)}")
    mean, log_var = (codes.detach().double().flatten(1) for codes in (mean, log_var))
    check_finite("mean must be finite", mean)
    check_finite("log_var must be finite, also its exponential (or -inf, for a code without noise)", log_var.exp())
    return mean, log_var
