"""A moving average of the weights."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.plugins import DoublePrecision, HalfPrecision
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lit_bottleneck.training.weight_averaging import MovingAverage


class WeightEMA(WeightAveraging):
    """Exponential moving average of the weights, which validation, test and checkpoints then use.

    ``average_t = sum_i decay^(t - i) w_i / sum_i decay^(t - i)``: the weights after each optimizer step so far, not the
    first ones (which Lightning's ``EMAWeightAveraging`` keeps for the first thousands of steps). Buffers are not
    averaged. For modules with one optimizer, of which every process has all the weights. The average is in float32 at
    least, also of weights in half precision, in which it would not move; what is validated is cast to theirs.

    Args:
        decay: share of the average that stays at each optimizer step, in [0, 1).

    Raises:
        ValueError: if ``decay`` is not in [0, 1); in ``setup``, for a strategy that shards the weights.
    """

    def __init__(self, decay: float = 0.999) -> None:
        self._average = MovingAverage(decay)
        super().__init__(use_buffers=False, multi_avg_fn=self._average)
        self.decay = decay
        self._averages: list[Tensor] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the weights."""
        if isinstance(trainer.strategy, (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)):
            raise ValueError(
                f"WeightEMA averages weights that every process has as a whole, and {type(trainer.strategy).__name__} "
                "shards them: leave it out of trainer.callbacks, or set trainer.strategy=ddp"
            )
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:  # the weights themselves are not cast yet
            precision = trainer.precision_plugin
            if isinstance(precision, DoublePrecision):
                self._average_model.double()
            elif isinstance(precision, HalfPrecision):
                self._average_model.float()
                # one by one: all at once older releases of torch move only what has the precision of the weights
                self._average_model.multi_avg_fn, self._average_model.avg_fn = None, self._average.of_one

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate with the average, which is cast to the precision of the weights; keep it as it is."""
        if self._average_model is not None:
            self._averages = [average.detach().clone() for average in self._average_model.parameters()]
        super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the weights back, and the average as it was kept."""
        super().on_validation_epoch_end(trainer, pl_module)
        if self._average_model is not None:
            for average, kept in zip(self._average_model.parameters(), self._averages, strict=True):
                average.data.copy_(kept)
            self._averages = []

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take up the training where it was; a test after ``fit`` keeps the averaged weights that it has loaded."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
