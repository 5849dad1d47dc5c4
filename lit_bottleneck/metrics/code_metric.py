"""Sums over Gaussian codes, and the base class of the metrics that follow from them."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_bottleneck.checks import ConfigurationError, whole_number
from lit_bottleneck.functional import kl_per_dimension
from lit_bottleneck.metrics.base import RowMetric, check_finite, flat
from lit_bottleneck.metrics.scatter import merged_scatter, scatter_of


@dataclass(frozen=True, eq=False)
class CodeSums:
    """Sums over codes, in float64.

    Attributes:
        count: ``()``, the number of codes.
        examples: ``()``, the number of examples, which have several codes each where a mask tells positions apart.
        origin: ``(K,)``, the mean of one of the codes, from which offsets are measured.
        offsets: ``(K,)``, of ``mean - origin``.
        scatter: ``(K,)`` or ``(K, K)``, see ``scatter_of``: exactly 0 in a constant dimension.
        variances: ``(K,)``, of ``exp(log_var)``.
        log_vars: ``(K,)``, of ``log_var``.
        rates: ``(K,)``, of the KL from N(0, 1) in nats.
    """

    count: Tensor
    examples: Tensor
    origin: Tensor
    offsets: Tensor
    scatter: Tensor
    variances: Tensor
    log_vars: Tensor
    rates: Tensor

    @property
    def width(self) -> int:
        """K."""
        return len(self.origin)

    def row(self) -> Tensor:
        """Return all numbers in one row."""
        return torch.cat([value.flatten() for value in vars(self).values()])

    @classmethod
    def from_row(cls, row: Tensor, width: int, joint: bool) -> Self:
        """Return the sums that ``row`` made a row of."""
        count, examples, origin, offsets, scatter, *others = row.split(_sizes(width, joint))
        return cls(count[0], examples[0], origin, offsets, scatter.view(width, width) if joint else scatter, *others)


def row_size(width: int, joint: bool) -> int:
    """Return how many numbers a row of ``CodeSums`` has."""
    return sum(_sizes(width, joint))


def _sizes(width: int, joint: bool) -> list[int]:
    return [1, 1, width, width, width**2 if joint else width, width, width, width]


def sums_of(mean: Tensor, log_var: Tensor, joint: bool, examples: int | None = None) -> CodeSums:
    """Sum over checked codes.

    Args:
        mean: ``(B, K)``, float64.
        log_var: the shape of ``mean``.
        joint: whether to sum for the covariance of the means, or for their variances only.
        examples: the number of examples that have these codes. Default: one for each.
    """
    origin = mean[0] if len(mean) else mean.new_zeros(mean.shape[1])
    offsets = mean - origin
    return CodeSums(
        count=mean.new_tensor(len(mean)),
        examples=mean.new_tensor(len(mean) if examples is None else examples),
        origin=origin,
        offsets=offsets.sum(0),
        scatter=scatter_of(offsets, joint),
        variances=log_var.exp().sum(0),
        log_vars=log_var.sum(0),
        rates=kl_per_dimension(mean, log_var).sum(0),
    )


def merged(ours: CodeSums, theirs: CodeSums) -> CodeSums:
    """Return the sums over the codes of both."""
    origin = torch.where(ours.count > 0, ours.origin, theirs.origin)
    both = (ours, theirs)
    means = [one.offsets / one.count.clamp(min=1) for one in both]
    apart = ours.origin - theirs.origin + means[0] - means[1]
    found = {name: vars(ours)[name] + vars(theirs)[name] for name in vars(ours)} | {
        "origin": origin,
        "offsets": sum(one.offsets + one.count * (one.origin - origin) for one in both),
        "scatter": merged_scatter(ours.scatter, theirs.scatter, (ours.count, theirs.count), apart),
    }
    return CodeSums(**found)


def checked_codes(mean: Tensor, log_var: Tensor, mask: Tensor | None = None, dim: int = 1) -> tuple[Tensor, Tensor]:
    """Return Gaussian codes ``(N, K)`` in float64, without a gradient, if they are valid.

    Args:
        mean: ``(B, K, ...)``, finite. Without a mask ``N = B``, and dimensions after the second are flattened into it.
        log_var: the shape of ``mean``; ``-inf`` where a code has no noise.
        mask: ``(B, *positions)``: each position where it is true has a code. Elsewhere codes may be anything.
        dim: dimension of the K numbers, where there is a mask.

    Raises:
        ValueError: for other shapes, or values that are not finite.
    """
    if mean.shape != log_var.shape:
        raise ValueError(f"mean and log_var need the same shape; got {tuple(mean.shape)} and {tuple(log_var.shape)}")
    if mean.dim() < 2 or 0 in mean.shape[1:]:
        raise ValueError(f"mean and log_var must be (B, K, ...), with K at least 1; got {tuple(mean.shape)}")
    if mask is not None:
        mask = checked_mask(mask, mean, dim)
        mean, log_var = (codes.movedim(dim, -1)[mask] for codes in (mean, log_var))
    mean, log_var = (codes.detach().double().flatten(1) for codes in (mean, log_var))
    check_finite("mean must be finite", mean)
    check_finite("log_var must be finite, also its exponential (or -inf, for a code without noise)", log_var.exp())
    return mean, log_var


def checked_mask(mask: Tensor, mean: Tensor, dim: int) -> Tensor:
    """Return a mask of the positions of codes as bools, on their device.

    Raises:
        ConfigurationError: if it is not ``(B, *positions)``, the shape of ``mean`` without ``dim``, or is floating.
    """
    shape = tuple(mean.shape)
    if not (0 < dim < len(shape) or -len(shape) < dim < 0):
        raise ConfigurationError(f"dim must be a dimension of codes {shape} after the batch; got {dim}")
    at = dim % len(shape)
    needed = (*shape[:at], *shape[at + 1 :])
    if not isinstance(mask, Tensor) or mask.shape != needed or mask.is_floating_point():
        got = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        way_out = "" if dim == -1 else " (dim=-1 is for sequences)"
        raise ConfigurationError(f"dim={dim} of codes {shape} needs a mask of bools {needed}; got {got}{way_out}")
    return mask.to(mean.device, torch.bool)


class CodeMetric(RowMetric):
    """Base of metrics that follow from sums over codes, however these are split into batches and processes.

    With a mask, each position where it is true has a code of width K, of which all statistics are; only ``Rate`` adds
    up the rates of an example's positions.

    Each process keeps one row for each group of codes: the group's number and its sums.

    Args:
        joint: whether the covariance of the means is needed, or their variances only.
        max_dimensions: the largest K where the covariance is needed: memory grows with ``K^2``, the time of ``compute``
            with ``K^3``.
        kwargs: those of ``torchmetrics.Metric``.
    """

    def __init__(self, joint: bool, max_dimensions: int = 4096, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._joint = joint
        self.max_dimensions = whole_number("max_dimensions", max_dimensions, at_least=1)

    def describe(self, *layout: int) -> str:
        """Return the width of codes in words."""
        return f"codes of {layout[0]} dimensions"

    @property
    def groups(self) -> dict[int, CodeSums]:
        """The sums over the codes of each group so far, on this process unless the metric is synchronised."""
        found: dict[int, CodeSums] = {}
        if self.layout is None:
            return found
        [width] = self.layout
        rows = flat(self.rows).view(-1, 1 + row_size(width, self._joint))
        for group, row in zip(rows[:, 0].long().tolist(), rows[:, 1:], strict=True):
            sums = CodeSums.from_row(row, width, self._joint)
            found[group] = merged(found[group], sums) if group in found else sums
        return dict(sorted(found.items()))

    @property
    def sums(self) -> CodeSums:
        """The sums over the codes so far, where all are one group."""
        return self.groups.get(0) or CodeSums.from_row(torch.zeros(2, dtype=torch.float64), 0, self._joint)

    def update(self, mean: Tensor, log_var: Tensor, mask: Tensor | None = None, dim: int = 1) -> None:
        """Add codes.

        Args:
            mean: ``(B, K, ...)``; without a mask, dimensions after the second are flattened into it.
            log_var: the shape of ``mean``; ``-inf`` where a code has no noise.
            mask: ``(B, *positions)``, the shape of ``mean`` without ``dim``: each position where it is true has a code
                of width K. Batches may then have different numbers of positions.
            dim: dimension of the K numbers, where there is a mask: -1 for sequences ``(B, T, K)``.

        Raises:
            ValueError: for invalid codes, codes of another width than earlier ones, or a mask of another shape.
        """
        codes = self.checked(mean, log_var, mask, dim)
        self.add_sums({0: sums_of(*codes, self._joint, examples=len(mean))}, codes[0].shape[1])
        self.fold()

    def checked(self, mean: Tensor, log_var: Tensor, mask: Tensor | None = None, dim: int = 1) -> tuple[Tensor, Tensor]:
        """Return ``checked_codes`` of at most ``max_dimensions``.

        Raises:
            ConfigurationError: for more dimensions, or a mask of another shape.
            ValueError: for invalid codes.
        """
        mean, log_var = checked_codes(mean, log_var, mask, dim)
        if self._joint and mean.shape[1] > self.max_dimensions:
            told = f"{type(self).__name__} takes codes of at most max_dimensions={self.max_dimensions}"
            advice = "memory grows with the square and time with the cube of it; with a mask each position has a code"
            raise ConfigurationError(f"{told}; got {mean.shape[1]}: {advice}")
        return mean, log_var

    def compute(self) -> dict[str, Tensor]:
        """Return the results in float32; see the class."""
        return in_float32(self.in_float64())

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Add codes, and return the results of these codes alone."""
        results: dict[str, Tensor] = super().forward(*args, **kwargs)
        self.fold()
        return results

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add the codes of another metric of this class, or of its state."""
        super().merge_state(incoming_state)
        self.fold()

    @abstractmethod
    def in_float64(self) -> dict[str, Tensor]:
        """Return the unrounded results of the codes so far, on this process unless the metric is synchronised."""

    def add_sums(self, groups: dict[int, CodeSums], width: int) -> None:
        """Add sums over codes of this width, by the number of their group."""
        if groups:
            self.add_rows(_rows(groups), width)

    def fold(self) -> None:
        """Keep one row for each group."""
        if len(self.rows):
            self.rows, self.layouts = [_rows(self.groups).flatten()], self.layouts[:1]


def _rows(groups: dict[int, CodeSums]) -> Tensor:
    return torch.stack([torch.cat([sums.count.new_tensor([group]), sums.row()]) for group, sums in groups.items()])


def in_float32(results: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return results rounded to float32."""
    return {name: value.float() for name, value in results.items()}
