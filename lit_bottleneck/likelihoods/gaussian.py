"""Gaussian likelihoods with a given, learned, predicted or optimal standard deviation."""

import math
from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

from lit_bottleneck.checks import ConfigurationError, decay, positive
from lit_bottleneck.functional import at_least_float32, bounded_log_var
from lit_bottleneck.likelihoods.base import Likelihood
from lit_bottleneck.training.precision import without_casts

_LEAST_VARIANCE = math.exp(-14)  # the density of constant outputs would be unbounded


class Gaussian(Likelihood):
    """Gaussian with a given standard deviation.

    Args:
        sigma: standard deviation of every output.

    Raises:
        ConfigurationError: for a sigma that is not positive and finite.

    >>> import torch
    >>> Gaussian(1.0).log_prob(torch.zeros(1, 2), torch.zeros(1, 2))
    tensor([-1.8379])
    """

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__()
        self.sigma = positive("sigma", sigma)

    def distribution(self, parameters: Tensor) -> Distribution:
        mean = at_least_float32(parameters)
        return Normal(mean, mean.new_full((), self.sigma), validate_args=False)


class LearnedGaussian(Likelihood):
    """Gaussian with a learned standard deviation, shared by all outputs or one per output.

    It stays within (.0009, 54) (``functional.bounded_log_var``), and in float32 if the model is cast to half precision,
    which would round its small steps away.

    Args:
        dims: shape of ``x``, ``(D1, ...)``, for one sigma per output. Default: one shared sigma.
        sigma_init: initial sigma.

    Raises:
        ConfigurationError: for a ``sigma_init`` outside (.0009, 54).

    >>> import torch
    >>> LearnedGaussian(dims=(2,), sigma_init=0.5).distribution(torch.zeros(1, 2)).stddev.tolist()
    [[0.5, 0.5]]
    """

    def __init__(self, dims: Sequence[int] | None = None, sigma_init: float = 1.0) -> None:
        super().__init__()
        log_var = 2 * math.log(positive("sigma_init", sigma_init))
        bound = 8.0 if log_var > 0 else 14.0
        if abs(log_var) >= bound:
            raise ConfigurationError(f"sigma_init must be in (.0009, 54); got {sigma_init}")
        raw = log_var / math.sqrt(1 - (log_var / bound) ** 2)  # the inverse of bounded_log_var
        self.raw = nn.Parameter(torch.full(() if dims is None else tuple(dims), raw))

    def distribution(self, parameters: Tensor) -> Distribution:
        mean = at_least_float32(parameters)
        sigma = (0.5 * bounded_log_var(self.raw)).exp().to(mean.dtype)
        if sigma.dim():
            if mean.shape[1:].numel() != sigma.numel():
                dims, got = tuple(sigma.shape), tuple(mean.shape[1:])
                raise ConfigurationError(f"LearnedGaussian(dims={dims}) needs as many means per example; got {got}")
            sigma = sigma.reshape(mean.shape[1:])  # a decoder may return flat outputs
        return Normal(mean, sigma, validate_args=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return super()._apply(without_casts(fn, half_only=True), recurse)  # type: ignore[no-any-return, no-untyped-call]


class PerOutputGaussian(Likelihood):
    """Gaussian of which the decoder returns mean and raw scale of every output.

    Sigma is 1 at a raw scale of 0 and stays within (.0009, 54) (``functional.bounded_log_var``).

    >>> import torch
    >>> PerOutputGaussian().log_prob(torch.zeros(1, 4), torch.zeros(1, 2))
    tensor([-1.8379])
    """

    numbers_per_output = 2

    def distribution(self, parameters: Tensor) -> Distribution:
        mean, raw = self.split(parameters).unbind(1)
        return Normal(mean, (0.5 * bounded_log_var(raw)).exp(), validate_args=False)


class OptimalGaussian(Likelihood):
    """Gaussian with the variance of maximum likelihood (sigma-VAE, arXiv 2006.13202).

    In training the variance is the batch's mean squared error over all outputs, which gives the gradient of
    ``D/2 log MSE``. In evaluation, where a density must not depend on the data that it rates, it is a moving average of
    the training variances (1 before the first step). Both are at least ``exp(-14)``, a sigma of .0009.

    With several processes each uses the error of its own part of the batch, as batch normalisation does.

    Args:
        momentum: decay of the moving average, in [0, 1).

    Raises:
        ConfigurationError: for a momentum outside [0, 1).

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
        self.momentum = decay("momentum", momentum)
        # The average from an initial 0, and the total weight of the variances in it, by which it is corrected.
        self.register_buffer("error", torch.zeros((), dtype=torch.float32))
        self.register_buffer("weight", torch.zeros((), dtype=torch.float32))

    @property
    def variance(self) -> Tensor:
        """The variance in evaluation."""
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
        """Return the variance of a training batch, and add it to the average if it is finite."""
        variance = (x - parameters).square().mean().clamp(min=_LEAST_VARIANCE)
        error = variance.to(self.error.dtype)
        share = (1 - self.momentum) * error.isfinite()
        self.error.lerp_(error.nan_to_num(0, 0), share)
        self.weight.lerp_(torch.ones_like(self.weight), share)
        return variance

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # An average in half precision would stop moving far from the true one.
        return super()._apply(without_casts(fn), recurse)  # type: ignore[no-any-return, no-untyped-call]

    @staticmethod
    def _normal(parameters: Tensor, variance: Tensor) -> Normal:
        mean = at_least_float32(parameters)
        return Normal(mean, variance.to(mean.dtype).sqrt(), validate_args=False)
