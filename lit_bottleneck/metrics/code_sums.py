"""Sums over Gaussian codes, from which their rates and moments follow, and which can be merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from lit_bottleneck.functional import kl_per_dimension


@dataclass(frozen=True, eq=False)
class CodeSums:
    """Sums over codes, in float64. All may have the same leading dimensions, such as one for classes.

    Attributes:
        count: ``()``, how many codes.
        origin: ``(K,)``, the mean of one of them: from there offsets are measured. Nothing then cancels in a variance,
            and it is exactly 0 in a dimension that is constant.
        offsets: ``(K,)``, of ``mean - origin``.
        squares: ``(K,)`` of their squares, or ``(K, K)`` of their outer products.
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
        return self.origin.shape[-1]

    @property
    def joint(self) -> bool:
        """Whether the squares are outer products."""
        return self.squares.dim() > self.offsets.dim()

    def at(self, origin: Tensor) -> CodeSums:
        """Return the same sums, with offsets from another origin."""
        shift, count = self.origin - origin, self.count[..., None]
        if self.joint:
            cross = self.offsets[..., :, None] * shift[..., None, :]
            squares = cross + cross.mT + count[..., None] * shift[..., :, None] * shift[..., None, :]
        else:
            squares = 2 * self.offsets * shift + count * shift.square()
        return replace(self, origin=origin, offsets=self.offsets + count * shift, squares=self.squares + squares)

    def part(self, index: int) -> CodeSums:
        """Return those at ``index`` of the first dimension."""
        return CodeSums(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def no_sums(width: int, joint: bool, groups: tuple[int, ...] = (), device: torch.device | None = None) -> CodeSums:
    """Return the sums of no codes."""

    def zeros(*shape: int) -> Tensor:
        return torch.zeros((*groups, *shape), dtype=torch.float64, device=device)

    origin, offsets, variances, log_vars, rates = (zeros(width) for _ in range(5))
    squares = zeros(width, width) if joint else zeros(width)
    return CodeSums(zeros(), origin, offsets, squares, variances, log_vars, rates)


def sums_of(mean: Tensor, log_var: Tensor, joint: bool) -> CodeSums:
    """Sum over checked codes ``(B, K)`` in float64."""
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


def common_origin(sums: Sequence[CodeSums]) -> Tensor:
    """Return the origin of the first of them that has codes, in each group."""
    first = torch.stack([(some.count > 0).int() for some in sums]).argmax(0)
    origins = torch.stack([some.origin for some in sums])
    return origins.take_along_dim(first[None, ..., None], 0)[0]


def merged(ours: CodeSums, theirs: CodeSums) -> CodeSums:
    """Sum over the codes of both."""
    origin = common_origin([ours, theirs])
    first, second = ours.at(origin), theirs.at(origin)
    sums = {field.name: getattr(first, field.name) + getattr(second, field.name) for field in fields(CodeSums)}
    return CodeSums(**sums | {"origin": origin})


def checked_codes(mean: Tensor, log_var: Tensor) -> tuple[Tensor, Tensor]:
    """Check Gaussian codes, and return them in float64, without a gradient and flat.

    Args:
        mean: ``(B, K, ...)``, finite.
        log_var: the shape of ``mean``; ``-inf`` where a code has no noise.

    Returns:
        Both as ``(B, K')``.

    Raises:
        ValueError: for other shapes, or values that are none.
    """
    if mean.shape != log_var.shape:
        raise ValueError(f"mean and log_var need the same shape; got {tuple(mean.shape)} and {tuple(log_var.shape)}")
    if mean.dim() < 2 or 0 in mean.shape[1:]:
        raise ValueError(f"mean and log_var must be (B, K, ...), with K at least 1; got {tuple(mean.shape)}")
    mean, log_var = (codes.detach().double().flatten(1) for codes in (mean, log_var))
    _check_finite("mean must be finite", mean)
    _check_finite("log_var must be finite, also its exponential (or -inf, for a code without noise)", log_var.exp())
    return mean, log_var


def _check_finite(demand: str, values: Tensor) -> None:
    finite = values.isfinite().all(1)
    if not finite.all():
        bad = len(values) - int(finite.sum())
        raise ValueError(f"{demand}; {bad} of {len(values)} rows have an infinity or NaN")
