"""Gaussian likelihoods, by where their standard deviation comes from."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

from lit_bottleneck.functional import at_least_float32, bounded_log_var
from lit_bottleneck.likelihoods._likelihood import Likelihood

_LEAST_VARIANCE = math.exp(-14)  # of a Gaussian's outputs: where they are all the same, the density has no bound


class Gaussian(Likelihood):
    """Gaussian with a standard deviation that is given.

    Args:
        sigma: the standard deviation of every output.

    Raises:
        ValueError: for a sigma that is not positive and finite.

    >>> import torch
    >>> Gaussian(1.0).log_prob(torch.zeros(1, 2), torch.zeros(1, 2))
    tensor([-1.8379])
    """

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__()
        self.sigma = _positive("sigma", sigma)

    def distribution(self, parameters: Tensor) -> Distribution:
        mean = at_least_float32(parameters)
        return Normal(mean, mean.new_full((), self.sigma), validate_args=False)


class LearnedGaussian(Likelihood):
    """Gaussian with a standard deviation that is learned: one for all outputs, or one for each.

    It stays within (.0009, 54), smoothly (`functional.bounded_log_var`).

    Args:
        dims: the shape of ``x``, ``(D1, ...)``, for a sigma of each output. Default: one sigma.
        sigma_init: what it is at first.

    Raises:
        ValueError: for a ``sigma_init`` outside the range.
    """

    def __init__(self, dims: Sequence[int] | None = None, sigma_init: float = 1.0) -> None:
        super().__init__()
        log_var = 2 * math.log(_positive("sigma_init", sigma_init))
        bound = 8.0 if log_var > 0 else 14.0
        if abs(log_var) >= bound:
            raise ValueError(f"sigma_init must be in (.0009, 54); got {sigma_init}")
        raw = log_var / math.sqrt(1 - (log_var / bound) ** 2)  # the inverse of bounded_log_var
        self.raw = nn.Parameter(torch.full(() if dims is None else tuple(dims), raw))

    def distribution(self, parameters: Tensor) -> Distribution:
        mean = at_least_float32(parameters)
        return Normal(mean, (0.5 * bounded_log_var(self.raw)).exp().to(mean.dtype), validate_args=False)


class PerOutputGaussian(Likelihood):
    """Gaussian of which the decoder returns the mean and the raw scale of every output."""

    numbers_per_output = 2

    def distribution(self, parameters: Tensor) -> Distribution:
        mean, raw = self._split(parameters)
        return Normal(mean, (0.5 * bounded_log_var(raw)).exp(), validate_args=False)


class OptimalGaussian(Likelihood):
    """Gaussian whose variance is the best for the decoder at hand (sigma-VAE, arXiv 2006.13202).

    In training that is the mean squared error of the batch, one for all outputs; its gradient is that of the likelihood
    with the variance put in, ``D/2 log MSE``. In evaluation a density must not look at what it rates: the variance is
    a moving average of those of the training steps (1 before any).

    Args:
        momentum: share of the average that stays at each step, in [0, 1).

    Raises:
        ValueError: for a momentum out of range.
    """

    error: Tensor
    weight: Tensor

    def __init__(self, momentum: float = 0.99) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1); got {momentum}")
        self.momentum = momentum
        self.register_buffer("error", torch.zeros(()))  # the average, times the share of it that is not 0's
        self.register_buffer("weight", torch.zeros(()))

    @property
    def variance(self) -> Tensor:
        """That of evaluation."""
        seen = self.weight > 0
        return torch.where(seen, self.error / self.weight.where(seen, 1), 1).clamp(min=_LEAST_VARIANCE)

    def distribution(self, parameters: Tensor) -> Distribution:
        return self._normal(parameters, self.variance)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        variance = self.variance
        if self.training and x.numel():
            with torch.no_grad():
                variance = (at_least_float32(x) - parameters).square().mean().clamp(min=_LEAST_VARIANCE)
                self.error.lerp_(variance.to(self.error.dtype), 1 - self.momentum)
                self.weight.lerp_(torch.ones_like(self.weight), 1 - self.momentum)
        log_prob: Tensor = self._normal(parameters, variance).log_prob(at_least_float32(x))
        return log_prob.flatten(1).sum(1)

    @staticmethod
    def _normal(parameters: Tensor, variance: Tensor) -> Normal:
        mean = at_least_float32(parameters)
        return Normal(mean, variance.to(mean.dtype).sqrt(), validate_args=False)


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive and finite; got {value!r}")
    return float(value)
