"""The rates and distortions of one price between two optimizer steps."""

import math
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lit_bottleneck.bottleneck.step import sources
from lit_bottleneck.training.precision import loss_scale

_MANY = 100  # penalties without an optimizer step
_MOST = 10_000  # that are kept before they are added up


class StepWindow:
    """The rates and distortions of one price since the last optimizer step, without a graph.

    Left out of the means are penalties whose gradient was not taken while that of others was (a batch that the loop
    skipped), and those whose rate or distortion is not finite (a gradient scaler skips their step). A copy, or an
    unpickled one, is empty.

    Attributes:
        penalties: how many penalties were computed.
        sources: the parameters that the rates depend on, by their ``id``; those of the last step until the first rate.
        has_warned: whether somebody said that nothing ends it.
    """

    def __init__(self, before: "StepWindow | None" = None) -> None:
        self.penalties = 0
        self.sources: dict[int, Tensor] = {} if before is None else before.sources
        self.has_warned = False
        self._paid: list[_Paid] = []
        self._totals = [0.0] * 4
        self._first_step = 0
        self._loss_scale = 0.0
        self._optimizers: list[Optimizer] = []

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

    def add(self, rate: Tensor, distortion: Tensor | None, penalty: Tensor, trainer: Any) -> None:
        """Add the rates ``(B,)`` of a penalty, and the distortions ``(B,)`` or their mean."""
        if trainer is not None:
            self._loss_scale, self._optimizers = loss_scale(trainer), list(trainer.optimizers)
        if not self.penalties:
            self._first_step = 0 if trainer is None else trainer.global_step
            self.sources = {}
        self.penalties += 1
        self.sources |= sources(rate)
        paid = _Paid(rate, distortion, penalty, trainer)
        if self._paid and (len(self._paid) == _MOST or self._paid[-1].sums[0].device != paid.sums[0].device):
            self._add_up()
        self._paid.append(paid)

    @property
    def has_gradient(self) -> bool:
        """Whether the gradient of a penalty was taken, or one has no graph."""
        return any(one.has_gradient is not False for one in self._paid)

    def totals(self) -> list[float]:
        """Return the number of penalties, the sums of rates and distortions, and how many of each there were."""
        if self._paid:
            self._add_up()
        return [self.penalties, *self._totals]

    def should_have_ended(self, trainer: Any) -> bool:
        """Return whether there are many penalties, and the optimizer of a trainer, if there is one, has stepped.

        It is so once: not if somebody was warned of it.
        """
        if self.penalties < _MANY or self.has_warned:
            return False
        waits = trainer is not None and trainer.lightning_module.automatic_optimization
        return not (waits and trainer.global_step == self._first_step)

    def check_second_call(self, trainer: Any, who: str) -> None:
        """Refuse a second penalty for a batch of the trainer before the gradient of the first was taken."""
        first = self._paid[-1] if self._paid else None
        if trainer is None or first is None or first.batch != _batch_of(trainer):
            return
        if first.has_gradient is False and first.is_in_a_graph:
            raise RuntimeError(
                f"{who} was called twice for the same price in one training_step, which would average the rates of "
                "both calls: add the rates and call it once, or give each its own price by name "
                '(beta={"first": ..., "second": ...}, rate_penalty(rate, name="first"))'
            )

    def _add_up(self) -> None:
        """Add the penalties to the totals; this waits for an accelerator once."""
        paid = [one for one in self._paid if one.has_gradient is not False] or self._paid
        values = iter(torch.stack([value for one in paid for value in one.sums]).tolist())
        for one in paid:
            rate, distortion = next(values), next(values) * one.weight if len(one.sums) > 1 else 0.0
            if math.isfinite(rate) and math.isfinite(distortion):
                added = (rate, distortion, *one.counts)
                self._totals = [total + value for total, value in zip(self._totals, added, strict=True)]
        self._paid = []


class _Paid:
    """A penalty: sums of its rates and distortions, and whether its gradient was taken (None without a graph)."""

    def __init__(self, rate: Tensor, distortion: Tensor | None, penalty: Tensor, trainer: Any) -> None:
        self.sums, self.counts, self.weight = [_sum(rate)], (rate.numel(), 0), 1
        if distortion is not None:
            self.sums.append(_sum(distortion).to(self.sums[0].device))
            self.weight = 1 if distortion.dim() else rate.numel()  # of a mean
            self.counts = rate.numel(), distortion.numel() * self.weight
        self.batch = _batch_of(trainer)
        self.has_gradient: bool | None = None
        if penalty.requires_grad:
            self.has_gradient = False
            note = _Note(self)
            self._note = weakref.ref(note)
            if penalty.grad_fn is None:  # a leaf
                penalty.register_hook(note)
            else:
                penalty.grad_fn.register_prehook(note)

    @property
    def is_in_a_graph(self) -> bool:
        """Whether the graph of the penalty is alive: it holds the hook."""
        return self._note() is not None


class _Note:
    """A hook that notes that the gradient of a penalty was taken."""

    def __init__(self, paid: _Paid) -> None:
        self._paid = paid

    def __call__(self, gradient: Any) -> None:
        self._paid.has_gradient = True


def means(totals: list[float]) -> tuple[float, float | None]:
    """Return mean rate and mean distortion of ``StepWindow.totals``, perhaps summed over processes."""
    _, rate, distortion, rates, distortions = totals
    return rate / rates if rates else math.nan, distortion / distortions if distortions else None


def _batch_of(trainer: Any) -> Any:
    return None if trainer is None else (trainer.current_epoch, trainer.fit_loop.batch_idx)


def _sum(values: Tensor) -> Tensor:
    dtype = torch.float32 if values.device.type == "mps" else torch.float64
    return values.detach().sum(dtype=dtype) if values.dim() else values.detach().to(dtype)
