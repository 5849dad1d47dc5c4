"""A checkpoint that cannot be restored is an error of the configuration: one line, which names it."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.training.checkpoints import WholeCheckpointIO

_LIKE_PARAMETERS = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "grad_avg", "acc_delta"}


class Restoring(Callback):
    """Check the state of a training before it is restored, and note when that has come to its end.

    Lightning hands plain values of the file to loops, optimizers and schedulers, which check little of them.
    """

    _checkpoint: dict[str, Any] | None = None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the checkpoint, until there are the optimizers that it is for."""
        self._checkpoint = checkpoint

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare loops, optimizers and schedulers with what the checkpoint holds of them.

        Raises:
            ConfigurationError: with the first place where the checkpoint holds something else.
        """
        checkpoint, self._checkpoint = self._checkpoint, None
        if checkpoint is None:
            return
        own = {
            "loops.fit_loop": (trainer.fit_loop.state_dict(), checkpoint.get("loops", {}).get("fit_loop")),
            "optimizer_states": (
                [optimizer.state_dict()["param_groups"] for optimizer in trainer.optimizers],
                [state.get("param_groups") for state in checkpoint.get("optimizer_states", [])],
            ),
            "lr_schedulers": (
                [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
                checkpoint.get("lr_schedulers"),
            ),
        }
        for place, (wanted, stored) in own.items():
            _check(place, wanted, stored)
        for index, pair in enumerate(zip(trainer.optimizers, checkpoint.get("optimizer_states", []), strict=False)):
            _check_shapes(*pair, f"optimizer_states[{index}]")

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that the checkpoint is restored: from here on, errors are none of its."""
        if isinstance(trainer.strategy.checkpoint_io, WholeCheckpointIO):
            trainer.strategy.checkpoint_io.restored_from = None

    on_train_start = on_validation_start = on_test_start = on_predict_start = on_sanity_check_start


def being_restored(trainer: Trainer | None) -> str | None:
    """Return the path of the checkpoint that is being restored; None before and after."""
    io = getattr(getattr(trainer, "strategy", None), "checkpoint_io", None)
    return io.restored_from if isinstance(io, WholeCheckpointIO) else None


def _check(place: str, wanted: Any, stored: Any) -> None:
    """Compare two nests: what a training holds when it begins, and what a checkpoint holds at a later time.

    Raises:
        ConfigurationError: where the checkpoint holds a value of another kind.
    """
    if isinstance(wanted, dict) and isinstance(stored, dict):
        for name in wanted.keys() & stored.keys():  # another version may hold more or less
            _check(f"{place}.{name}", wanted[name], stored[name])
    elif isinstance(wanted, list) and isinstance(stored, list):
        for index, (one, other) in enumerate(zip(wanted, stored, strict=False)):
            _check(f"{place}[{index}]", one, other)
    elif not _may_become(wanted, stored) or (place.startswith("loops") and isinstance(stored, int) and stored < 0):
        raise ConfigurationError(f"--ckpt_path: the checkpoint's {place} is {stored!r:.100}, where {wanted!r:.100} was")


def _check_shapes(optimizer: Optimizer, state: dict[str, Any], place: str) -> None:
    """Compare the moments in an optimizer's state with its parameters.

    Raises:
        ConfigurationError: where one has another shape.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, values in state["state"].items():
        for name in _LIKE_PARAMETERS & values.keys():
            value, wanted = values[name], parameters[index]
            if value is not None and value.shape != wanted.shape:
                shapes = f"of the shape {tuple(value.shape)}, and its parameter {tuple(wanted.shape)}"
                raise ConfigurationError(f"--ckpt_path: the checkpoint's {place}.state.{index}.{name} is {shapes}")


def _may_become(wanted: Any, stored: Any) -> bool:
    """Return whether a value is of the kind of another; None is an option that is left to a library."""
    is_option = wanted is None or isinstance(wanted, (bool, str))
    return (is_option and (wanted is None or stored is None)) or _kind(wanted) == _kind(stored)


def _kind(value: Any) -> Any:
    is_number = isinstance(value, (bool, int, float)) or (isinstance(value, Tensor) and value.numel() == 1)
    return "number" if is_number else list if isinstance(value, (list, tuple)) else type(value)
