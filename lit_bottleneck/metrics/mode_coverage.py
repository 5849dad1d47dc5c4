"""Coverage of the known modes of a mixture by generated points."""

from typing import Any

import torch
from torch import Tensor

from lit_bottleneck.checks import ConfigurationError, positive
from lit_bottleneck.metrics.base import Float64Metric

_REACH = 3  # standard deviations
_HELD = 20  # a mode is covered if it has at least one in 20 of the good points


class ModeCoverage(Float64Metric):
    """Coverage of the modes of a mixture of isotropic Gaussians by generated points: see ``mode_coverage``.

    Keeps sums in float64, not points: however these are split into batches and processes, the result is the same.

    Args:
        modes: ``(M, D)``, the means of the mixture.
        std: their common standard deviation per dimension.
        kwargs: those of ``torchmetrics.Metric``.

    Raises:
        ConfigurationError: for other modes, or a ``std`` that is not positive.
        ValueError: by ``update`` for points that are not ``(B, D)``, by ``compute`` without any points.

    >>> coverage = ModeCoverage(torch.tensor([[0.0, 0.0], [4.0, 0.0]]), std=0.1)
    >>> coverage.update(torch.tensor([[0.1, 0.0], [-0.1, 0.0], [4.0, 0.2], [2.0, 0.0]]))
    >>> {name: round(value.item(), 2) for name, value in coverage.compute().items()}
    {'good': 0.75, 'modes': 2.0, 'smallest_mode': 0.33, 'spread_min': 0.0, 'spread_max': 1.0}
    """

    total: Tensor
    sums: Tensor

    def __init__(self, modes: Tensor, std: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.modes = _checked_modes(modes)  # not a buffer, which a cast of the model would round
        self.std = positive("std", std)
        self.add_sum("total")
        self.add_sum("sums", len(modes), 1 + 2 * modes.shape[1])

    def update(self, points: Tensor) -> None:
        """Add points ``(B, D)``."""
        self.sums += _sums(points, self.modes, self.std)
        self.total += len(points)

    def compute(self) -> dict[str, Tensor]:
        """Return the five scalars of ``mode_coverage``."""
        return _compute(self.total, self.sums)


def mode_coverage(points: Tensor, modes: Tensor, std: float) -> dict[str, Tensor]:
    """Measure how points cover the modes of a mixture of isotropic Gaussians.

    A point belongs to its nearest mode, and is good if it lies within 3 ``std`` of it (a point with an infinity or NaN
    is not good).

    - ``good``: the share of good points;
    - ``modes``: the number of modes with at least 5 % of the good points;
    - ``smallest_mode``: the least share of the good points that a mode has;
    - ``spread_min`` and ``spread_max``, over the modes: the standard deviation per dimension of a mode's good points
      about their own mean (n points with n - 1, variances averaged over dimensions), divided by ``std``; 0 for a mode
      with fewer than 2 good points.

    In 2 dimensions the mixture itself has 98.9 % good points, and since these end at 3 ``std``, a spread not of 1 but
    of ``sqrt(1 - 4.5 / (exp(4.5) - 1)) = 0.974``.

    Args:
        points: ``(B, D)``.
        modes: ``(M, D)``, the means of the mixture.
        std: their common standard deviation per dimension.

    Returns:
        Five float32 scalars by name.

    Raises:
        ConfigurationError: for other modes, or a ``std`` that is not positive.
        ValueError: for points of another shape, or none.

    >>> mode_coverage(torch.zeros(5, 2), torch.tensor([[0.0, 0.0], [4.0, 0.0]]), std=0.1)["smallest_mode"]
    tensor(0.)
    """
    sums = _sums(points, _checked_modes(modes), positive("std", std))
    return _compute(sums.new_tensor(len(points)), sums)


def _sums(points: Tensor, modes: Tensor, std: float) -> Tensor:
    """Return the number of good points of each mode and the sums of their offsets and squares, ``(M, 1 + 2 D)``.

    Offsets are measured from the mode in units of ``std``, so that nothing cancels in a variance.
    """
    if points.dim() != 2 or points.shape[1] != modes.shape[1]:
        raise ValueError(f"points must be (B, {modes.shape[1]}), as the modes are; got {tuple(points.shape)}")
    points, modes = points.detach().double(), modes.to(points.device)
    distances, nearest = torch.cdist(points, modes, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    good = distances <= _REACH * std  # false for NaN
    nearest = nearest[good]
    offsets = (points[good] - modes[nearest]) / std
    values = torch.cat([torch.ones_like(offsets[:, :1]), offsets, offsets.square()], 1)
    return values.new_zeros(len(modes), values.shape[1]).index_add_(0, nearest, values)


def _compute(total: Tensor, sums: Tensor) -> dict[str, Tensor]:
    if total == 0:
        raise ValueError("mode coverage needs at least 1 point; got 0")
    counts, (offsets, squares) = sums[:, 0], sums[:, 1:].chunk(2, 1)
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


def _checked_modes(modes: Tensor) -> Tensor:
    """Return the modes in float64."""
    if modes.dim() != 2 or 0 in modes.shape or not modes.isfinite().all():
        raise ConfigurationError(f"modes must be finite and (M, D), with M and D at least 1; got {tuple(modes.shape)}")
    return modes.detach().double()
