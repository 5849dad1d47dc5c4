"""Likelihoods of images of few or 256 grey levels, which have a probability each."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, distributions
from torch.distributions import Distribution

from lit_bottleneck.arguments import whole_number
from lit_bottleneck.functional import bounded_log_var
from lit_bottleneck.likelihoods._likelihood import Likelihood, on_grid


class Categorical(Likelihood):
    """A probability of every level, for images of few or 256 grey levels: the decoder returns a logit for each.

    Args:
        levels: data are ``0, 1 / (levels - 1), ..., 1``.

    Raises:
        ValueError: for fewer than two levels.

    >>> import torch
    >>> Categorical(4).log_prob(torch.zeros(1, 4), torch.ones(1, 1)).exp()
    tensor([0.2500])
    """

    def __init__(self, levels: int = 256) -> None:
        super().__init__()
        self.levels = self.numbers_per_output = whole_number("levels", levels, at_least=2)

    def distribution(self, parameters: Tensor) -> Distribution:
        return _Categorical(torch.stack(self._split(parameters), -1))

    def supports(self, x: Tensor) -> Tensor:
        return on_grid(x, self.levels)


class _Categorical(distributions.Categorical):
    """torch's, with levels between 0 and 1."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__(logits=logits, validate_args=False)
        self.steps = logits.shape[-1] - 1

    def log_prob(self, value: Tensor) -> Tensor:
        log_prob: Tensor = super().log_prob((value * self.steps).round())  # type: ignore[no-untyped-call]
        return log_prob

    @property
    def mean(self) -> Tensor:
        return self.probs @ torch.linspace(0, 1, self.steps + 1, dtype=self.probs.dtype, device=self.probs.device)

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        draw: Tensor = super().sample(torch.Size(sample_shape))  # type: ignore[no-untyped-call]
        return draw.to(self.logits.dtype) / self.steps


class DiscretizedLogistic(Likelihood):
    """The probabilities that a logistic distribution gives the bins around the levels (arXiv 1606.04934, 1701.05517).

    The first and the last bin have the tails, so that the levels have all the probability. The decoder returns the mean
    and the raw scale of every output; the scale is .1 at 0 and stays within (.00009, 5.4).

    Args:
        levels: data are ``0, 1 / (levels - 1), ..., 1``.

    Raises:
        ValueError: for fewer than two levels.
    """

    numbers_per_output = 2

    def __init__(self, levels: int = 256) -> None:
        super().__init__()
        self.levels = whole_number("levels", levels, at_least=2)

    def distribution(self, parameters: Tensor) -> Distribution:
        mean, raw = self._split(parameters)
        return _DiscretizedLogistic(mean, 0.5 * bounded_log_var(raw) + math.log(0.1), self.levels)

    def supports(self, x: Tensor) -> Tensor:
        return on_grid(x, self.levels)


class _DiscretizedLogistic(Distribution):
    """Bins of a logistic distribution of the given mean and log-scale."""

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, loc: Tensor, log_scale: Tensor, levels: int) -> None:
        super().__init__(loc.shape, validate_args=False)
        self.loc, self.log_scale, self.steps = loc, log_scale, levels - 1

    def log_prob(self, value: Tensor) -> Tensor:
        """Stable where both edges are far in one tail: ``s(a) - s(b) = s(a) s(-b) (1 - exp(b - a))``."""
        precision = torch.exp(-self.log_scale)
        upper = (value - self.loc + 0.5 / self.steps) * precision
        lower = (value - self.loc - 0.5 / self.steps) * precision
        within = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-precision / self.steps))
        level = (value * self.steps).round()
        return torch.where(
            level == 0, F.logsigmoid(upper), torch.where(level == self.steps, F.logsigmoid(-lower), within)
        )

    @property
    def mean(self) -> Tensor:
        """The sum of the probabilities of being above each edge between bins."""
        precision, total = torch.exp(-self.log_scale), torch.zeros_like(self.loc)
        for edge in range(self.steps):  # one at a time: they need as much memory as an image each
            total += torch.sigmoid((self.loc - (edge + 0.5) / self.steps) * precision)
        return total / self.steps

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        loc = self.loc.expand(*sample_shape, *self.loc.shape)
        uniform = torch.rand_like(loc).clamp(torch.finfo(loc.dtype).tiny, 1 - torch.finfo(loc.dtype).eps)
        draw = loc + self.log_scale.exp() * torch.logit(uniform)
        return (draw * self.steps).round().clamp(0, self.steps) / self.steps
