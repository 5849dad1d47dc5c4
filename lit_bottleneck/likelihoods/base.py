"""The base of all likelihoods."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from lit_bottleneck.functional import at_least_float32
from lit_bottleneck.hparams import Described


class Likelihood(Described, nn.Module, ABC):
    """Base of all likelihoods. A subclass gives `distribution` and, if not every number may come, `nearest`.

    Attributes:
        numbers_per_output: how many numbers the decoder returns for every output.
        support: what may come, in words.
    """

    numbers_per_output: int = 1
    support: str = "finite numbers"

    @abstractmethod
    def distribution(self, parameters: Tensor) -> Distribution:
        """The distribution of every output, at least float32.

        Args:
            parameters: ``(B, n D1, ...)``, what the decoder returns.

        Returns:
            A distribution of the batch shape ``(B, D1, ...)``.

        Raises:
            ValueError: for a number of parameters that cannot be.
        """

    def nearest(self, x: Tensor) -> Tensor:
        """The nearest values that may come, in the shape of ``x``."""
        return x

    def slack(self, dtype: torch.dtype) -> float:
        """How far from them data of this ``dtype`` may be, having been rounded."""
        return 0.0

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Log-density of ``x`` (log-probability, where ``x`` is discrete), in nats.

        Args:
            parameters: ``(B, n D1, ...)``.
            x: ``(B, D1, ...)``.

        Returns:
            ``(B,)``: summed over the outputs, at least float32.

        Raises:
            ValueError: for parameters that do not fit ``x``: nothing is broadcast.
        """
        numbers = self.numbers_per_output
        wanted = (*x.shape[:1], *(numbers * size for size in x.shape[1:2]), *x.shape[2:])
        if x.dim() < 2 or parameters.shape != wanted:
            raise ValueError(
                f"{type(self).__name__} needs {numbers} number{'s' * (numbers > 1)} per output, {wanted} for x of the "
                f"shape (B, D, ...) = {tuple(x.shape)}; got {tuple(parameters.shape)}"
            )
        return self.log_prob_per_output(parameters, at_least_float32(x)).flatten(1).sum(1)

    def log_prob_per_output(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Log-density of every output, in the shape of ``x``."""
        log_prob: Tensor = self.distribution(parameters).log_prob(x)
        return log_prob

    def mean(self, parameters: Tensor) -> Tensor:
        """Means of the outputs, ``(B, D1, ...)``."""
        return self.distribution(parameters).mean

    def sample(self, parameters: Tensor) -> Tensor:
        """A draw of the outputs, ``(B, D1, ...)``."""
        return self.distribution(parameters).sample()

    def check(self, x: Tensor) -> None:
        """Refuse data that the likelihood gives no density.

        Raises:
            ValueError: with the first such value, and likelihoods that fit.
        """
        if not x.numel():
            return
        data = at_least_float32(x)
        # A distance and its extremes take a fraction of the time of comparisons; those with NaN are false.
        distance = data - self.nearest(data)
        low, high = distance.aminmax()
        slack = self.slack(x.dtype)
        if -slack <= low and high <= slack:
            return
        name, finite = type(self).__name__, data.isfinite()
        if not finite.all():
            raise ValueError(f"x has non-finite values (nan/inf), which {name} gives no density: {data[~finite][0]}")
        value = data[distance.abs() > slack][0].item()
        raise ValueError(f"{name} gives {value:.6g} no density: it is for {self.support}; {_advice(data, x.dtype)}")

    def split(self, parameters: Tensor) -> Tensor:
        """The numbers of every output, ``(B, n, D1, ...)``, at least float32."""
        numbers = self.numbers_per_output
        if parameters.dim() < 2 or parameters.shape[1] % numbers:
            raise ValueError(
                f"{type(self).__name__} needs {numbers} numbers per output, (B, {numbers} D, ...); got "
                f"{tuple(parameters.shape)}"
            )
        per_output: Tensor = at_least_float32(parameters).unflatten(1, (numbers, -1))
        return per_output

    def extra_repr(self) -> str:
        """The arguments, for printing."""
        return ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())


def nearest_level(x: Tensor, levels: int) -> Tensor:
    """The nearest of the levels ``0, 1 / (levels - 1), ..., 1``."""
    return (x * (levels - 1)).round_().clamp_(0, levels - 1).div_(levels - 1)


def slack_of_levels(dtype: torch.dtype, levels: int) -> float:
    """How far from a level data of this ``dtype`` may be: a hundredth of a level, and what the dtype rounds."""
    rounding = torch.finfo(dtype).eps / 4 if dtype.is_floating_point else 0.0  # half a step, below 1
    return 0.01 / (levels - 1) + rounding


def _advice(x: Tensor, dtype: torch.dtype) -> str:
    """Which likelihoods fit the data, by their names."""
    always = "gaussian, gaussian_learned, gaussian_optimal or gaussian_per_output"
    if x.min() < 0 or x.max() > 1:
        return f"data outside [0, 1], here {x.min():.6g} to {x.max():.6g}, need {always}, or are scaled first"
    levels = (x - nearest_level(x, 256)).abs().max() <= slack_of_levels(dtype, 256)
    return (
        "grey levels between 0 and 1 need continuous_bernoulli, "
        f"{'categorical, discretized_logistic (these 256 are on their grid), ' * bool(levels)}"
        f"{always}, or are made binary by the datamodule's binarize='dynamic'"
    )
