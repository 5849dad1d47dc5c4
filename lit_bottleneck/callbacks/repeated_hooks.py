"""The hooks of an epoch's start, called again in an epoch that is resumed."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BaseFinetuning, Callback, ProgressBar
from lightning.pytorch.loggers.logger import DummyLogger, Logger
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor


class RepeatedHooks:
    """Let the hooks of an epoch's start set what no checkpoint holds, and leave what one holds as it is.

    Lightning does not call ``on_train_epoch_start`` in an epoch that is resumed, and what it set is missing
    (``GradientAccumulationScheduler``). Called again it would repeat what a checkpoint holds already
    (``BackboneFinetuning`` would raise a learning rate twice, ``LearningRateMonitor`` log a second row). So between
    construction and ``undo`` loggers write nothing, and ``undo`` restores weights, optimizers, schedulers and the
    states of callbacks.

    Args:
        trainer: a trainer whose state is that of a checkpoint.
        quiet: callbacks whose hooks change no state.
    """

    def __init__(self, trainer: Trainer, quiet: tuple[type[Callback], ...] = ()) -> None:
        quiet = (ProgressBar, *quiet)
        self.trainer = trainer
        self.loggers = trainer.loggers
        trainer.loggers = [_SilentLogger(logger) for logger in self.loggers]
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        called: list[Any] = [one for one in callbacks if _has_hook(one) and not isinstance(one, quiet)]
        self.restore: list[tuple[Callable[[Any], Any], Any]] = []
        if not called and not is_overridden("on_train_epoch_start", trainer.lightning_module):
            return
        module = trainer.lightning_module
        # a strategy that reads its own format shards the weights, and hands them out by communication alone
        if type(trainer.strategy).load_checkpoint is Strategy.load_checkpoint:
            self.restore.append((lambda state: module.load_state_dict(state, strict=False), _copy(module.state_dict())))
            called = [*trainer.optimizers, *called]
        called += [config.scheduler for config in trainer.lr_scheduler_configs]
        self.restore += [(one.load_state_dict, _copy(one.state_dict())) for one in called]

    def undo(self) -> None:
        """Undo what the hooks changed, and let loggers write."""
        for load, state in self.restore:
            load(state)
        self.restore = []
        self.trainer.loggers = self.loggers


def after_hooks(module: LightningModule, call: Callable[[], None]) -> None:
    """Call a function once, after the module's next ``on_train_epoch_start``, the last of the hooks of that name."""
    hook = module.on_train_epoch_start

    def hook_and_call() -> None:
        del module.on_train_epoch_start  # of the instance
        hook()
        call()

    module.on_train_epoch_start = hook_and_call  # type: ignore[method-assign]


def unfreeze(trainer: Trainer) -> None:
    """Unfreeze what ``BaseFinetuning`` callbacks have unfrozen in earlier epochs; no checkpoint holds it."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    finetuning = [one for one in callbacks if isinstance(one, BaseFinetuning)]
    if finetuning:
        hooks = RepeatedHooks(trainer)
        for callback in finetuning:
            for epoch in range(trainer.current_epoch):
                for optimizer in trainer.optimizers:
                    callback.finetune_function(trainer.lightning_module, epoch, optimizer)
        hooks.undo()


class _SilentLogger(DummyLogger):
    """Stands for a logger, and writes nothing."""

    def __init__(self, logger: Logger) -> None:
        super().__init__()
        self.logger = logger

    name = property(lambda self: self.logger.name)
    version = property(lambda self: self.logger.version)
    save_dir = property(lambda self: self.logger.save_dir)
    log_dir = property(lambda self: self.logger.log_dir)


def _has_hook(callback: Callback) -> bool:
    hook = callback.on_train_epoch_start
    return getattr(hook, "__func__", None) is not Callback.on_train_epoch_start


def _copy(state: Any) -> Any:
    """Copy a state; tensors to the CPU."""
    return deepcopy(apply_to_collection(state, Tensor, lambda tensor: tensor.detach().cpu()))
