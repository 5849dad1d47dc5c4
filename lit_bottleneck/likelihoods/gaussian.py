"""Gaussian likelihoods, by where their standard deviation comes from."""

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Self

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

from lit_bottleneck.functional import at_least_float32, bounded_log_var
from lit_bottleneck.likelihoods.base import Likelihood
from lit_bottleneck.training.precision import without_casts, without_half_casts

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

    It stays within (.0009, 54), smoothly (`functional.bounded_log_var`), and in float32 where the model is cast to half
    precision, in which its small steps would be lost.

    Args:
        dims: the shape of ``x``, ``(D1, ...)``, for a sigma of each output. Default: one sigma.
        sigma_init: what it is at first.

    Raises:
        ValueError: for a ``sigma_init`` outside the range.

    >>> import torch
    >>> LearnedGaussian(dims=(2,), sigma_init=0.5).distribution(torch.zeros(1, 2)).stddev.tolist()
    [[0.5, 0.5]]
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
        sigma = (0.5 * bounded_log_var(self.raw)).exp().to(mean.dtype)
        if sigma.dim():
            if mean.shape[1:].numel() != sigma.numel():
                raise ValueError(
                    f"LearnedGaussian(dims={tuple(sigma.shape)}) needs as many means per example; got "
                    f"{tuple(mean.shape[1:])}"
                )
            sigma = sigma.reshape(mean.shape[1:])  # a decoder may be flat
        return Normal(mean, sigma, validate_args=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return super()._apply(without_half_casts(fn), recurse)  # type: ignore[no-any-return, no-untyped-call]


class PerOutputGaussian(Likelihood):
    """Gaussian of which the decoder returns the mean and the raw scale of every output.

    Sigma is 1 at a raw scale of 0 and stays within (.0009, 54), smoothly (`functional.bounded_log_var`).

    >>> import torch
    >>> PerOutputGaussian().log_prob(torch.zeros(1, 4), torch.zeros(1, 2))
    tensor([-1.8379])
    """

    numbers_per_output = 2

    def distribution(self, parameters: Tensor) -> Distribution:
        mean, raw = self.split(parameters).unbind(1)
        return Normal(mean, (0.5 * bounded_log_var(raw)).exp(), validate_args=False)


class OptimalGaussian(Likelihood):
    """Gaussian whose variance is the best for the decoder at hand (sigma-VAE, arXiv 2006.13202).

    In training that is the mean squared error of the batch, one for all outputs; its gradient is that of the likelihood
    with the variance put in, ``D/2 log MSE``. In evaluation a density must not look at what it rates: the variance is
    a moving average of those of the training steps (1 before any). Neither is less than ``exp(-14)``, a sigma of .0009.

    Over several processes each takes the error of its own share of the batch, as a batch norm does.

    Args:
        momentum: share of the average that stays at each step, in [0, 1).

    Raises:
        ValueError: for a momentum out of range.

    >>> import torch
    >>> likelihood, x = OptimalGaussian(), torch.full((4, 2), 3.0)
    >>> log_prob = likelihood.train().log_prob(torch.zeros(4, 2), x)
    >>> likelihood.eval().distribution(torch.zeros(1, 2)).stddev
    tensor([[3., 3.]])
    """

    error: Tensor
    weight: Tensor

    def __init__(self, momentum: float = 0.99) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1); got {momentum}")
        self.momentum = momentum
        # The average, times the share of it that is not 0's; and that share.
        self.register_buffer("error", torch.zeros((), dtype=torch.float32))
        self.register_buffer("weight", torch.zeros((), dtype=torch.float32))

    @property
    def variance(self) -> Tensor:
        """That of evaluation."""
        seen = self.weight > 0
        return torch.where(seen, self.error / self.weight.where(seen, 1), 1).clamp(min=_LEAST_VARIANCE)

    def distribution(self, parameters: Tensor) -> Distribution:
        return self._normal(parameters, self.variance)

    def log_prob_per_output(self, parameters: Tensor, x: Tensor) -> Tensor:
        variance = self._learn(parameters, x) if self.training and x.numel() else self.variance
        log_prob: Tensor = self._normal(parameters, variance).log_prob(x)
        return log_prob

    @torch.no_grad()
    def _learn(self, parameters: Tensor, x: Tensor) -> Tensor:
        """The variance of a training batch, which moves the average unless it is not finite."""
        variance = (x - parameters).square().mean().clamp(min=_LEAST_VARIANCE)
        error = variance.to(self.error.dtype)
        share = (1 - self.momentum) * error.isfinite()
        self.error.lerp_(error.nan_to_num(0, 0), share)
        self.weight.lerp_(torch.ones_like(self.weight), share)
        return variance

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # An average in half precision would stop moving, far from what it averages.
        return super()._apply(without_casts(fn), recurse)  # type: ignore[no-any-return, no-untyped-call]

    @staticmethod
    def _normal(parameters: Tensor, variance: Tensor) -> Normal:
        mean = at_least_float32(parameters)
        return Normal(mean, variance.to(mean.dtype).sqrt(), validate_args=False)


def _positive(name: str, value: float) -> float:
    if not isinstance(value, Real) or isinstance(value, bool) or not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive and finite; got {value!r}")
    return float(value)
