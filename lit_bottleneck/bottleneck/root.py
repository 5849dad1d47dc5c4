"""The LightningModule that a trainer trains, seen from a module inside it."""

from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

from torch import nn

from lit_bottleneck.beta import BetaController
from lit_bottleneck.bottleneck.step import watched

# Modules without the mixin that a trainer may train.
_NOTED: WeakSet[nn.Module] = WeakSet()
# The module around another, and the path, when they were last looked for.
_FOUND: WeakKeyDictionary[nn.Module, tuple[Any, str]] = WeakKeyDictionary()


def note_root(module: nn.Module) -> None:
    """Let the bottlenecks inside a module find it while a trainer trains it."""
    _NOTED.add(module)


def root_of(module: nn.Module) -> tuple[Any, str]:
    """Return the LightningModule that a trainer is training and that contains a module, and the path to the module.

    Without one, ``(None, "")``.
    """
    if is_trained(module):
        return module, ""
    if module in _FOUND:
        root, path = _FOUND[module][0](), _FOUND[module][1]
        if root is not None and is_trained(root) and _part_of(root, path) is module:
            return root, path
    trainer = vars(module).get("_trainer")
    candidates: Iterable[Any] = (module if trainer is None else trainer.lightning_module, *watched(), *_NOTED)
    for root in candidates:
        if is_trained(root):
            for path, part in root.named_modules():
                if part is module:
                    _FOUND[module] = ref(root), path
                    return root, path
    return None, ""


def _part_of(root: nn.Module, path: str) -> Any:
    for name in path.split("."):
        root = vars(root)["_modules"].get(name)
        if root is None:
            break
    return root


def is_trained(root: Any) -> bool:
    """Return whether a trainer is training this very module."""
    trainer = (
        None if root is None else vars(root).get("_trainer")
    )  # a LightningModule's, which raises where there is none
    return trainer is not None and trainer.training and trainer.lightning_module is root


def writes_this_step(root: Any) -> bool:
    """Return whether a batch of the trainer is under way that its loggers write, or the last of the epoch."""
    trainer = root.trainer
    batches = trainer.fit_loop.epoch_loop.batch_progress.current
    if batches.ready == batches.completed:  # a step in a hook in which Lightning logs nothing
        return False
    # The loggers' count of steps, which has no public name: global_step counts the steps of every optimizer.
    step = trainer.fit_loop.epoch_loop._batches_that_stepped + 1
    every = trainer.log_every_n_steps
    return not trainer.barebones and bool(trainer.is_last_batch or (every and step % every == 0))


def name_of(module: nn.Module) -> str:
    """Return a module's path in the largest known module around it; without one, its arguments."""
    paths = [path for root in (*watched(), *_NOTED) for path, part in root.named_modules() if part is module]
    kind = type(module).__name__
    return f"{kind} {max(paths, key=len)}" if any(paths) else f"{kind}({module.extra_repr()})"


def log_price(root: Any, path: str, name: str, rate: float, beta: float) -> None:
    """Log the mean rate of a step and the beta that it was priced with, by the path of the module and the name."""
    path = path.replace("_orig_mod.", "").removesuffix("._orig_mod")  # of torch.compile
    suffix = "".join(f"/{part}" for part in (path, name) if part)
    root.log_dict({f"train/rate{suffix}": rate, f"train/beta{suffix}": beta}, prog_bar=not suffix)


def store_live_prices(root: Any, checkpoint: dict[str, Any]) -> None:
    """Put the live state of each controller into a checkpoint of ``root``."""
    state_dict = checkpoint.get("state_dict", {})
    for path, part in root.named_modules():
        key = f"{path}._extra_state"
        if isinstance(part, BetaController) and key in state_dict:
            state_dict[key] = part.get_extra_state()
