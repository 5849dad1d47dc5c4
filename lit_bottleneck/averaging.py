"""The moving average of weights, which forgets those of the first steps."""

import torch
from torch import Tensor

from lit_bottleneck import arguments

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
        """Move all averages by one operation; ``steps`` weights are in them."""
        share = (1 - self.decay) / (1 - self.decay ** (int(steps) + 1))
        torch._foreach_lerp_(averages, weights, share)
