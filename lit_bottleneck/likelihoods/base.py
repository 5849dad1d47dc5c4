"""Base of the likelihoods."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.functional import at_least_float32
from lit_bottleneck.hparams import RecordsArguments


class Likelihood(RecordsArguments, nn.Module, ABC):
    """Base of the likelihoods.

    A subclass defines ``distribution``, and ``nearest`` if its support is not all numbers.

    Attributes:
        numbers_per_output: how many numbers the decoder returns per output.
        support: the support in words, for errors.
    """

    numbers_per_output: int = 1
    support: str = "finite"

    @abstractmethod
    def distribution(self, parameters: Tensor) -> Distribution:
        """Return the distribution of every output, at least float32.

        Args:
            parameters: ``(B, n D1, ...)``, the decoder's output.

        Returns:
            A distribution of batch shape ``(B, D1, ...)``.

        Raises:
            ConfigurationError: if the number of parameters is not a multiple of ``numbers_per_output``.
        """

    def nearest(self, x: Tensor) -> Tensor:
        """Return the nearest values in the support, in the shape of ``x``."""
        return x

    def slack(self, dtype: torch.dtype) -> float:
        """Return how far rounding to ``dtype`` may move data away from the support."""
        return 0.0

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Return the log-density of ``x`` (log-probability if ``x`` is discrete), in nats.

        Args:
            parameters: ``(B, n D1, ...)``.
            x: ``(B, D1, ...)``.

        Returns:
            ``(B,)``: summed over the outputs, at least float32.

        Raises:
            ConfigurationError: if the shape of ``parameters`` does not fit that of ``x``: nothing is broadcast.
        """
        numbers = self.numbers_per_output
        wanted = (*x.shape[:1], *(numbers * size for size in x.shape[1:2]), *x.shape[2:])
        if x.dim() < 2 or parameters.shape != wanted:
            needed = f"{type(self).__name__}, with numbers_per_output={numbers}, needs parameters {wanted}"
            raise ConfigurationError(f"{needed} for x of shape {tuple(x.shape)}; got {tuple(parameters.shape)}")
        return self.log_prob_per_output(parameters, at_least_float32(x)).flatten(1).sum(1)

    def log_prob_per_output(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Return the log-density of every output, in the shape of ``x``."""
        log_prob: Tensor = self.distribution(parameters).log_prob(x)
        return log_prob

    def mean(self, parameters: Tensor) -> Tensor:
        """Return the means of the outputs, ``(B, D1, ...)``."""
        return self.distribution(parameters).mean

    def variance_of(self, parameters: Tensor) -> Tensor:
        """Return the variances of the outputs, ``(B, D1, ...)``."""
        return self.distribution(parameters).variance

    def sample(self, parameters: Tensor) -> Tensor:
        """Draw the outputs, ``(B, D1, ...)``."""
        return self.distribution(parameters).sample()

    def check(self, x: Tensor, argument: str = "x") -> None:
        """Check that data are in the support.

        Args:
            x: ``(B, ...)``.
            argument: what errors call them.

        Raises:
            ConfigurationError: with the first value outside the support, and likelihoods that fit.
        """
        if not x.numel():
            return
        data = at_least_float32(x)
        # A distance and its extremes take a fraction of the time of elementwise comparisons; with NaN both are false.
        distance = data - self.nearest(data)
        low, high = distance.aminmax()
        slack = self.slack(x.dtype)
        if -slack <= low and high <= slack:
            return
        name, finite = type(self).__name__, data.isfinite()
        if not finite.all():
            came = f"got {data[~finite][0]}: leave out or fill in such examples"
            raise ConfigurationError(f"{argument} must be finite (no nan, no inf) for {name}; {came}")
        value, advice = data[distance.abs() > slack][0].item(), _advice(data, x.dtype)
        raise ConfigurationError(f"{argument} must be {self.support} for {name}; got {value:.6g}: {advice}")

    def split(self, parameters: Tensor) -> Tensor:
        """Split the decoder's output into the numbers per output, ``(B, n, D1, ...)``, at least float32."""
        numbers = self.numbers_per_output
        if parameters.dim() < 2 or parameters.shape[1] % numbers:
            needed = f"{type(self).__name__} needs {numbers} numbers per output, (B, {numbers} D, ...)"
            raise ConfigurationError(f"{needed}; got {tuple(parameters.shape)}")
        per_output: Tensor = at_least_float32(parameters).unflatten(1, (numbers, -1))
        return per_output


def nearest_level(x: Tensor, levels: int) -> Tensor:
    """Return the nearest of the levels ``0, 1 / (levels - 1), ..., 1``."""
    return (x * (levels - 1)).round_().clamp_(0, levels - 1).div_(levels - 1)


def slack_of_levels(dtype: torch.dtype, levels: int) -> float:
    """Return how far data may be from a level: a hundredth of a level, plus the rounding of ``dtype``."""
    rounding = torch.finfo(dtype).eps / 4 if dtype.is_floating_point else 0.0  # half a step of numbers below 1
    return 0.01 / (levels - 1) + rounding


def _advice(x: Tensor, dtype: torch.dtype) -> str:
    """Name the likelihoods that fit the data."""
    always = "gaussian, gaussian_learned, gaussian_optimal or gaussian_per_output"
    if x.min() < 0 or x.max() > 1:
        return f"data outside [0, 1], here {x.min():.6g} to {x.max():.6g}, need {always}, or scaling"
    levels = (x - nearest_level(x, 256)).abs().max() <= slack_of_levels(dtype, 256)
    discrete = "categorical, discretized_logistic (all are multiples of 1/255), " if levels else ""
    grey = f"grey levels between 0 and 1 need continuous_bernoulli, {discrete}{always}"
    return f"{grey}, or a datamodule with binarize='dynamic'"
