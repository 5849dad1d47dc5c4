"""What is remembered of the rates from one optimizer step to the next."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lit_bottleneck.training.distributed import are_several_processes, sum_over_processes


class StepWindow:
    """Sums and counts of the examples since the last optimizer step, without a graph.

    Attributes:
        penalties: how many penalties were computed.
        loss_scale: that of the trainer's gradient scaler when they were.
    """

    def __init__(self) -> None:
        self.penalties = 0
        self.loss_scale = 0.0
        self._rate_sum, self._rates = torch.zeros(()), 0
        self._distortion_sum, self._distortions = torch.zeros(()), 0

    def add(self, rate: Tensor, distortion: Tensor | None) -> None:
        """Add the rates ``(B,)`` of a penalty, and the distortions ``(B,)`` or their mean."""
        self.penalties += 1
        self._rate_sum, self._rates = self._rate_sum.to(rate.device) + _sum(rate), self._rates + rate.numel()
        if distortion is not None:
            total, examples = _sum(distortion), distortion.numel()
            if distortion.dim() == 0:  # their mean already
                total, examples = total * rate.numel(), rate.numel()
            self._distortion_sum = self._distortion_sum.to(rate.device) + total
            self._distortions += examples

    def global_means(self) -> tuple[float, float | None]:
        """Mean rate and mean distortion over all examples of the window, on all processes, by one all-reduce."""
        values: Sequence[Tensor | float] = (self._rate_sum, self._rates, self._distortion_sum, self._distortions)
        if are_several_processes():
            like = self._rate_sum
            totals = torch.stack([torch.as_tensor(value, dtype=like.dtype, device=like.device) for value in values])
            values = sum_over_processes(totals).tolist()
        rate, rates, distortion, distortions = (float(value) for value in values)
        return rate / rates if rates else math.nan, distortion / distortions if distortions else None


def _sum(values: Tensor) -> Tensor:
    return values.sum(dtype=torch.float32 if values.device.type == "mps" else torch.float64)
