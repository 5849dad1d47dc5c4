"""Prices that follow an error: of the rate (`DualBeta`) or of the distortion (`GECO`)."""

import math
from typing import Literal

from lit_bottleneck.beta.base import BetaController
from lit_bottleneck.checks import is_number, not_negative, one_of


class _FeedbackBeta(BetaController):
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
        self.gain = not_negative("gain", gain)
        self.space: Literal["log", "linear"] = one_of("space", space, ("log", "linear"))
        self.kp = not_negative("kp", kp)
        self.ema = not_negative("ema", ema)
        if self.ema >= 1:
            raise ValueError(f"ema must be in [0, 1): 0 is no smoothing; got {ema}")
        self.beta_init = not_negative("beta_init", beta_init)
        two = isinstance(bounds, (list, tuple)) and len(bounds) == 2 and all(map(is_number, bounds))
        low, high = map(float, bounds) if two else (math.nan, math.nan)
        if not 0 <= low < high:
            raise ValueError(f"bounds must be two numbers with 0 <= lower < upper; got {bounds}")
        if space == "log" and (self.beta_init == 0 or low == 0):
            raise ValueError(
                "in log space a price of 0 stays 0 for ever: beta_init and the lower of bounds must be positive; "
                f"got beta_init={beta_init} and bounds={bounds}. Use space='linear' and bounds=(0, ...) to start at 0."
            )
        if not low <= self.beta_init <= high:
            raise ValueError(f"beta_init must lie within bounds={bounds}; got {beta_init}")
        self.bounds = (low, high)
        if not is_number(max_error) or not max_error > 0:
            raise ValueError(f"max_error must be positive (inf is no clipping); got {max_error}")
        self.max_error = float(max_error)
        self.integral = self._to_space(self.beta_init)
        self.smoothed_error: float | None = None

    @property
    def state_kind(self) -> str:
        """The class and the space, since the same number is another price in another space."""
        return f"{type(self).__name__} in {self.space} space"

    @property
    def beta(self) -> float:
        """The current price of a nat."""
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
    """Hold the rate at a capacity by dual ascent on the price (arXiv 1810.00821; with ``kp`` PI, arXiv 2004.05988).

    In log space, the default, ``log beta <- log beta + gain * e`` with the relative error ``e = (R - C) / C``, clipped
    and smoothed; the gain is then free of the task's scale. In linear space ``beta <- max(0, beta + gain * e)`` with
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
        self.capacity = not_negative("capacity", capacity)
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
        if not is_number(target_distortion) or not math.isfinite(target_distortion):
            raise ValueError(f"target_distortion must be finite; got {target_distortion}")
        self.target_distortion = float(target_distortion)

    def advance(self, mean_rate: float, mean_distortion: float | None) -> None:
        """Lower the price where the distortion is above its target, raise it where it is below."""
        if mean_distortion is None:
            raise ValueError("GECO is driven by the distortion: call rate_penalty(rate, distortion=...)")
        self._follow(self.target_distortion - mean_distortion)
