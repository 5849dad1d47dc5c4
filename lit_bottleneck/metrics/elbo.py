"""Evidence lower bound and importance-weighted bound of the log-likelihood."""

import math
from typing import Any

import torch
from torch import Tensor

from lit_bottleneck.checks import whole_number
from lit_bottleneck.functional import at_least_float32
from lit_bottleneck.metrics.base import Float64Metric, check_finite


class ELBO(Float64Metric):
    """Evidence lower bound ``-(distortion + rate)`` in nats per example, without beta.

    ``compute`` returns ``elbo``, ``distortion`` and ``rate``, the means over all examples and processes: three float32
    scalars, from sums in float64.

    Args:
        kwargs: those of ``torchmetrics.Metric``.

    Raises:
        ValueError: by ``update`` for other shapes or values that are not finite, by ``compute`` without any examples.

    >>> metric = ELBO()
    >>> metric.update(distortion=torch.tensor([3.0, 5.0]), rate=torch.tensor([1.0, 2.0]))
    >>> metric.compute()
    {'elbo': tensor(-5.5000), 'distortion': tensor(4.), 'rate': tensor(1.5000)}
    """

    higher_is_better = True

    count: Tensor
    distortion: Tensor
    rate: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("count", "distortion", "rate"):
            self.add_sum(name)

    def update(self, distortion: Tensor, rate: Tensor) -> None:
        """Add examples.

        Args:
            distortion: ``(B,)``, ``-log q(x|z)`` in nats.
            rate: ``(B,)``, in nats.

        Raises:
            ValueError: for other shapes, or values that are not finite.
        """
        if distortion.dim() != 1 or distortion.shape != rate.shape:
            got = f"{tuple(distortion.shape)} and {tuple(rate.shape)}"
            raise ValueError(f"distortion and rate must be (B,), a number for each example; got {got}")
        for name, values in (("distortion", distortion), ("rate", rate)):
            check_finite(f"{name} must be finite", values[:, None])
        self.count += len(rate)
        self.distortion += distortion.detach().double().sum()
        self.rate += rate.detach().double().sum()

    def compute(self) -> dict[str, Tensor]:
        """Return ``elbo``, ``distortion`` and ``rate``, float32 scalars by name."""
        if self.count == 0:
            raise ValueError("the ELBO needs at least 1 example; got 0")
        distortion, rate = self.distortion / self.count, self.rate / self.count
        means = {"elbo": -(distortion + rate), "distortion": distortion, "rate": rate}
        return {name: value.float() for name, value in means.items()}


class ImportanceWeightedBound(Float64Metric):
    """Importance-weighted bound of the log-likelihood in nats per example: see ``importance_weighted_bound``.

    ``compute`` returns the mean over all examples and processes, a float32 scalar, from sums in float64.

    Args:
        k: the number of samples in one bound.
        kwargs: those of ``torchmetrics.Metric``.

    Raises:
        ConfigurationError: for ``k`` below 1.
        ValueError: by ``update`` for invalid log-weights, by ``compute`` without any examples.

    >>> metric = ImportanceWeightedBound(k=2)
    >>> metric.update(torch.tensor([[0.2, 0.5], [0.4, 0.5]]).log())
    >>> metric.compute().exp()
    tensor(0.3873)
    """

    higher_is_better = True

    count: Tensor
    bound: Tensor

    def __init__(self, k: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k = whole_number("k", k, at_least=1)
        for name in ("count", "bound"):
            self.add_sum(name)

    def update(self, log_weights: Tensor) -> None:
        """Add log-weights ``(S, B)``: see ``importance_weighted_bound``."""
        bounds = importance_weighted_bound(log_weights.detach().double(), self.k)
        self.count += len(bounds)
        self.bound += bounds.sum()

    def compute(self) -> Tensor:
        """Return the mean bound, a scalar."""
        if self.count == 0:
            raise ValueError("the importance-weighted bound needs at least 1 example; got 0")
        return (self.bound / self.count).float()


def importance_weighted_bound(log_weights: Tensor, k: int) -> Tensor:
    """Bound the log-likelihood of every example from below (arXiv 1509.00519).

    ``logsumexp_k(log_weights) - log k`` of every ``k`` samples, averaged over the ``S / k`` groups. ``k = 1`` is the
    ELBO. The mean of the bound grows with ``k``, towards ``log q(x)``.

    Args:
        log_weights: ``(S, B)``, ``log q(x|z_s) + log q(z_s) - log p(z_s|x)`` in nats, for S draws of ``p(z|x)``.
            ``-inf`` is the weight 0.
        k: the number of samples in one bound; S must be a multiple of it.

    Returns:
        ``(B,)`` in nats, at least float32.

    Raises:
        ConfigurationError: for ``k`` below 1.
        ValueError: for other shapes, NaN or +inf, or a group in which all weights are 0.

    >>> importance_weighted_bound(torch.tensor([[0.2, 0.5], [0.4, 0.5]]).log(), k=2).exp()
    tensor([0.3000, 0.5000])
    """
    k = whole_number("k", k, at_least=1)
    if log_weights.dim() != 2 or len(log_weights) == 0:
        raise ValueError(f"log_weights must be (S, B), with S at least 1; got {tuple(log_weights.shape)}")
    if len(log_weights) % k:
        raise ValueError(f"k={k} needs a number of samples that is a multiple of it; got {len(log_weights)}")
    log_weights = at_least_float32(log_weights)
    count, bad = log_weights.shape[1], int((log_weights.isnan() | (log_weights == torch.inf)).any(0).sum())
    if bad:
        raise ValueError(f"log_weights must be finite or -inf; {bad} of {count} examples have NaN or +inf")
    groups = log_weights.unflatten(0, (-1, k))
    empty = int((groups == -torch.inf).all(1).any(0).sum())
    if empty:
        words = f"{empty} of {count} examples have such a group: draw more samples, or use a wider encoder"
        raise ValueError(f"log_weights must not be -inf in all {k} samples of a group; {words}")
    bounds: Tensor = groups.logsumexp(1) - math.log(k)
    return bounds.mean(0)
