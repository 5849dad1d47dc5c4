"""A moving average of the weights."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor


class WeightEMA(WeightAveraging):
    """Exponential moving average of the weights, which validation, test and checkpoints then use.

    ``average_t = sum_i decay^(t - i) w_i / sum_i decay^(t - i)``: the weights after each optimizer step so far, not the
    first ones (which Lightning's ``EMAWeightAveraging`` keeps for the first thousands of steps). Buffers are not
    averaged. For modules with one optimizer.

    Args:
        decay: share of the average that stays at each optimizer step, in [0, 1).

    Raises:
        ValueError: if ``decay`` is not in [0, 1).
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1); got {decay}")
        super().__init__(use_buffers=False, multi_avg_fn=self._move)
        self.decay = decay

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take up the training where it was; a test after ``fit`` keeps the averaged weights that it has loaded."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    @torch.no_grad()
    def _move(self, averages: Any, weights: Any, steps: Tensor | int) -> None:
        """Move all averages by one operation; ``steps`` weights are in them."""
        share = (1 - self.decay) / (1 - self.decay ** (int(steps) + 1))
        torch._foreach_lerp_(averages, weights, share)
