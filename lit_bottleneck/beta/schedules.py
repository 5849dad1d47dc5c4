"""Controllers of beta that depend on the optimizer step alone."""

from typing import Literal

from torch import Tensor

from lit_bottleneck.beta.base import BetaController, mean_over_examples
from lit_bottleneck.checks import not_negative, one_of, whole_number
from lit_bottleneck.training.distributed import mean_over_processes


class _SteppedBeta(BetaController):
    """Controller that counts optimizer steps."""

    state_names = ("step",)

    def __init__(self, warmup_steps: int) -> None:
        super().__init__()
        self.warmup_steps = whole_number("warmup_steps", warmup_steps, at_least=0)
        self.step = 0

    def advance(self, mean_rate: float, mean_distortion: float | None) -> None:
        self.step += 1

    def _ramp(self, step: int) -> float:
        """Return the share of the warm-up that is over after ``step`` steps, in [0, 1]."""
        return min(1.0, step / self.warmup_steps) if self.warmup_steps else 1.0


class ScheduledBeta(_SteppedBeta):
    """Linear warm-up of beta, once or in cycles (arXiv 1903.10145).

    In each cycle beta rises from 0 to its full value in ``warmup_steps`` and stays there until the cycle ends; after
    the last cycle it stays at its full value.

    Args:
        beta: the full price of a nat, at least 0.
        warmup_steps: optimizer steps from 0 to the full beta.
        cycles: number of cycles.
        period: optimizer steps of one cycle. Default: ``warmup_steps`` for one cycle, else twice as many (the paper's
            ramp share of one half).

    Raises:
        ConfigurationError: for values out of these ranges, or a ``period`` below ``warmup_steps``.

    >>> schedule = ScheduledBeta(1.0, warmup_steps=4)
    >>> prices = []
    >>> for _ in range(6):
    ...     prices.append(schedule.beta)
    ...     schedule.update(mean_rate=1.0)
    >>> prices
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """

    def __init__(self, beta: float, warmup_steps: int, cycles: int = 1, period: int | None = None) -> None:
        super().__init__(warmup_steps)
        self._beta = not_negative("beta", beta)
        self.cycles = whole_number("cycles", cycles, at_least=1)
        least = max(self.warmup_steps, 1)
        self.period = None if period is None else whole_number("period", period, at_least=least)

    @property
    def beta(self) -> float:
        period = self.period or self.warmup_steps * (1 if self.cycles == 1 else 2)
        if self.step >= self.cycles * period:
            return self._beta
        return self._beta * self._ramp(self.step % period)


class CapacityBeta(_SteppedBeta):
    """Penalise the distance from a capacity: ``weight * max(R - C, 0)``, or ``weight * |R - C|`` (arXiv 1804.03599).

    With ``reduction="batch"`` R is the mean rate of the batches of all processes together (of accumulated batches, each
    by itself); with ``"sample"`` it is the rate of each example.

    Args:
        weight: price of a nat beyond the capacity, at least 0.
        capacity: free nats per example, at least 0.
        kind: ``"hinge"``, or ``"abs"``, which also pulls a lower rate up to the capacity.
        reduction: ``"batch"`` or ``"sample"``.
        warmup_steps: optimizer steps in which the capacity rises from 0 to its value.

    Raises:
        ConfigurationError: for values out of these ranges.

    >>> import torch
    >>> CapacityBeta(2.0, capacity=1.0)(torch.tensor([0.0, 4.0])).item()
    2.0
    >>> CapacityBeta(2.0, capacity=1.0, reduction="sample")(torch.tensor([0.0, 4.0])).item()
    3.0
    """

    def __init__(
        self,
        weight: float,
        capacity: float,
        kind: Literal["hinge", "abs"] = "hinge",
        reduction: Literal["batch", "sample"] = "batch",
        warmup_steps: int = 0,
    ) -> None:
        super().__init__(warmup_steps)
        self.weight = not_negative("weight", weight)
        self.capacity = not_negative("capacity", capacity)
        self.kind: Literal["hinge", "abs"] = one_of("kind", kind, ("hinge", "abs"))
        self.reduction: Literal["batch", "sample"] = one_of("reduction", reduction, ("batch", "sample"))

    @property
    def beta(self) -> float:
        """The price of a nat beyond the capacity."""
        return self.weight

    @property
    def current_capacity(self) -> float:
        """The current number of free nats per example."""
        return self.capacity * self._ramp(self.step)

    def forward(self, rate: Tensor) -> Tensor:
        """Return the penalty, a scalar, for the rates ``(B,)`` of a batch, in nats."""
        excess = (rate if self.reduction == "sample" else mean_over_examples(rate)) - self.current_capacity
        # The side of the capacity follows from the rows of all processes together: then the average over processes of
        # penalties and gradients is that of one process with all rows.
        together = self.training and self.reduction == "batch"
        side = (mean_over_processes(rate) - self.current_capacity if together else excess).detach().sign()
        return self.weight * mean_over_examples(excess * (side.clamp(min=0) if self.kind == "hinge" else side))
