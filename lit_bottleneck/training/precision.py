"""Tensors that keep their precision when a module is cast, by wrapped functions for ``Module._apply``."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

Move = Callable[[Tensor], Tensor]


def without_casts(fn: Move, half_only: bool = False) -> Move:
    """Return ``fn`` without its casts: a tensor moves to the device but keeps its dtype.

    Args:
        fn: moves and casts a tensor.
        half_only: whether casts to float32 or float64 remain.

    >>> without_casts(lambda tensor: tensor.bfloat16())(torch.tensor(0.123456))
    tensor(0.1235)
    >>> moved = without_casts(lambda tensor: tensor.double(), half_only=True)
    >>> moved(torch.tensor(0.1)).dtype
    torch.float64
    """

    def move(tensor: Tensor) -> Tensor:
        moved = fn(tensor)
        is_kept = moved.dtype == tensor.dtype or (half_only and moved.dtype.itemsize >= torch.float32.itemsize)
        return moved if is_kept else tensor.to(moved.device)

    return move


def loss_scale(trainer: Any) -> float:
    """Return the scale of the gradient scaler of a trainer; 0 without one."""
    scaler = None if trainer is None else getattr(trainer.precision_plugin, "scaler", None)
    return 0.0 if scaler is None else float(scaler.get_scale())


class Mean(MeanMetric):
    """Mean over a split in float32, from sums in float64, under any default dtype of torch.

    ``MeanMetric`` has the default dtype at its construction, and rounds each value to the default dtype at its last
    move. Under ``bf16-true`` Lightning moves it while the default is bfloat16. Its sums in float32 drift: after 60 000
    batches of small numbers by tenths. On a device without float64 (MPS) the sums are in float32.
    """

    def __init__(self) -> None:
        super().__init__()
        for name in ("mean_value", "weight"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the sums."""
        total: Tensor = self.mean_value
        return total.dtype

    def compute(self) -> Tensor:
        """Return the mean, a float32 scalar."""
        mean: Tensor = super().compute()
        return mean.float()

    def _apply(self, fn: Move, exclude_state: Sequence[str] = "") -> nn.Module:
        return super()._apply(_for_any_device(without_casts(fn)), exclude_state)


def _for_any_device(move: Move) -> Move:
    """Return ``move``, which rounds to float32 what it moves to a device without float64."""

    def moved(tensor: Tensor) -> Tensor:
        try:
            return move(tensor)
        except TypeError:  # raised by MPS
            return move(tensor.float())

    return moved
