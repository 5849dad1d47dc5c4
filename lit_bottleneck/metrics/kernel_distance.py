"""Kernel distance between real and generated examples."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics.image.kid import poly_mmd

from lit_bottleneck.checks import whole_number
from lit_bottleneck.metrics.sample_metric import SampleMetric, check_counts


class KernelDistance(SampleMetric):
    """Squared kernel distance between the features, without bias (KID, arXiv 1801.01401).

    The squared MMD with the kernel ``(x . y / F + 1)^3``, in float64, averaged over random subsets. Its mean is 0 for
    equal distributions, so that it is negative at times. All features are kept in memory.

    Args:
        subsets: the number of subsets.
        subset_size: samples of each kind in a subset; if there are fewer of either kind, that number.
        seed: of the subsets. The global random state is neither read nor changed.
        kwargs: those of ``torchmetrics.Metric``.

    Raises:
        ConfigurationError: for sizes out of range.
        ValueError: by ``update`` for features that are not finite ``(B, F)`` or of another width than earlier ones; by
            ``compute`` for fewer than 2 samples of either kind.

    >>> distance = KernelDistance(subsets=1)
    >>> distance.update(torch.tensor([[-1.0], [1.0]]), real=True)
    >>> distance.update(torch.tensor([[-1.0], [1.0]]), real=False)
    >>> distance.compute()
    tensor(-8.)
    """

    higher_is_better = False

    def __init__(self, subsets: int = 100, subset_size: int = 1000, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.subsets = whole_number("subsets", subsets, at_least=1)
        self.subset_size = whole_number("subset_size", subset_size, at_least=2)
        self.seed = seed

    def compute(self) -> Tensor:
        """Return the mean over the subsets, a float32 scalar."""
        real, generated = self.both()
        check_counts("KernelDistance", 2, len(real), len(generated))
        size = min(self.subset_size, len(real), len(generated))
        generator = torch.Generator().manual_seed(self.seed)

        def subset(features: Tensor) -> Tensor:
            return features[torch.randperm(len(features), generator=generator)[:size].to(features.device)]

        distances = [poly_mmd(subset(real), subset(generated)) for _ in range(self.subsets)]
        return torch.stack(distances).mean().float()
