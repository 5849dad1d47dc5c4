"""Moving average of the weights."""

from collections.abc import Iterable
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.plugins import DoublePrecision, HalfPrecision
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.training.weight_averaging import MovingAverage

Place = tuple[nn.Module, str]  # of a tensor: its owner, and its name there


class WeightEMA(WeightAveraging):
    """Exponential moving average of the weights, used in validation, test and checkpoints.

    ``average_t = sum_i decay^(t - i) w_i / sum_i decay^(t - i)``: over the weights after each optimizer step, without
    the initial ones (which dominate Lightning's ``EMAWeightAveraging`` for thousands of steps). Buffers are not
    averaged. For modules with one optimizer, whose weights are not sharded. The average has at least float32: in half
    precision it would not move. Validation uses it in the precision of the weights.

    Args:
        decay: share of the average that stays at each optimizer step, in [0, 1).

    Raises:
        ConfigurationError: if ``decay`` is not in [0, 1); in ``setup``, for a strategy that shards the weights.
    """

    # `_average_model` and `_latest_update_step` are private in Lightning's base class: no other way to them.

    def __init__(self, decay: float = 0.999) -> None:
        self._average = MovingAverage(decay)
        super().__init__(use_buffers=False, multi_avg_fn=self._average)
        self.decay = decay
        self._averages: list[Tensor] = []
        self._weights: tuple[list[Tensor], list[Place]] = [], []
        self._buffers: tuple[list[Tensor], list[Place]] = [], []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the weights."""
        if isinstance(trainer.strategy, (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)):
            shards = f"{type(trainer.strategy).__name__} shards them: leave it out, or set trainer.strategy=ddp"
            raise ConfigurationError(f"WeightEMA averages weights that every process has as a whole, and {shards}")
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._latest_update_step = trainer.global_step  # else that of an earlier trainer, up to which none counts
        if self._average_model is not None:  # Lightning casts the module only after setup
            precision = trainer.precision_plugin
            if isinstance(precision, DoublePrecision):
                self._average_model.double()
            elif isinstance(precision, HalfPrecision):
                self._average_model.float()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """List the places of tensors once: a walk over the module in each step would take as long as the average.

        The tensors themselves may be replaced, as a buffer by ``self.count = self.count + 1``.
        """
        if self._average_model is not None:
            average = self._average_model.module.to(pl_module.device)  # copied before Lightning moved the module
            self._average_model.n_averaged = self._average_model.n_averaged.cpu()  # to count, wait for no accelerator
            self._weights = list(average.parameters()), _places(pl_module, pl_module.named_parameters())
            self._buffers = list(average.buffers()), _places(pl_module, pl_module.named_buffers())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the weights to the average, if the batch completed an optimizer step."""
        step = trainer.global_step
        if self._average_model is not None and step > self._latest_update_step and self.should_update(step - 1):
            averages, places = self._weights
            self._average(averages, [getattr(*place) for place in places], self._average_model.n_averaged)
            for ours, place in zip(*self._buffers, strict=True):
                ours.copy_(getattr(*place))
            self._average_model.n_averaged += 1
            self._latest_update_step = step

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate with the average, cast to the precision of the weights; keep a copy that is not cast."""
        if self._average_model is not None:
            self._averages = [average.detach().clone() for average in self._average_model.parameters()]
        super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the weights, and the average from its copy."""
        super().on_validation_epoch_end(trainer, pl_module)
        if self._average_model is not None:
            for average, kept in zip(self._average_model.parameters(), self._averages, strict=True):
                average.data.copy_(kept)
            self._averages = []

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore weights and average to go on training; a test keeps the averaged weights that it loaded."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


def _places(module: nn.Module, tensors: Iterable[tuple[str, Tensor]]) -> list[Place]:
    """Return the places of a module's tensors, which are given by name."""
    parts = [name.rpartition(".") for name, _ in tensors]
    return [(module.get_submodule(owner), name) for owner, _, name in parts]
