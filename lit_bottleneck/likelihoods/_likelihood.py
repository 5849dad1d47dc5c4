"""The base of all likelihoods."""

import math
from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.distributions import Distribution

from lit_bottleneck.described import Described
from lit_bottleneck.functional import at_least_float32


class Likelihood(Described, nn.Module, ABC):
    """Base of all likelihoods. A subclass gives `distribution` and, if not every finite number may come, `supports`.

    Attributes:
        numbers_per_output: how many numbers the decoder returns for every output.
    """

    numbers_per_output: int = 1

    @abstractmethod
    def distribution(self, parameters: Tensor) -> Distribution:
        """The distribution of every output, at least float32.

        Args:
            parameters: ``(B, n D1, ...)``, what the decoder returns.

        Returns:
            A distribution of the batch shape ``(B, D1, ...)``.
        """

    def supports(self, x: Tensor) -> Tensor:
        """Which values may come, in the shape of ``x``."""
        return x.isfinite()

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Log-density of ``x`` (log-probability, where ``x`` is discrete), in nats.

        Args:
            parameters: ``(B, n D1, ...)``.
            x: ``(B, D1, ...)``.

        Returns:
            ``(B,)``: summed over the outputs, at least float32.
        """
        log_prob: Tensor = self.distribution(parameters).log_prob(at_least_float32(x))
        return log_prob.flatten(1).sum(1)

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
        supported = self.supports(x)
        if not supported.all():
            value = x[~supported][0].item()
            if not math.isfinite(value):
                raise ValueError(f"x has values that are not finite: {value}")
            raise ValueError(f"{type(self).__name__} gives {value:.6g} no density: {_advice(x)}")

    def _split(self, parameters: Tensor) -> tuple[Tensor, ...]:
        """The numbers of every output, each kind ``(B, D1, ...)``."""
        numbers = self.numbers_per_output
        if parameters.dim() < 2 or parameters.shape[1] % numbers:
            raise ValueError(
                f"{type(self).__name__} needs {numbers} numbers per output, (B, {numbers} D, ...); got "
                f"{tuple(parameters.shape)}"
            )
        numbers_first: Tensor = at_least_float32(parameters).unflatten(1, (numbers, -1))
        return tuple(numbers_first.unbind(1))

    def extra_repr(self) -> str:
        """The arguments, for printing."""
        return ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())


def _advice(x: Tensor) -> str:
    """Which likelihoods fit the data, by their names."""
    always = "gaussian, gaussian_learned, gaussian_optimal or gaussian_per_output"
    if x.min() < 0 or x.max() > 1:
        return f"data outside [0, 1] need {always}"
    levels = on_grid(x, 256).all()
    return (
        f"grey levels between 0 and 1 need continuous_bernoulli, {'categorical, discretized_logistic, ' * bool(levels)}"
        f"{always}, or are made binary by the datamodule's binarize='dynamic'"
    )


def on_grid(x: Tensor, levels: int) -> Tensor:
    """Which values are one of ``0, 1 / (levels - 1), ..., 1``, to within rounding."""
    level = at_least_float32(x) * (levels - 1)
    return (level >= -0.01) & (level <= levels - 0.99) & ((level - level.round()).abs() < 0.01)
