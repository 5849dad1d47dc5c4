"""Fréchet distance between real and generated examples."""

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from lit_bottleneck.checks import ConfigurationError, whole_number
from lit_bottleneck.metrics.base import Float64Metric
from lit_bottleneck.metrics.sample_metric import check_counts, checked_features


class FrechetDistance(Float64Metric, FrechetInceptionDistance):
    """Squared Fréchet distance between two Gaussians with the moments of the features (FID, arXiv 1706.08500).

    ``|m_r - m_g|^2 + tr(C_r + C_g - 2 (C_r C_g)^(1/2))``, from sums in float64. It is too large by a term that falls
    with the number of samples: compare scores of the same number of samples only.

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

    def __init__(self, num_features: int, **kwargs: Any) -> None:
        super().__init__(feature=_Identity(whole_number("num_features", num_features, at_least=1)), **kwargs)
        self.orig_dtype = torch.float32  # of the result, also where only the states of other processes come in

    def update(self, features: Tensor, real: bool) -> None:
        """Add features ``(B, F)`` of real or of generated examples."""
        features, wanted = checked_features(features), len(self.real_features_sum)
        if features.shape[1] != wanted:
            raise ConfigurationError(f"num_features={wanted}, but the features are {tuple(features.shape)}")
        super().update(features, real)

    def compute(self) -> Tensor:
        """Return the squared distance, a scalar."""
        counts = int(self.real_features_num_samples), int(self.fake_features_num_samples)
        check_counts("FrechetDistance", 2, *counts)
        distance: Tensor = super().compute()
        return distance.clamp(min=0)  # negative by rounding only


class _Identity(nn.Identity):
    """Stands where torchmetrics has its network."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
