"""How generated points share themselves out to known modes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lit_bottleneck.metrics.base import Float64Metric

_REACH = 3  # standard deviations
_HELD = 20  # a mode is held by one in so many of the good points


class ModeCoverage(Float64Metric):
    """How generated points cover the modes of a mixture of isotropic Gaussians: see `mode_coverage`.

    Sums in float64 are kept, not points: however they are split into batches and processes, the result is the same.

    Args:
        modes: ``(M, D)``, the means of the mixture.
        std: their common standard deviation per dimension.
        kwargs: those of `torchmetrics.Metric`.

    Raises:
        ValueError: for other modes or a ``std`` that is not positive, by ``update`` for points that are not ``(B, D)``,
            by ``compute`` if there were none.

    >>> coverage = ModeCoverage(torch.tensor([[0.0, 0.0], [4.0, 0.0]]), std=0.1)
    >>> coverage.update(torch.tensor([[0.1, 0.0], [-0.1, 0.0], [4.0, 0.2], [2.0, 0.0]]))
    >>> {name: round(value.item(), 2) for name, value in coverage.compute().items()}
    {'good': 0.75, 'modes': 2.0, 'smallest_mode': 0.33, 'spread_min': 0.0, 'spread_max': 1.0}
    """

    total: Tensor
    counts: Tensor
    offsets: Tensor
    squares: Tensor

    def __init__(self, modes: Tensor, std: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.modes = _checked_modes(modes, std)  # no buffer, which a cast of the model would round
        self.std = float(std)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("counts", self.modes.new_zeros(len(modes)), dist_reduce_fx="sum")
        self.add_state("offsets", torch.zeros_like(self.modes), dist_reduce_fx="sum")
        self.add_state("squares", torch.zeros_like(self.modes), dist_reduce_fx="sum")

    def update(self, points: Tensor) -> None:
        """Take in points ``(B, D)``."""
        total, counts, offsets, squares = _update(points, self.modes, self.std)
        self.total += total
        self.counts += counts
        self.offsets += offsets
        self.squares += squares

    def compute(self) -> dict[str, Tensor]:
        """Return the five scalars of `mode_coverage`."""
        return _compute(self.total, self.counts, self.offsets, self.squares)


def mode_coverage(points: Tensor, modes: Tensor, std: float) -> dict[str, Tensor]:
    """Say how points cover the modes of a mixture of isotropic Gaussians.

    A point belongs to its nearest mode, and is good if it lies within 3 ``std`` of it (a point with an infinity or NaN
    is not).

    - ``good``: the share of good points;
    - ``modes``: how many modes hold at least 5 % of the good points;
    - ``smallest_mode``: the least share of the good points that a mode holds;
    - ``spread_min`` and ``spread_max``, over the modes: the standard deviation per dimension of a mode's good points
      about their own mean (of n points with n - 1, variances averaged over the dimensions), divided by ``std``; 0 for a
      mode with less than 2 good points.

    The mixture itself has, in 2 dimensions, 98.9 % good points, and since these end at 3 ``std`` its spread is not 1
    but ``sqrt(1 - 4.5 / (exp(4.5) - 1)) = 0.974``.

    Args:
        points: ``(B, D)``.
        modes: ``(M, D)``, the means of the mixture.
        std: their common standard deviation per dimension.

    Returns:
        Five float32 scalars.

    Raises:
        ValueError: for other shapes, no points, or a ``std`` that is not positive.

    >>> mode_coverage(torch.zeros(5, 2), torch.tensor([[0.0, 0.0], [4.0, 0.0]]), std=0.1)["smallest_mode"]
    tensor(0.)
    """
    return _compute(*_update(points, _checked_modes(modes, std), std))


def _update(points: Tensor, modes: Tensor, std: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """How many points; and of the good ones per mode: how many ``(M,)``, sums of offsets and of squares ``(M, D)``.

    Offsets are from the mode and in units of ``std``, so that nothing cancels in a variance.
    """
    if points.dim() != 2 or points.shape[1] != modes.shape[1]:
        raise ValueError(f"points must be (B, {modes.shape[1]}), as the modes are; got {tuple(points.shape)}")
    points, modes = points.detach().double(), modes.to(points.device)
    distances, nearest = torch.cdist(points, modes, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    good = distances <= _REACH * std  # false for NaN
    nearest = nearest[good]
    offsets = (points[good] - modes[nearest]) / std
    total = points.new_tensor(len(points))
    counts = modes.new_zeros(len(modes)).index_add_(0, nearest, torch.ones_like(offsets[:, 0]))
    sums, squares = (torch.zeros_like(modes).index_add_(0, nearest, values) for values in (offsets, offsets.square()))
    return total, counts, sums, squares


def _compute(total: Tensor, counts: Tensor, offsets: Tensor, squares: Tensor) -> dict[str, Tensor]:
    if total == 0:
        raise ValueError("mode coverage needs at least 1 point; got 0")
    good = counts.sum()
    mean = offsets / counts.clamp(min=1)[:, None]
    variances = (squares - offsets * mean).clamp(min=0) / (counts - 1).clamp(min=1)[:, None]
    spread = torch.where(counts < 2, 0.0, variances.mean(1).sqrt())
    coverage = {
        "good": good / total,
        "modes": ((_HELD * counts >= good) & (counts > 0)).sum(),
        "smallest_mode": counts.min() / good.clamp(min=1),
        "spread_min": spread.min(),
        "spread_max": spread.max(),
    }
    return {name: value.float() for name, value in coverage.items()}


def _checked_modes(modes: Tensor, std: float) -> Tensor:
    """The modes in float64."""
    if modes.dim() != 2 or 0 in modes.shape or not modes.isfinite().all():
        raise ValueError(f"modes must be finite and (M, D), with at least one of each; got {tuple(modes.shape)}")
    if not (math.isfinite(std) and std > 0):
        raise ValueError(f"std must be a positive number; got {std!r}")
    return modes.detach().double()
