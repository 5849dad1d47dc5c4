"""Tensors that keep their precision when a module is cast, by wrapped functions for ``Module._apply``."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from lit_bottleneck.functional import at_least_float32

Move = Callable[[Tensor], Tensor]


def without_casts(fn: Move) -> Move:
    """Return ``fn`` without its casts: a tensor moves to the device but keeps its dtype.

    >>> without_casts(lambda tensor: tensor.bfloat16())(torch.tensor(0.123456))
    tensor(0.1235)
    """

    def move(tensor: Tensor) -> Tensor:
        moved = fn(tensor)
        return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

    return move


def without_half_casts(fn: Move) -> Move:
    """Return ``fn`` without its casts to half precision; other casts and moves to a device remain.

    >>> moved = without_half_casts(lambda tensor: tensor.half())
    >>> moved(torch.tensor(0.1)).dtype, moved(torch.tensor(0.1, dtype=torch.float64)).dtype
    (torch.float32, torch.float64)
    """

    def move(tensor: Tensor) -> Tensor:
        moved = fn(tensor)
        if not tensor.is_floating_point() or at_least_float32(moved).dtype == moved.dtype:
            return moved
        return tensor.to(moved.device)

    return move


def loss_scale(trainer: Any) -> float:
    """Return the scale of the gradient scaler of a trainer; 0 without one."""
    scaler = None if trainer is None else getattr(trainer.precision_plugin, "scaler", None)
    return 0.0 if scaler is None else float(scaler.get_scale())


class Mean(MeanMetric):
    """Mean over a split in float32, under any default dtype of torch.

    ``MeanMetric`` has the default dtype at its construction, and rounds each value to the default dtype at its last
    move. Under ``bf16-true`` Lightning moves it while the default is bfloat16.
    """

    def __init__(self) -> None:
        super().__init__()
        self.set_dtype(torch.float32)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the sums."""
        total: Tensor = self.mean_value
        return total.dtype
