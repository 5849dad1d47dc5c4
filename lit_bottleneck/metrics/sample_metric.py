"""Base class of the metrics that compare the features of real and of generated examples, and their checks."""

import torch
from torch import Tensor

from lit_bottleneck.functional import at_least_float32
from lit_bottleneck.metrics.base import RowMetric, check_finite, flat


class SampleMetric(RowMetric):
    """Base of metrics that keep all features of real and of generated examples in memory, in float64."""

    def describe(self, *layout: int) -> str:
        """Return the width of features in words."""
        return f"features (B, {layout[0]})"

    def update(self, features: Tensor, real: bool) -> None:
        """Add features ``(B, F)`` of real or of generated examples."""
        features = checked_features(features).double()
        rows = torch.cat([features.new_full((len(features), 1), real), features], 1)
        self.add_rows(rows, features.shape[1])

    def both(self) -> tuple[Tensor, Tensor]:
        """Return the features of all real and of all generated examples, ``(N, F)`` and ``(M, F)``."""
        [width] = self.layout or [0]
        rows = flat(self.rows).view(-1, 1 + width)
        real = rows[:, 0] == 1
        return rows[real, 1:], rows[~real, 1:]


def checked_features(features: Tensor) -> Tensor:
    """Return features in at least float32, without a gradient, if they are finite and ``(B, F)``."""
    if features.dim() != 2:
        raise ValueError(f"features must be (B, F); got {tuple(features.shape)}")
    check_finite("features must be finite", features)
    return at_least_float32(features.detach())


def check_counts(who: str, needed: int, real: int, generated: int) -> None:
    """Raise a ValueError for fewer real or generated samples than are needed."""
    if min(real, generated) < needed:
        raise ValueError(f"{who} needs at least {needed} samples of each kind; got {real} real, {generated} generated")
