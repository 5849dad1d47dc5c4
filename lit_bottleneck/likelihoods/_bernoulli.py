"""Bernoulli likelihoods: of binary data, and of grey levels."""

import math

import torch
from torch import Tensor, distributions
from torch.distributions import Distribution

from lit_bottleneck.functional import at_least_float32
from lit_bottleneck.likelihoods._likelihood import Likelihood


class Bernoulli(Likelihood):
    """Bernoulli, for binary data: the decoder returns logits.

    >>> import torch
    >>> Bernoulli().log_prob(torch.zeros(1, 3), torch.tensor([[0.0, 1.0, 1.0]]))
    tensor([-2.0794])
    """

    def distribution(self, parameters: Tensor) -> Distribution:
        return distributions.Bernoulli(logits=at_least_float32(parameters), validate_args=False)

    def supports(self, x: Tensor) -> Tensor:
        return (x == 0) | (x == 1)


class ContinuousBernoulli(Likelihood):
    """Continuous Bernoulli (arXiv 1907.06845), a density on [0, 1]: the decoder returns logits.

    >>> import torch
    >>> ContinuousBernoulli().log_prob(torch.zeros(1, 3), torch.rand(1, 3)).abs() < 1e-6
    tensor([True])
    """

    def distribution(self, parameters: Tensor) -> Distribution:
        return _ContinuousBernoulli(logits=at_least_float32(parameters), validate_args=False)

    def supports(self, x: Tensor) -> Tensor:
        return (x >= 0) & (x <= 1)


class _ContinuousBernoulli(distributions.ContinuousBernoulli):
    """torch's, whose normaliser and draws are those of a logit of 16 for all that are larger."""

    def _cont_bern_log_norm(self) -> Tensor:
        """``log(l / tanh(l / 2))`` of the logit l, which is ``log 2`` at 0."""
        half = 0.5 * self.logits.abs()
        small = half < 1e-2
        safe = half.where(~small, 1.0)
        near_zero = torch.log1p(half.square() / 3 - half.square().square() / 45)
        return math.log(2) + torch.where(small, near_zero, safe.log() - safe.tanh().log())

    @property
    def mean(self) -> Tensor:
        half = 0.5 * self.logits
        small = half.abs() < 1e-2
        safe = half.where(~small, 1.0)
        return 0.5 + 0.5 * torch.where(small, half / 3, 1 / safe.tanh() - 1 / safe)

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        logits = self.logits.expand(*sample_shape, *self.logits.shape)
        uniform, falling = torch.rand_like(logits), -logits.abs()
        small = falling > -1e-4
        safe = falling.where(~small, -1.0)
        draw = torch.where(small, uniform, torch.log1p(uniform * safe.expm1()) / safe).clamp(0, 1)
        return draw.where(logits < 0, 1 - draw)
