"""Optimizers held against the states that a checkpoint has for them, for any module."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch.optim import Optimizer

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.models.disagreements import OPTIMIZERS, check_optimizers, optimizer_kinds, stored_optimizers


class OptimizerChecks(Callback):
    """Name the optimizers in checkpoints, and refuse the states of others, which torch takes or fails on later."""

    def __init__(self) -> None:
        self._kinds: list[str | set[str]] = []
        self._sizes: list[list[int]] = []

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the kinds of the optimizers beside their states."""
        if "optimizer_states" in checkpoint:
            checkpoint[OPTIMIZERS] = optimizer_kinds(trainer.optimizers)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Read the kinds and the groups of parameters; the optimizers may not be there yet."""
        if trainer.state.fn == TrainerFn.FITTING:
            states = checkpoint.get("optimizer_states", [])
            self._kinds = stored_optimizers(checkpoint)
            self._sizes = [_sizes(state["param_groups"]) for state in states if _is_whole(state)]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare them with the optimizers.

        Raises:
            ConfigurationError: for other optimizers, or other groups of parameters.
        """
        kinds, self._kinds = self._kinds, []
        stored, self._sizes = self._sizes, []
        check_optimizers(kinds, trainer.optimizers)
        ours = [_sizes(optimizer.param_groups) for optimizer in trainer.optimizers]
        if stored and stored != ours:
            names, here, there = _named(trainer.optimizers), _shown(ours), _shown(stored)
            raise ConfigurationError(
                f"the optimizers {names} have groups of {here} parameters, and their states in the checkpoint of "
                f"{there}: set the optimizers of before, or begin a new training"
            )


def _is_whole(state: Any) -> bool:
    """Return whether a state is that of torch, which numbers parameters; strategies that shard them name them."""
    return all(isinstance(one, int) for group in state.get("param_groups", [{}]) for one in group.get("params", [""]))


def _sizes(groups: Any) -> list[int]:
    return [len(group["params"]) for group in groups]


def _shown(sizes: list[list[int]]) -> str:
    return "; ".join(" + ".join(map(str, groups)) for groups in sizes)


def _named(optimizers: list[Optimizer]) -> str:
    return ", ".join(type(optimizer).__name__ for optimizer in optimizers)
