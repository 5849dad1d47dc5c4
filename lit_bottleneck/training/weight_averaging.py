"""The moving average of weights, which forgets those of the first steps, and a network that has them."""

from collections.abc import Callable
from copy import deepcopy
from typing import Self, cast

import torch
from torch import Tensor, nn

from lit_bottleneck import checks as arguments
from lit_bottleneck.training.precision import without_half_casts

_Tensors = tuple[Tensor, ...] | list[Tensor]


class MovingAverage:
    """Exponential moving average of the weights after each step so far, not of the first ones.

    ``average_t = sum_i decay^(t - i) w_i / sum_i decay^(t - i)``. For ``multi_avg_fn`` of
    ``torch.optim.swa_utils.AveragedModel``.

    Args:
        decay: share of the average that stays at each step, in [0, 1).

    Raises:
        ValueError: if ``decay`` is not in [0, 1).
    """

    def __init__(self, decay: float) -> None:
        self.decay = arguments.decay("decay", decay)

    @torch.no_grad()
    def __call__(self, averages: _Tensors, weights: _Tensors, steps: Tensor | int) -> None:
        """Move all averages by one operation, in their precision; ``steps`` weights are in them."""
        share = (1 - self.decay) / (1 - self.decay ** (int(steps) + 1))
        weights = [weight.to(average.dtype) for average, weight in zip(averages, weights, strict=True)]
        torch._foreach_lerp_(averages, weights, share)

    def of_one(self, average: Tensor, weight: Tensor, steps: Tensor | int) -> Tensor:
        """Move one average, in its precision; for ``avg_fn``."""
        self([average], [weight], steps)
        return average


class AveragedNetwork(nn.Module):
    """A copy of a network whose weights are the `MovingAverage` of the network's; its buffers are those of the moment.

    The copy stays in float32 where the network is cast to half precision, in which an average does not move.

    Args:
        network: what is copied.
        decay: see `MovingAverage`.

    Attributes:
        module: the copy.
        num_averaged: how many weights are in the average, int64.

    Raises:
        ValueError: for a network that cannot be copied.
    """

    num_averaged: Tensor

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        try:
            self.module = deepcopy(network).requires_grad_(False)
        except RuntimeError as error:
            raise ValueError(
                f"{type(network).__name__} cannot be copied, which its average needs: {error} (Of the two weight_norms "
                "of torch that of torch.nn.utils.parametrizations can.)"
            ) from error
        self.average = MovingAverage(decay)
        self.register_buffer("num_averaged", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Map a batch by the averaged weights, in their precision."""
        weight = next(self.module.parameters(), x)
        return cast(Tensor, self.module(x.to(weight.dtype)))

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights after a step."""
        self.average(list(self.module.parameters()), list(network.parameters()), self.num_averaged)
        for ours, theirs in zip(self.module.buffers(), network.buffers(), strict=True):
            ours.copy_(theirs)
        self.num_averaged += 1

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return super()._apply(without_half_casts(fn), recurse)  # type: ignore[no-any-return, no-untyped-call]
