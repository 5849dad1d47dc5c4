"""Fréchet distance between real and generated examples by their features."""

from typing import Any

import torch
from torch import Tensor

from lit_bottleneck.checks import ConfigurationError, whole_number
from lit_bottleneck.metrics.base import RowMetric, flat
from lit_bottleneck.metrics.sample_quality import check_counts, checked_features

Moments = tuple[Tensor, Tensor, Tensor]  # count (), mean (F,) and scatter (F, F) of rows


class FrechetDistance(RowMetric):
    """Squared Fréchet distance between two Gaussians with the moments of the features (FID, arXiv 1706.08500).

    ``|m_r - m_g|^2 + tr(C_r + C_g - 2 (C_r C_g)^(1/2))``, from sums in float64 about the mean. It is too large by a
    term that falls with the number of samples: compare scores of the same number of samples only.

    Args:
        num_features: F.
        kwargs: those of ``torchmetrics.Metric``.

    Raises:
        ConfigurationError: for ``num_features`` below 1, or by ``update`` for features of another width.
        ValueError: by ``update`` for features that are not finite ``(B, F)``; by ``compute`` for fewer than 2 samples
            of either kind.

    >>> distance = FrechetDistance(num_features=1)
    >>> distance.update(torch.tensor([[-1.0], [1.0]]), real=True)
    >>> distance.update(torch.tensor([[2.0], [4.0]]), real=False)
    >>> distance.compute()
    tensor(9.)
    """

    higher_is_better = False

    def __init__(self, num_features: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_features = whole_number("num_features", num_features, at_least=1)

    def describe(self, *layout: int) -> str:
        """Return the width of features in words."""
        return f"features (B, {layout[0]})"

    def update(self, features: Tensor, real: bool) -> None:
        """Add features ``(B, F)`` of real or of generated examples."""
        features = checked_features(features).double()
        if features.shape[1] != self.num_features:
            got = tuple(features.shape)
            raise ConfigurationError(f"num_features={self.num_features}, but the features are {got}")
        if len(features):
            known = self.moments()
            new = _moments(features.to(self.rows_device))
            known[real] = _merged(known[real], new) if real in known else new
            self.rows = []
            for kind, parts in known.items():
                row = torch.cat([parts[0].new_tensor([kind]), *(part.flatten() for part in parts)])
                self.add_rows(row[None], self.num_features)

    def moments(self) -> dict[bool, Moments]:
        """Return those of the real (True) and of the generated features (False) so far, where there are any."""
        found: dict[bool, Moments] = {}
        for row in flat(self.rows).view(-1, 2 + self.num_features + self.num_features**2):
            kind, moments = bool(row[0]), _split(row, self.num_features)
            found[kind] = _merged(found[kind], moments) if kind in found else moments
        return found

    def compute(self) -> Tensor:
        """Return the squared distance, a float32 scalar."""
        moments = self.moments()
        counts = [int(moments[kind][0]) if kind in moments else 0 for kind in (True, False)]
        check_counts("FrechetDistance", 2, *counts)
        (m, c), (n, d) = ((mean, scatter / (count - 1)) for count, mean, scatter in (moments[True], moments[False]))
        roots = torch.linalg.eigvals(c @ d).sqrt().real.sum()
        distance: Tensor = (m - n).square().sum() + c.trace() + d.trace() - 2 * roots
        return distance.clamp(min=0).float()  # negative by rounding only


def _moments(features: Tensor) -> Moments:
    mean = features.mean(0)
    centred = features - mean
    return features.new_tensor(len(features)), mean, centred.T @ centred


def _merged(ours: Moments, theirs: Moments) -> Moments:
    """Return the moments of the rows of both (Chan, Golub and LeVeque, 1979)."""
    count, apart = ours[0] + theirs[0], theirs[1] - ours[1]
    share = theirs[0] / count
    return count, ours[1] + share * apart, ours[2] + theirs[2] + ours[0] * share * apart[:, None] * apart


def _split(row: Tensor, width: int) -> Moments:
    count, mean, scatter = row[1:].split([1, width, width**2])
    return count[0], mean, scatter.view(width, width)
