"""A moving average of the weights."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn

from lit_bottleneck.averaging import MovingAverage


class WeightEMA(WeightAveraging):
    """Exponential moving average of the weights, which validation, test and checkpoints then use.

    ``average_t = sum_i decay^(t - i) w_i / sum_i decay^(t - i)``: the weights after each optimizer step so far, not the
    first ones (which Lightning's ``EMAWeightAveraging`` keeps for the first thousands of steps). Buffers are not
    averaged. For modules with one optimizer, of which every process has all the weights.

    Args:
        decay: share of the average that stays at each optimizer step, in [0, 1).

    Raises:
        ValueError: if ``decay`` is not in [0, 1); in ``setup``, for a strategy that shards the weights.
    """

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__(use_buffers=False, multi_avg_fn=MovingAverage(decay))
        self.decay = decay

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the weights."""
        if isinstance(trainer.strategy, (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)):
            raise ValueError(
                f"WeightEMA averages weights that every process has as a whole, and {type(trainer.strategy).__name__} "
                "shards them: leave it out of trainer.callbacks, or set trainer.strategy=ddp"
            )
        super().setup(trainer, pl_module, stage)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take up the training where it was; a test after ``fit`` keeps the averaged weights that it has loaded."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
