"""Checks before the first epoch: a last batch of one example, a fused optimizer, a warm-up longer than the training."""

import math
from collections.abc import Sized
from typing import Any

from lightning.pytorch.plugins import MixedPrecision
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from lit_bottleneck.beta import BetaController
from lit_bottleneck.checks import ConfigurationError

_ONE_EXAMPLE = "{} one example, for which batch normalisation is undefined: set another batch_size, or drop_last=True"


def has_batch_statistics(network: nn.Module) -> bool:
    """Return whether a layer normalises, in its current mode, by the batch of one process."""
    layers = (one for one in network.modules() if isinstance(one, _BatchNorm) and not isinstance(one, nn.SyncBatchNorm))
    return any(layer.training or layer.running_mean is None for layer in layers)


def refuse_one_example(network: nn.Module, rows: int) -> None:
    """Refuse a batch of one example where a layer normalises by the batch.

    Raises:
        ConfigurationError: with what to set.
    """
    if rows == 1 and has_batch_statistics(network):
        raise ConfigurationError(_ONE_EXAMPLE.format("this batch has"))


def check_last_batch(model: Any) -> None:
    """Refuse a training loader whose last batch will be one example where a layer normalises by the batch.

    Raises:
        ConfigurationError: at the start, rather than at the end of the first epoch.
    """
    trainer, pace = model.trainer, _pace(model)
    if not has_batch_statistics(model):
        return
    for loader in tree_leaves(trainer.train_dataloader):
        batches = getattr(loader, "batch_sampler", None)
        size, rows = getattr(batches, "batch_size", None), getattr(batches, "sampler", None)
        if not size or getattr(batches, "drop_last", True) or not isinstance(rows, Sized) or len(rows) % size != 1:
            continue
        before = len(rows) // size
        ends_before = pace is not None and 0 <= trainer.max_steps <= trainer.global_step + before / (pace[0] * pace[1])
        if trainer.num_training_batches > before and not ends_before:
            raise ConfigurationError(_ONE_EXAMPLE.format("the last batch of an epoch will have"))


def refuse_clipping_fused(model: Any) -> None:
    """Refuse to clip gradients in mixed precision for a fused optimizer, as Lightning does only in the first step.

    Raises:
        ConfigurationError: with what to set.
    """
    trainer = model.trainer
    value = getattr(model, "gradient_clip_val", None) or trainer.gradient_clip_val
    fused = any(group.get("fused") for optimizer in trainer.optimizers for group in optimizer.param_groups)
    if value and fused and isinstance(trainer.precision_plugin, MixedPrecision):
        advice = "set fused=false of it (such as --model.init_args.optimizer.init_args.fused false)"
        needs = "needs an optimizer that is not fused"
        raise ConfigurationError(f"gradient_clip_val={value} with precision={trainer.precision} {needs}: {advice}")


def warn_of_warmup(model: Any) -> None:
    """Warn of each controller of beta whose warm-up is longer than the training, if the trainer knows its steps."""
    found: list[Any] = [part for part in model.modules() if isinstance(part, BetaController)]
    for controller in found:
        warmup_steps = getattr(controller, "warmup_steps", 0)
        done = 0 if model.trainer.ckpt_path else getattr(controller, "step", 0)  # a training that goes on counts on
        steps = _beta_steps(model) if warmup_steps else math.inf
        if warmup_steps - done > steps:
            longer = f"warmup_steps={warmup_steps} of {type(controller).__name__} is longer than the training"
            rank_zero_warn(f"{longer}, in which beta moves in {steps:.0f} optimizer steps: it ends within the warm-up")


def _beta_steps(model: Any) -> float:
    """Return how many optimizer steps move beta in a training; infinity where it is not known."""
    trainer, pace = model.trainer, _pace(model)
    if pace is None:
        return math.inf
    batches_per_step, share = pace
    trainer.estimated_stepping_batches  # noqa: B018  (sets up the loaders, which have not been yet)
    epochs = trainer.max_epochs
    known = epochs not in (None, -1) and math.isfinite(trainer.num_training_batches)
    of_epochs = math.ceil(trainer.num_training_batches / batches_per_step) * epochs if known else math.inf
    return float(min(of_epochs, math.inf if trainer.max_steps == -1 else trainer.max_steps * share))


def _pace(model: Any) -> tuple[int, float] | None:
    """Return the batches of a step of beta, and its share of the trainer's steps; None where they are not known."""
    if model.automatic_optimization:
        return model.trainer.accumulate_grad_batches, 1.0
    steps = getattr(model, "discriminator_steps", None)
    return None if steps is None else (model.accumulate_grad_batches, steps / (steps + 1))
