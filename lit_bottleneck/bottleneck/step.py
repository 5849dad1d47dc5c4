"""The rates and distortions between two optimizer steps, and the hook that ends a step."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.module_tracker import ModuleTracker

from lit_bottleneck.training.precision import loss_scale


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
_MANY = 100  # penalties without an optimizer step


class StepWindow:
    """Sums and counts over the examples of one price since the last optimizer step, without a graph.

    Batches whose rate or distortion is not finite are left out of the sums: a gradient scaler skips their step. A copy,
    or an unpickled one, is empty.

    Attributes:
        penalties: how many penalties were computed.
        sources: the parameters that the last rate depends on, by their ``id``.
        has_warned: whether somebody said that nothing ends it.
    """

    def __init__(self) -> None:
        self.penalties = 0
        self.sources: dict[int, Tensor] = {}
        self._batches: list[tuple[list[Tensor], tuple[int, int], int]] = []
        self._totals = [0.0] * 4
        self.has_warned = False
        self._first_step = 0
        self._loss_scale = 0.0
        self._optimizers: list[Optimizer] = []
        self._unpriced_batch: Any = None

    def __reduce__(self) -> Any:
        return StepWindow, ()

    def is_stale(self, trainer: Any) -> bool:
        """Return whether the rates are those of another fit, or of a step that a gradient scaler skipped.

        The scale of the scaler falls with each step that it skips.
        """
        if not self.penalties:
            return False
        optimizers = [] if trainer is None else trainer.optimizers
        return optimizers != self._optimizers or loss_scale(trainer) < self._loss_scale

    def add(self, rate: Tensor, distortion: Tensor | None, trainer: Any) -> None:
        """Add the rates ``(B,)`` of a penalty, and the distortions ``(B,)`` or their mean."""
        if not self.penalties:
            self._first_step = 0 if trainer is None else trainer.global_step
        self.penalties += 1
        self.sources = sources(rate)
        self._loss_scale, self._optimizers = loss_scale(trainer), [] if trainer is None else list(trainer.optimizers)
        sums, counts = [_sum(rate)], (rate.numel(), 0)
        if distortion is not None:
            sums.append(_sum(distortion).to(sums[0]))
            counts = rate.numel(), distortion.numel() if distortion.dim() else rate.numel()
        is_mean = distortion is not None and not distortion.dim()
        self._batches.append((sums, counts, rate.numel() if is_mean else 1))
        if len(self._batches) >= _MANY:
            self._read()

    def totals(self) -> list[float]:
        """Return the number of penalties, the sums of rates and distortions, and how many of each there were."""
        if self._batches:
            self._read()
        return [self.penalties, *self._totals]

    def _read(self) -> None:
        """Add the sums of the batches to the totals; this waits for an accelerator once."""
        values = iter(torch.stack([value for sums, _, _ in self._batches for value in sums]).tolist())
        for sums, counts, weight in self._batches:
            rate, distortion = next(values), next(values) * weight if len(sums) > 1 else 0.0
            if math.isfinite(rate) and math.isfinite(distortion):
                batch = (rate, distortion, *counts)
                self._totals = [total + value for total, value in zip(self._totals, batch, strict=True)]
        self._batches = []

    def should_have_ended(self, trainer: Any) -> bool:
        """Return whether there are many penalties, and the optimizer of a trainer, if there is one, has stepped."""
        waits = trainer is not None and trainer.lightning_module.automatic_optimization
        return self.penalties >= _MANY and not (waits and trainer.global_step == self._first_step)

    def check_priced(self, penalty: Tensor, trainer: Any, of: str) -> None:
        """Refuse a second penalty for a batch of the trainer before the gradient of the first was taken."""
        if trainer is None or not penalty.requires_grad:
            return
        batch = trainer.current_epoch, trainer.fit_loop.batch_idx
        if self._unpriced_batch == batch:
            raise RuntimeError(
                f"{of} was called twice for the same price in one training_step, which would average the rates of both "
                "calls: add the rates and call it once, or give each its own price by name "
                '(beta={"first": ..., "second": ...}, rate_penalty(rate, name="first"))'
            )
        self._unpriced_batch = batch
        penalty.register_hook(self._note_gradient)

    def _note_gradient(self, gradient: Tensor) -> None:
        self._unpriced_batch = None


def means(totals: list[float]) -> tuple[float, float | None]:
    """Return mean rate and mean distortion of ``StepWindow.totals``, perhaps summed over processes."""
    _, rate, distortion, rates, distortions = totals
    return rate / rates if rates else math.nan, distortion / distortions if distortions else None


def sources(rate: Tensor) -> dict[int, Tensor]:
    """Return the parameters that a tensor depends on, the leaves of its graph, by their ``id``."""
    waiting, seen = [rate.grad_fn], set()
    found: dict[int, Tensor] = {}
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            weight = getattr(node, "variable", None)  # https://docs.pytorch.org/docs/stable/notes/autograd.html
            if weight is not None:
                found[id(weight)] = weight
            waiting += [before for before, _ in node.next_functions]
    return found


def has_trained(optimizer: Optimizer, module: nn.Module, sources: Mapping[int, Tensor]) -> bool | None:
    """Return whether an optimizer's step trained a rate, or was one without a gradient; None if it holds no weight.

    The weights are the sources of the rate; if the module has none of these, all of the module: where the rate has no
    graph, or one of copies, as of sharded weights.
    """
    trained = _has_trained_any(optimizer, sources)
    if trained is not None:
        return trained
    own = {id(weight): weight for weight in module.parameters()}
    return None if any(number in own for number in sources) else _has_trained_any(optimizer, own)


def may_train(optimizer: Optimizer, module: nn.Module, root: Any) -> bool:
    """Return whether another process may have paid for what an optimizer trained; the same on all processes.

    It may if the optimizer holds a parameter of the module; for a module without parameters, if it is the trainer's.
    """
    own = {id(weight): weight for weight in module.parameters()}
    if not own:
        return root is None or optimizer in root.trainer.optimizers
    return _has_trained_any(optimizer, own) is not None


def _has_trained_any(optimizer: Optimizer, weights: Mapping[int, Tensor]) -> bool | None:
    trained = None
    for group in optimizer.param_groups:
        for weight in group["params"]:
            if id(weight) in weights:
                if weight.grad is not None:
                    return True
                trained = False
    return trained


def is_in_backward() -> bool:
    """Return whether gradients are computed now: then a forward pass is the recomputation of a checkpoint."""
    return not torch.compiler.is_compiling() and _TRACKER.is_bw


def _sum(values: Tensor) -> Tensor:
    return values.detach().sum(dtype=torch.float32 if values.device.type == "mps" else torch.float64)
