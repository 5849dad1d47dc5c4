"""What a nat costs, and how the price moves.

A `BetaController` turns the rates of a batch into the penalty that is added to the loss (`forward`), and moves its price
once per optimizer step (`update`), from the mean rate over all examples of that step. The state that moves is Python
floats, kept in the checkpoint as extra state: no precision setting rounds it, nothing averages it.
"""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from numbers import Real
from typing import Any, ClassVar, Literal, Self, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["GECO", "BetaController", "CapacityBeta", "ConstantBeta", "DualBeta", "ScheduledBeta", "controller_from"]


class BetaController(nn.Module, ABC):
    """Base of all prices. A subclass gives `beta` and `advance`, and names its state in `state_names`.

    Attributes:
        constant: whether the price never moves: then nothing is reduced over processes for it.
        arguments: the constructor's arguments by name, which a checkpoint keeps.
        skipped_updates: updates that were refused because the rate (or the distortion) was not finite.
    """

    constant: ClassVar[bool] = False
    arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        controller = super().__new__(cls)
        bound = inspect.signature(cls).bind_partial(*args, **kwargs)
        bound.apply_defaults()
        controller.arguments = dict(bound.arguments)
        return controller

    def __init__(self) -> None:
        super().__init__()
        self.skipped_updates = 0

    @property
    @abstractmethod
    def beta(self) -> float:
        """The current price of a nat."""

    @abstractmethod
    def advance(self, mean_rate: float, mean_distortion: float | None) -> None:
        """Move the price by one optimizer step; the arguments are finite."""

    def forward(self, rate: Tensor) -> Tensor:
        """Price the rates of a batch.

        Args:
            rate: ``(B,)``, nats per example.

        Returns:
            The penalty, a scalar: ``beta`` times the mean rate.
        """
        return self.beta * mean_over_examples(rate)

    def update(self, mean_rate: float, mean_distortion: float | None = None) -> None:
        """Move the price, once per optimizer step. Values that are not finite do not move it, and are counted.

        Args:
            mean_rate: nats, the mean over all examples of the step, on all processes.
            mean_distortion: nats, likewise, for a controller that is driven by it.
        """
        if math.isfinite(mean_rate) and (mean_distortion is None or math.isfinite(mean_distortion)):
            self.advance(mean_rate, mean_distortion)
        else:
            self.skipped_updates += 1

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())


class _MovingBeta(BetaController):
    """A price with a state, which is a handful of numbers in the checkpoint."""

    state_names: ClassVar[tuple[str, ...]]

    def get_extra_state(self) -> dict[str, float | int | None]:
        return {name: getattr(self, name) for name in (*self.state_names, "skipped_updates")}

    def set_extra_state(self, state: Mapping[str, float | int | None]) -> None:
        expected = {*self.state_names, "skipped_updates"}
        if set(state) != expected:
            raise ValueError(
                f"the checkpoint holds the state {sorted(state)} of another controller: {type(self).__name__} has "
                f"{sorted(expected)}. Build the model with the controller it was trained with."
            )
        for name, value in state.items():
            setattr(self, name, value)


class ConstantBeta(BetaController):
    """The same price for ever. It has no state, so that a checkpoint never overrides a price that is given.

    Args:
        beta: price of a nat, at least 0. For a classifier `beta >= 1` makes the collapsed code optimal.

    >>> ConstantBeta(0.5)(torch.tensor([1.0, 3.0])).item()
    1.0
    """

    constant = True

    def __init__(self, beta: float) -> None:
        super().__init__()
        self._beta = _not_negative("beta", beta)

    @property
    def beta(self) -> float:
        return self._beta

    def advance(self, mean_rate: float, mean_distortion: float | None) -> None:
        """A constant does not move."""


class ScheduledBeta(_MovingBeta):
    """A linear warm-up, once or in cycles (arXiv 1903.10145).

    Within a cycle beta rises from 0 to its full value in ``warmup_steps`` and stays there until the cycle ends; after the
    last cycle it stays for good.

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
        self._beta = _not_negative("beta", beta)
        self.warmup_steps = _count("warmup_steps", warmup_steps, at_least=0)
        self.cycles = _count("cycles", cycles, at_least=1)
        self.period = period if period is None else _count("period", period, at_least=max(warmup_steps, 1))
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


class CapacityBeta(_MovingBeta):
    """Pay only for nats away from a capacity: ``weight * max(R - C, 0)``, or ``weight * |R - C|`` (arXiv 1804.03599).

    With ``reduction="batch"`` R is the mean rate of the batch that this process sees, so that with several processes or
    accumulation each of their batches is held to the capacity; with ``"sample"`` each example has the capacity for itself.

    Args:
        weight: price of a nat beyond the capacity, at least 0.
        capacity: nats per example that cost nothing, at least 0.
        kind: ``"hinge"``, or ``"abs"``, which also pulls a lower rate up to the capacity.
        reduction: ``"batch"`` or ``"sample"``.
        warmup_steps: optimizer steps in which the capacity rises from 0 to its value.

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
        self.weight = _not_negative("weight", weight)
        self.capacity = _not_negative("capacity", capacity)
        self.kind: Literal["hinge", "abs"] = _choice("kind", kind, ("hinge", "abs"))
        self.reduction: Literal["batch", "sample"] = _choice("reduction", reduction, ("batch", "sample"))
        self.warmup_steps = _count("warmup_steps", warmup_steps, at_least=0)
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
        return self.weight * mean_over_examples(excess.clamp(min=0) if self.kind == "hinge" else excess.abs())

    def advance(self, mean_rate: float, mean_distortion: float | None) -> None:
        """Count the step."""
        self.step += 1


class _FeedbackBeta(_MovingBeta):
    """A price that follows an error: the integral of it and, with ``kp``, the error itself.

    The error is clipped to ``max_error`` on both sides and smoothed by an EMA. The integral is beta itself
    (``space="linear"``) or its logarithm (``"log"``); it stays within ``bounds``, and stands still while the price as a
    whole is held at a bound and the error pushes further out (no wind-up).
    """

    state_names = ("integral", "smoothed_error")

    def __init__(
        self,
        gain: float,
        space: Literal["log", "linear"],
        kp: float,
        ema: float,
        beta_init: float,
        bounds: tuple[float, float],
        max_error: float,
    ) -> None:
        super().__init__()
        self.gain = _not_negative("gain", gain)
        self.space: Literal["log", "linear"] = _choice("space", space, ("log", "linear"))
        self.kp = _not_negative("kp", kp)
        self.ema = _not_negative("ema", ema)
        if self.ema >= 1:
            raise ValueError(f"ema must be in [0, 1): 0 is no smoothing; got {ema}")
        self.beta_init = _not_negative("beta_init", beta_init)
        low, high = (float(bound) for bound in bounds)
        if not 0 <= low < high:
            raise ValueError(f"bounds must be two numbers with 0 <= lower < upper; got {bounds}")
        if space == "log" and (self.beta_init == 0 or low == 0):
            raise ValueError(
                "in log space a price of 0 stays 0 for ever: beta_init and the lower of bounds must be positive; "
                f"got beta_init={beta_init} and bounds={bounds}. Use space='linear' to start at 0."
            )
        if not low <= self.beta_init <= high:
            raise ValueError(f"beta_init must lie within bounds={bounds}; got {beta_init}")
        self.bounds = (low, high)
        self.max_error = float(max_error)
        if not self.max_error > 0:
            raise ValueError(f"max_error must be positive (inf is no clipping); got {max_error}")
        self.integral = self._to_space(self.beta_init)
        self.smoothed_error: float | None = None

    @property
    def beta(self) -> float:
        low, high = self.bounds
        proportional = self.kp * (self.smoothed_error or 0.0)
        price = self.integral + proportional
        if self.space == "log":
            price = math.exp(min(price, 700.0))
        return min(max(price, low), high)

    def _to_space(self, beta: float) -> float:
        return math.log(beta) if self.space == "log" else beta

    def _follow(self, error: float) -> None:
        """Move the price up for a positive error and down for a negative one."""
        error = min(max(error, -self.max_error), self.max_error)
        if self.smoothed_error is not None:
            error = self.ema * self.smoothed_error + (1 - self.ema) * error
        self.smoothed_error = error
        low, high = (self._to_space(bound) for bound in self.bounds)
        integral = min(max(self.integral + self.gain * error, low), high)
        price = integral + self.kp * error
        held_at_a_bound = (price > high and error > 0) or (price < low and error < 0)
        if not held_at_a_bound:
            self.integral = integral


class DualBeta(_FeedbackBeta):
    """Hold the rate at a capacity by dual ascent on the price (VDB, arXiv 1810.00821; PI: ControlVAE, arXiv 2004.05988).

    In log space, the default, ``log beta <- log beta + gain * e`` with the relative error ``e = (R - C) / C``, clipped and
    smoothed; the gain is then free of the task's scale. In linear space ``beta <- max(0, beta + gain * e)`` with
    ``e = R - C`` in nats.

    Args:
        capacity: nats per example, summed over the code's dimensions; positive.
        gain: step of the dual ascent.
        space: ``"log"`` or ``"linear"``.
        kp: weight of the error itself, beside its integral.
        ema: decay of the error's moving average; 0 is none. Smoothing costs stability.
        beta_init: price of a nat at the start.
        bounds: lowest and highest price.
        max_error: bound of the error, relative in log space and in nats in linear space.

    Raises:
        ValueError: for values out of these ranges; in log space also for ``beta_init = 0``.

    >>> controller = DualBeta(capacity=2.0)
    >>> controller.update(mean_rate=100.0)  # far too many nats: the price rises by exp(.03)
    >>> round(controller.beta / 1e-3, 6)
    1.030455
    """

    def __init__(
        self,
        capacity: float,
        gain: float = 0.03,
        space: Literal["log", "linear"] = "log",
        kp: float = 0.0,
        ema: float = 0.9,
        beta_init: float = 1e-3,
        bounds: tuple[float, float] = (1e-8, 1e4),
        max_error: float = 1.0,
    ) -> None:
        super().__init__(gain, space, kp, ema, beta_init, bounds, max_error)
        self.capacity = _not_negative("capacity", capacity)
        if self.capacity == 0:
            raise ValueError("capacity must be positive; got 0. To forbid information altogether, remove the network.")

    @classmethod
    def paper(cls, capacity: float, gain: float = 1e-5, beta_init: float = 0.1) -> "DualBeta":
        """The update of the VDB paper: ``beta <- max(0, beta + gain * (R - C))``, no smoothing, nothing bounded.

        Args:
            capacity: nats per example.
            gain: the paper's alpha.
            beta_init: the authors' code starts at .1.
        """
        return cls(
            capacity,
            gain=gain,
            space="linear",
            ema=0.0,
            beta_init=beta_init,
            bounds=(0.0, math.inf),
            max_error=math.inf,
        )

    def advance(self, mean_rate: float, mean_distortion: float | None) -> None:
        """Raise the price where the rate is above the capacity, lower it where it is below."""
        error = mean_rate - self.capacity
        self._follow(error / self.capacity if self.space == "log" else error)


class GECO(_FeedbackBeta):
    """Hold the distortion at a target and pay for the rate only what is left (arXiv 1810.00597).

    The paper multiplies the distortion by ``lambda <- lambda exp(gain * e)``, where ``e`` is the smoothed excess of the
    distortion over its target; here the rate is multiplied by ``beta = 1 / lambda`` instead. Give the distortion to
    `rate_penalty`.

    Args:
        target_distortion: nats per example. (A density's may be negative.)
        gain: step in ``log beta``.
        ema: decay of the error's moving average.
        beta_init: price of a nat at the start, positive.
        bounds: lowest and highest price.
        max_error: bound of the error, in nats.

    >>> controller = GECO(target_distortion=80.0)
    >>> controller.update(mean_rate=5.0, mean_distortion=200.0)  # reconstructions too poor: nats get cheaper
    >>> controller.beta < 1.0
    True
    """

    def __init__(
        self,
        target_distortion: float,
        gain: float = 0.03,
        ema: float = 0.9,
        beta_init: float = 1.0,
        bounds: tuple[float, float] = (1e-8, 1e4),
        max_error: float = 1.0,
    ) -> None:
        super().__init__(gain, "log", 0.0, ema, beta_init, bounds, max_error)
        if not math.isfinite(target_distortion):
            raise ValueError(f"target_distortion must be finite; got {target_distortion}")
        self.target_distortion = float(target_distortion)

    def advance(self, mean_rate: float, mean_distortion: float | None) -> None:
        """Lower the price where the distortion is above its target, raise it where it is below."""
        if mean_distortion is None:
            raise ValueError("GECO is driven by the distortion: call rate_penalty(rate, distortion=...)")
        self._follow(self.target_distortion - mean_distortion)


def controller_from(beta: float | BetaController | Mapping[str, Any]) -> BetaController:
    """Make a controller of what a model takes as ``beta``.

    Args:
        beta: a number (then the price is constant); a controller, which is returned as it is; or the description of one,
            as checkpoints keep it: ``{"class_path": "lit_bottleneck.beta.DualBeta", "init_args": {"capacity": 8.0}}``.

    Raises:
        ValueError: for a description of a class that is not a `BetaController` imported by now.
        TypeError: for anything else.
    """
    if isinstance(beta, BetaController):
        return beta
    if isinstance(beta, Mapping):
        known = {_class_path(kind): kind for kind in _subclasses(BetaController)}
        path = beta.get("class_path")
        if path not in known:  # a checkpoint may name a class, but never have a module imported
            raise ValueError(f"beta has the class_path {path!r}, which is not a BetaController that has been imported")
        return known[path](**beta.get("init_args", {}))
    if isinstance(beta, bool) or not isinstance(beta, Real):
        raise TypeError(f"beta must be a number or a BetaController; got {beta!r}")
    return ConstantBeta(beta)


def description_of(controller: BetaController) -> dict[str, Any]:
    """What `controller_from` rebuilds the controller from, plain enough for a checkpoint."""
    return {"class_path": _class_path(type(controller)), "init_args": controller.arguments}


def mean_over_examples(values: Tensor) -> Tensor:
    """Mean of ``(B,)`` values (or of one); 0, not NaN, for an empty batch."""
    return values.sum() / max(values.numel(), 1)


def _class_path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _subclasses(kind: type[BetaController]) -> list[type[BetaController]]:
    return [found for child in kind.__subclasses__() for found in (child, *_subclasses(child))]


def _ramp(step: int, steps: int) -> float:
    return min(1.0, step / steps) if steps else 1.0


def _not_negative(name: str, value: float) -> float:
    if isinstance(value, torch.Tensor) or not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a finite number that is not negative; got {value}")
    return float(value)


def _count(name: str, value: int, at_least: int) -> int:
    if int(value) != value or value < at_least:
        raise ValueError(f"{name} must be a whole number, at least {at_least}; got {value}")
    return int(value)


_Choice = TypeVar("_Choice", bound=str)


def _choice(name: str, value: _Choice, known: tuple[_Choice, ...]) -> _Choice:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}; got {value!r}")
    return value
