"""The LightningModule that a trainer trains, seen from a module inside it."""

from collections.abc import Iterable
from typing import Any
from weakref import WeakSet

from torch import nn

from lit_bottleneck.beta import BetaController
from lit_bottleneck.bottleneck.step import watched

# Modules without the mixin that a trainer may train.
_NOTED: WeakSet[nn.Module] = WeakSet()


def note_root(module: nn.Module) -> None:
    """Let the bottlenecks inside a module find it while a trainer trains it."""
    _NOTED.add(module)


def root_of(module: nn.Module) -> tuple[Any, str]:
    """Return the LightningModule that a trainer is training and that contains a module, and the path to the module.

    Without one, ``(None, "")``.
    """
    if is_trained(module):
        return module, ""
    trainer = vars(module).get("_trainer")
    candidates: Iterable[Any] = (module if trainer is None else trainer.lightning_module, *watched(), *_NOTED)
    for root in candidates:
        if is_trained(root):
            for path, part in root.named_modules():
                if part is module:
                    return root, path
    return None, ""


def is_trained(root: Any) -> bool:
    """Return whether a trainer is training this very module."""
    trainer = vars(root).get("_trainer")  # a LightningModule's, which raises where there is none
    return trainer is not None and trainer.training and trainer.lightning_module is root


def writes_this_step(root: Any) -> bool:
    """Return whether the loggers of the trainer of ``root`` write this step, or the epoch ends with it."""
    trainer = root.trainer
    # The loggers' count of steps, which has no public name: global_step counts the steps of every optimizer.
    step = trainer.fit_loop.epoch_loop._batches_that_stepped + 1
    every = trainer.log_every_n_steps
    return not trainer.barebones and bool(trainer.is_last_batch or (every and step % every == 0))


def is_last_step_of_epoch(root: Any) -> bool:
    """Return whether the epoch of the trainer of ``root``, if there is one, ends with this batch."""
    return root is not None and bool(root.trainer.is_last_batch)


def name_of(module: nn.Module) -> str:
    """Return a module's path in the largest known module around it; without one, its arguments."""
    paths = [path for root in (*watched(), *_NOTED) for path, part in root.named_modules() if part is module]
    kind = type(module).__name__
    return f"{kind} {max(paths, key=len)}" if any(paths) else f"{kind}({module.extra_repr()})"


def log_price(root: Any, path: str, name: str, rate: float, beta: float) -> None:
    """Log the mean rate of a step and the beta that it was priced with, by the path of the module and the name."""
    suffix = "".join(f"/{part}" for part in (path, name) if part)
    root.log_dict({f"train/rate{suffix}": rate, f"train/beta{suffix}": beta}, prog_bar=not suffix)


def store_live_prices(root: Any, checkpoint: dict[str, Any]) -> None:
    """Put the live state of each controller into a checkpoint of ``root``."""
    state_dict = checkpoint.get("state_dict", {})
    for path, part in root.named_modules():
        key = f"{path}._extra_state"
        if isinstance(part, BetaController) and key in state_dict:
            state_dict[key] = part.get_extra_state()
