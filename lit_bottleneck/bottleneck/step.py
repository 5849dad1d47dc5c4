"""The rates and distortions between two optimizer steps, and the hook that ends a step."""

import math
from collections.abc import Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor
from torch.optim import Optimizer

from lit_bottleneck.training.distributed import are_several_processes, sum_over_processes


class Steps(Protocol):
    """Something that an optimizer step ends for."""

    def end_step(self, skipped: bool) -> None:
        """End the step; ``skipped`` if the optimizer is known to have done nothing."""


_CALLED: WeakKeyDictionary[Optimizer, WeakSet[Steps]] = WeakKeyDictionary()


def call_after_steps(optimizer: Optimizer, module: Steps) -> bool:
    """Call ``end_step`` of a module after each step of an optimizer from now on; return whether that is new."""
    if optimizer not in _CALLED:
        _CALLED[optimizer] = WeakSet()
        # Lightning has no hook after a step that fires under manual optimization too; torch has:
        # https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.register_step_post_hook.html
        optimizer.register_step_post_hook(_after_step)
    is_new = module not in _CALLED[optimizer]
    _CALLED[optimizer].add(module)
    return is_new


def _after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    found_inf = getattr(optimizer, "found_inf", None)  # a gradient scaler tells a fused optimizer to do nothing
    for module in list(_CALLED.get(optimizer, ())):
        module.end_step(skipped=found_inf is not None and bool(found_inf))


class StepWindow:
    """Sums and counts over the examples since the last optimizer step, without a graph.

    Attributes:
        penalties: how many penalties were computed.
        loss_scale: scale of the trainer's gradient scaler when they were.
    """

    def __init__(self) -> None:
        self.penalties = 0
        self.loss_scale = 0.0
        self._rate_sum, self._rates = torch.zeros(()), 0
        self._distortion_sum, self._distortions = torch.zeros(()), 0

    def was_skipped(self, loss_scale: float) -> bool:
        """Return whether a gradient scaler skipped the step: its scale falls with each step that it skips."""
        return self.penalties > 0 and loss_scale < self.loss_scale

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
        """Return mean rate and mean distortion over the examples of all processes, by one all-reduce."""
        values: Sequence[Tensor | float] = (self._rate_sum, self._rates, self._distortion_sum, self._distortions)
        if are_several_processes():
            like = self._rate_sum
            totals = torch.stack([torch.as_tensor(value, dtype=like.dtype, device=like.device) for value in values])
            values = sum_over_processes(totals).tolist()
        rate, rates, distortion, distortions = (float(value) for value in values)
        return rate / rates if rates else math.nan, distortion / distortions if distortions else None


def _sum(values: Tensor) -> Tensor:
    return values.sum(dtype=torch.float32 if values.device.type == "mps" else torch.float64)
