"""The hook of torch that ends an optimizer step, and whose step it is."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.module_tracker import ModuleTracker


class Steps(Protocol):
    """A module for which an optimizer step ends."""

    def end_step(self, optimizer: Optimizer, skipped: bool) -> None:
        """End the step; ``skipped`` if the optimizer is known to have done nothing."""


# In the order of their construction, which is the same on all processes.
_MODULES: WeakValueDictionary[int, Steps] = WeakValueDictionary()
_NUMBERS = itertools.count()


def watch(module: Steps) -> None:
    """Call ``end_step`` of a module after each step of any optimizer of the process from now on."""
    _MODULES[next(_NUMBERS)] = module


def watched() -> Iterator[Any]:
    """Return the living modules that are watched."""
    return iter(list(_MODULES.values()))


def _after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    found_inf = getattr(optimizer, "found_inf", None)  # a gradient scaler tells a fused optimizer to do nothing
    skipped = found_inf is not None and bool(found_inf)
    for module in watched():
        module.end_step(optimizer, skipped)


register_optimizer_step_post_hook(_after_step)

_TRACKER = ModuleTracker()


def sources(rate: Tensor) -> dict[int, Tensor]:
    """Return the parameters that a tensor depends on, the leaves of its graph, by their ``id``."""
    waiting, seen = [rate.grad_fn], set()
    found: dict[int, Tensor] = {}
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        before = node.next_functions
        waiting += [one for one, _ in before]
        weight = None if before else getattr(node, "variable", None)  # of a leaf:
        if weight is not None:  # https://docs.pytorch.org/docs/stable/notes/autograd.html
            found[id(weight)] = weight
    return found


def trains(optimizer: Optimizer, module: nn.Module, sources: Mapping[int, Tensor], has_gradient: bool) -> bool:
    """Return whether an optimizer trains a rate: it holds a parameter of the module that the rate depends on.

    If the rate depends on none of the module's (it may have no graph, or one of copies, as of sharded weights), any of
    them counts; if the module has none to train, the sources of the rate do.

    Args:
        optimizer: the one that has stepped.
        module: the one whose price it is.
        sources: what the rate depends on, by ``id``.
        has_gradient: whether the gradient of the penalty is known to be taken; else the parameter must have one.
    """

    def holds(weights: Mapping[int, Tensor]) -> Iterator[Tensor]:
        return (weight for weight in _held(optimizer, weights) if has_gradient or weight.grad is not None)

    held = next(holds(sources), None)
    if held is not None and any(held is weight for weight in module.parameters()):
        return True
    own = _own(module)
    inside = {number: weight for number, weight in sources.items() if number in own} if own else sources
    return next(holds(inside or own), None) is not None


def may_train(optimizer: Optimizer, module: nn.Module, sources: Mapping[int, Tensor]) -> bool | None:
    """Return whether another process may have paid for what an optimizer trained; None if that is not known.

    The same on all processes: whether the optimizer holds a parameter of the module, or, of a module that has none to
    train, a source of an earlier rate.
    """
    weights = _own(module) or sources
    return next(_held(optimizer, weights), None) is not None if weights else None


def _own(module: nn.Module) -> dict[int, Tensor]:
    return {id(weight): weight for weight in module.parameters() if weight.requires_grad}


def _held(optimizer: Optimizer, weights: Mapping[int, Tensor]) -> Iterator[Tensor]:
    return (weight for group in optimizer.param_groups for weight in group["params"] if id(weight) in weights)


def is_in_backward() -> bool:
    """Return whether gradients are computed now: then a forward pass is the recomputation of a checkpoint."""
    return not torch.compiler.is_compiling() and _TRACKER.is_bw
