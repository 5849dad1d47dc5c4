"""Prices that depend on the step alone."""

from typing import Literal

from torch import Tensor

from lit_bottleneck.beta.base import BetaController, mean_over_examples
from lit_bottleneck.checks import not_negative, one_of, whole_number
from lit_bottleneck.training.distributed import mean_over_processes


class ScheduledBeta(BetaController):
    """A linear warm-up, once or in cycles (arXiv 1903.10145).

    Within a cycle beta rises from 0 to its full value in ``warmup_steps`` and stays there until the cycle ends; after
    the last cycle it stays for good.

    Args:
        beta: the full price of a nat, at least 0.
        warmup_steps: optimizer steps from 0 to the full price.
        cycles: how often to begin again from 0.
        period: optimizer steps of one cycle. Default: ``warmup_steps`` for one cycle, else twice as many (the paper's
            ramp share of one half).

    >>> schedule = ScheduledBeta(1.0, warmup_steps=4)
    >>> prices = []
    >>> for _ in range(6):
    ...     prices.append(schedule.beta)
    ...     schedule.update(mean_rate=1.0)
    >>> prices
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """

    state_names = ("step",)

    def __init__(self, beta: float, warmup_steps: int, cycles: int = 1, period: int | None = None) -> None:
        super().__init__()
        self._beta = not_negative("beta", beta)
        self.warmup_steps = whole_number("warmup_steps", warmup_steps, at_least=0)
        self.cycles = whole_number("cycles", cycles, at_least=1)
        least = max(self.warmup_steps, 1)
        self.period = None if period is None else whole_number("period", period, at_least=least)
        self.step = 0

    @property
    def beta(self) -> float:
        period = self.period or self.warmup_steps * (1 if self.cycles == 1 else 2)
        if self.step >= self.cycles * period:
            return self._beta
        return self._beta * _ramp(self.step % period, self.warmup_steps)

    def advance(self, mean_rate: float, mean_distortion: float | None) -> None:
        """Count the step."""
        self.step += 1


class CapacityBeta(BetaController):
    """Pay only for nats away from a capacity: ``weight * max(R - C, 0)``, or ``weight * |R - C|`` (arXiv 1804.03599).

    With ``reduction="batch"`` R is the mean rate of the batches of all processes together; of accumulated batches each
    is held to the capacity by itself; with ``"sample"`` each example has the capacity for
    itself.

    Args:
        weight: price of a nat beyond the capacity, at least 0.
        capacity: nats per example that cost nothing, at least 0.
        kind: ``"hinge"``, or ``"abs"``, which also pulls a lower rate up to the capacity.
        reduction: ``"batch"`` or ``"sample"``.
        warmup_steps: optimizer steps in which the capacity rises from 0 to its value.

    >>> import torch
    >>> CapacityBeta(2.0, capacity=1.0)(torch.tensor([0.0, 4.0])).item()
    2.0
    >>> CapacityBeta(2.0, capacity=1.0, reduction="sample")(torch.tensor([0.0, 4.0])).item()
    3.0
    """

    state_names = ("step",)

    def __init__(
        self,
        weight: float,
        capacity: float,
        kind: Literal["hinge", "abs"] = "hinge",
        reduction: Literal["batch", "sample"] = "batch",
        warmup_steps: int = 0,
    ) -> None:
        super().__init__()
        self.weight = not_negative("weight", weight)
        self.capacity = not_negative("capacity", capacity)
        self.kind: Literal["hinge", "abs"] = one_of("kind", kind, ("hinge", "abs"))
        self.reduction: Literal["batch", "sample"] = one_of("reduction", reduction, ("batch", "sample"))
        self.warmup_steps = whole_number("warmup_steps", warmup_steps, at_least=0)
        self.step = 0

    @property
    def beta(self) -> float:
        """The price of a nat beyond the capacity."""
        return self.weight

    @property
    def current_capacity(self) -> float:
        """Nats per example that cost nothing now."""
        return self.capacity * _ramp(self.step, self.warmup_steps)

    def forward(self, rate: Tensor) -> Tensor:
        """Price the rates ``(B,)`` of a batch, in nats: a scalar."""
        excess = (rate if self.reduction == "sample" else mean_over_examples(rate)) - self.current_capacity
        # Which side of the capacity a batch is on is asked of the rows of all processes together: then the average of
        # their penalties, and of the gradients, is that of one process with all rows.
        asked = self.training and self.reduction == "batch"
        side = (mean_over_processes(rate) - self.current_capacity if asked else excess).detach().sign()
        return self.weight * mean_over_examples(excess * (side.clamp(min=0) if self.kind == "hinge" else side))

    def advance(self, mean_rate: float, mean_distortion: float | None) -> None:
        """Count the step."""
        self.step += 1


def _ramp(step: int, steps: int) -> float:
    return min(1.0, step / steps) if steps else 1.0
