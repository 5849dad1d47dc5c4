"""Likelihoods of images with discrete grey levels: a probability for each level."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, distributions
from torch.distributions import Distribution

from lit_bottleneck.checks import whole_number
from lit_bottleneck.functional import bounded_log_var
from lit_bottleneck.likelihoods.base import Likelihood, nearest_level, slack_of_levels

_MOST_LEVELS = 2**16  # each level costs an output of the decoder, or a step in the mean of a logistic


class _OfLevels(Likelihood):
    """Base of the likelihoods of grey levels."""

    def __init__(self, levels: int = 256) -> None:
        super().__init__()
        self.levels = whole_number("levels", levels, at_least=2, at_most=_MOST_LEVELS)
        self.support = f"one of {self.levels} levels, k / {self.levels - 1}"

    def nearest(self, x: Tensor) -> Tensor:
        return nearest_level(x, self.levels)

    def slack(self, dtype: torch.dtype) -> float:
        return slack_of_levels(dtype, self.levels)


class Categorical(_OfLevels):
    """Categorical distribution over grey levels; the decoder returns a logit per level.

    Args:
        levels: number of levels; data are ``0, 1 / (levels - 1), ..., 1``.

    Raises:
        ConfigurationError: for fewer than two levels, or more than 65536.

    >>> import torch
    >>> Categorical(4).log_prob(torch.zeros(1, 4), torch.ones(1, 1)).exp()
    tensor([0.2500])
    """

    def __init__(self, levels: int = 256) -> None:
        super().__init__(levels)
        self.numbers_per_output = self.levels

    def distribution(self, parameters: Tensor) -> Distribution:
        return _Categorical(self.split(parameters).movedim(1, -1))

    def log_prob_per_output(self, parameters: Tensor, x: Tensor) -> Tensor:
        # The distribution's log_prob in half the time: it would copy a tensor of ``levels`` times the size of x.
        return -F.cross_entropy(self.split(parameters), (x * (self.levels - 1)).round().long(), reduction="none")


class _Categorical(distributions.Categorical):
    """torch's categorical distribution, with levels between 0 and 1."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__(logits=logits, validate_args=False)
        self.steps = logits.shape[-1] - 1

    def log_prob(self, value: Tensor) -> Tensor:
        log_prob: Tensor = super().log_prob((value * self.steps).round())  # type: ignore[no-untyped-call]
        return log_prob

    @property
    def mean(self) -> Tensor:
        return (self.probs * self._levels()).sum(-1)  # autocast would run a matrix product in half precision

    @property
    def variance(self) -> Tensor:
        return (self.probs * (self._levels() - self.mean[..., None]).square()).sum(-1)

    def _levels(self) -> Tensor:
        return torch.linspace(0, 1, self.steps + 1, dtype=self.probs.dtype, device=self.probs.device)

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        draw: Tensor = super().sample(torch.Size(sample_shape))  # type: ignore[no-untyped-call]
        return draw.to(self.logits.dtype) / self.steps


class DiscretizedLogistic(_OfLevels):
    """Logistic distribution discretized to the bins around the grey levels (arXiv 1606.04934, 1701.05517).

    The first and last bin include the tails, so that the probabilities sum to 1. The decoder returns mean and raw scale
    of every output; the scale is .1 at a raw scale of 0 and stays within (.00009, 5.4).

    Args:
        levels: number of levels; data are ``0, 1 / (levels - 1), ..., 1``.

    Raises:
        ConfigurationError: for fewer than two levels, or more than 65536.

    >>> import torch
    >>> parameters = torch.tensor([[0.5, 0.0]]).expand(3, 2)
    >>> DiscretizedLogistic(3).log_prob(parameters, torch.tensor([[0.0], [0.5], [1.0]])).exp()
    tensor([0.0759, 0.8483, 0.0759])
    """

    numbers_per_output = 2

    def distribution(self, parameters: Tensor) -> Distribution:
        mean, raw = self.split(parameters).unbind(1)
        return _DiscretizedLogistic(mean, 0.5 * bounded_log_var(raw) + math.log(0.1), self.levels)


class _DiscretizedLogistic(Distribution):
    """Bins of a logistic distribution with the given mean and log-scale."""

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, loc: Tensor, log_scale: Tensor, levels: int) -> None:
        super().__init__(loc.shape, validate_args=False)
        self.loc, self.log_scale, self.steps = loc, log_scale, levels - 1

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability, by ``s(a) - s(b) = s(a) s(-b) (1 - exp(b - a))``: stable far in a tail."""
        precision, level = torch.exp(-self.log_scale), (value * self.steps).round()
        upper = ((level + 0.5) / self.steps - self.loc) * precision
        lower = ((level - 0.5) / self.steps - self.loc) * precision
        within = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-precision / self.steps))
        return torch.where(
            level == 0, F.logsigmoid(upper), torch.where(level == self.steps, F.logsigmoid(-lower), within)
        )

    @property
    def mean(self) -> Tensor:
        """The sum of the probabilities of being above each edge between bins, over the number of edges."""
        precision, total = torch.exp(-self.log_scale), torch.zeros_like(self.loc)
        for edge in range(self.steps):  # one at a time: each needs the memory of an image
            total += torch.sigmoid((self.loc - (edge + 0.5) / self.steps) * precision)
        return total / self.steps

    @property
    def variance(self) -> Tensor:
        """The second moment about the level next to ``loc``, less the square of the first; both sums over the edges."""
        centre = (self.loc * self.steps).round().clamp(0, self.steps)
        precision, first, second = torch.exp(-self.log_scale), torch.zeros_like(centre), torch.zeros_like(centre)
        for edge in range(self.steps):
            away = edge + 1 - centre  # of the level above the edge
            beyond = torch.sigmoid((self.loc - (edge + 0.5) / self.steps) * precision * torch.where(away > 0, 1, -1))
            first += torch.where(away > 0, beyond, -beyond)
            second += (2 * away - 1).abs() * beyond
        return (second - first.square()) / self.steps**2

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        loc = self.loc.expand(*sample_shape, *self.loc.shape)
        uniform = torch.rand_like(loc).clamp(torch.finfo(loc.dtype).tiny, 1 - torch.finfo(loc.dtype).eps)
        draw = loc + self.log_scale.exp() * torch.logit(uniform)
        return (draw * self.steps).round().clamp(0, self.steps) / self.steps
