"""Bias-corrected moving average of weights, and a network copy that has the averaged weights."""

from collections.abc import Callable
from copy import deepcopy
from typing import Self, cast

import torch
from torch import Tensor, nn

from lit_bottleneck import checks
from lit_bottleneck.training.precision import without_casts

_Tensors = tuple[Tensor, ...] | list[Tensor]


class MovingAverage:
    """Exponential moving average of the weights after each step, without the initial weights.

    ``average_t = sum_i decay^(t - i) w_i / sum_i decay^(t - i)``. Usable as ``multi_avg_fn`` of
    ``torch.optim.swa_utils.AveragedModel``.

    Args:
        decay: share of the average that remains at each step, in [0, 1).

    Raises:
        ConfigurationError: if ``decay`` is not in [0, 1).
    """

    def __init__(self, decay: float) -> None:
        self.decay = checks.decay("decay", decay)

    @torch.no_grad()
    def __call__(self, averages: _Tensors, weights: _Tensors, steps: Tensor | int) -> None:
        """Update all averages of ``steps`` earlier weights by one operation, in the averages' precision."""
        share = (1 - self.decay) / (1 - self.decay ** (int(steps) + 1))
        weights = [weight.to(average.dtype) for average, weight in zip(averages, weights, strict=True)]
        torch._foreach_lerp_(averages, weights, share)


class AveragedNetwork(nn.Module):
    """A copy of a network with the ``MovingAverage`` of its weights and its current buffers.

    The copy stays in float32 if the network is cast to half precision, in which an average would not move.

    Args:
        network: the network to copy.
        decay: see ``MovingAverage``.

    Attributes:
        module: the copy.
        num_averaged: number of steps in the average, int64.

    Raises:
        ConfigurationError: for a network that cannot be copied.
    """

    num_averaged: Tensor

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        try:
            self.module = deepcopy(network).requires_grad_(False)
        except RuntimeError as error:
            advice = "(Use weight_norm of torch.nn.utils.parametrizations: that of torch.nn.utils cannot be copied.)"
            name = type(network).__name__
            raise checks.ConfigurationError(f"{name} must be a network that can be copied; {error} {advice}") from error
        self.average = MovingAverage(decay)
        self.register_buffer("num_averaged", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the averaged weights to a batch, in their precision."""
        weight = next(self.module.parameters(), x)
        return cast(Tensor, self.module(x.to(weight.dtype)))

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Add the weights after a step to the average."""
        self.average(list(self.module.parameters()), list(network.parameters()), self.num_averaged)
        for ours, theirs in zip(self.module.buffers(), network.buffers(), strict=True):
            ours.copy_(theirs)
        self.num_averaged += 1

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return super()._apply(without_casts(fn, half_only=True), recurse)  # type: ignore[no-any-return, no-untyped-call]
