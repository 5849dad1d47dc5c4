"""Feedback controllers of beta, driven by the rate (``DualBeta``) or the distortion (``GECO``)."""

import math
from typing import Literal

from lit_bottleneck.beta.base import BetaController
from lit_bottleneck.checks import ConfigurationError, decay, is_number, not_negative, one_of, positive

Space = Literal["log", "linear"]
Bounds = tuple[float, float]


class _FeedbackBeta(BetaController):
    """Controller that integrates an error and, with ``kp``, adds the error itself.

    The error is clipped to ``[-max_error, max_error]`` and smoothed by an EMA. Its integral is beta itself
    (``space="linear"``) or its logarithm (``"log"``). The integral stays within ``bounds``, and does not move while
    beta is at a bound and the error pushes further out (no wind-up).
    """

    state_names = ("integral", "smoothed_error")

    def __init__(
        self, gain: float, space: Space, kp: float, ema: float, beta_init: float, bounds: Bounds, max_error: float
    ) -> None:
        super().__init__()
        self.gain = not_negative("gain", gain)
        self.space: Space = one_of("space", space, ("log", "linear"))
        self.kp = not_negative("kp", kp)
        self.ema = decay("ema", ema)
        self.beta_init = not_negative("beta_init", beta_init)
        two = isinstance(bounds, (list, tuple)) and len(bounds) == 2 and all(map(is_number, bounds))
        low, high = map(float, bounds) if two else (math.nan, math.nan)
        if not 0 <= low < high:
            raise ConfigurationError(f"bounds must be two numbers with 0 <= lower < upper; got {bounds!r}")
        if space == "log" and (self.beta_init == 0 or low == 0):
            got = f"beta_init={beta_init} and bounds={bounds}: space='linear' can start at 0"
            raise ConfigurationError(f"beta_init and the lower of bounds must be above 0 in log space; got {got}")
        if not low <= self.beta_init <= high:
            raise ConfigurationError(f"beta_init must be within bounds={bounds}; got {beta_init}")
        self.bounds = (low, high)
        if not is_number(max_error) or not max_error > 0:
            raise ConfigurationError(f"max_error must be a number above 0 (inf for no clipping); got {max_error!r}")
        self.max_error = float(max_error)
        self.integral = self._to_space(self.beta_init)
        self.smoothed_error: float | None = None

    @property
    def state_kind(self) -> str:
        """The class and the space, since the same number means another beta in another space."""
        return f"{type(self).__name__} in {self.space} space"

    @property
    def beta(self) -> float:
        """The current price of a nat."""
        low, high = self.bounds
        price = self.integral + self.kp * (self.smoothed_error or 0.0)
        if self.space == "log":
            price = math.exp(min(price, 700.0))
        return min(max(price, low), high)

    def _to_space(self, beta: float) -> float:
        return math.log(beta) if self.space == "log" else beta

    def _follow(self, error: float) -> None:
        """Raise beta for a positive error, lower it for a negative one."""
        error = min(max(error, -self.max_error), self.max_error)
        if self.smoothed_error is not None:
            error = self.ema * self.smoothed_error + (1 - self.ema) * error
        self.smoothed_error = error
        low, high = (self._to_space(bound) for bound in self.bounds)
        integral = min(max(self.integral + self.gain * error, low), high)
        price = integral + self.kp * error
        at_bound = (price > high and error > 0) or (price < low and error < 0)
        if not at_bound:
            self.integral = integral


class DualBeta(_FeedbackBeta):
    """Hold the rate at a capacity by dual ascent on beta (arXiv 1810.00821; a PI controller with ``kp``, 2004.05988).

    In log space, the default, ``log beta <- log beta + gain * e`` with the relative error ``e = (R - C) / C``, clipped
    and smoothed; the gain then does not depend on the scale of the task. In linear space
    ``beta <- max(0, beta + gain * e)`` with ``e = R - C`` in nats.

    Args:
        capacity: nats per example, summed over the code's dimensions; positive.
        gain: step size of the dual ascent.
        space: ``"log"`` or ``"linear"``.
        kp: weight of the error itself, beside its integral.
        ema: decay of the error's moving average, 0 for none. Smoothing reduces stability.
        beta_init: initial beta.
        bounds: lowest and highest beta.
        max_error: bound of the error, relative in log space and in nats in linear space.

    Raises:
        ConfigurationError: for values out of these ranges; in log space also for ``beta_init = 0``.

    >>> controller = DualBeta(capacity=2.0)
    >>> controller.update(mean_rate=100.0)  # far above the capacity: beta rises by a factor of exp(.03)
    >>> round(controller.beta / 1e-3, 6)
    1.030455
    """

    def __init__(
        self,
        capacity: float,
        gain: float = 0.03,
        space: Space = "log",
        kp: float = 0.0,
        ema: float = 0.9,
        beta_init: float = 1e-3,
        bounds: Bounds = (1e-8, 1e4),
        max_error: float = 1.0,
    ) -> None:
        super().__init__(gain, space, kp, ema, beta_init, bounds, max_error)
        self.capacity = positive("capacity", capacity)

    @classmethod
    def paper(cls, capacity: float, gain: float = 1e-5, beta_init: float = 0.1) -> "DualBeta":
        """Build the update of the VDB paper, ``beta <- max(0, beta + gain * (R - C))``, unsmoothed and unbounded.

        Args:
            capacity: nats per example.
            gain: the paper's alpha.
            beta_init: initial beta, .1 in the authors' code.
        """
        unbounded = (0.0, math.inf)
        return cls(capacity, gain, "linear", ema=0.0, beta_init=beta_init, bounds=unbounded, max_error=math.inf)

    def advance(self, mean_rate: float, mean_distortion: float | None) -> None:
        """Raise beta if the rate is above the capacity, lower it if below."""
        error = mean_rate - self.capacity
        self._follow(error / self.capacity if self.space == "log" else error)


class GECO(_FeedbackBeta):
    """Hold the distortion at a target and minimise the rate under it (arXiv 1810.00597).

    The paper multiplies the distortion by ``lambda <- lambda exp(gain * e)``, where ``e`` is the smoothed excess of the
    distortion over its target; here the rate is multiplied by ``beta = 1 / lambda`` instead. Pass the distortion to
    ``rate_penalty``.

    Args:
        target_distortion: nats per example; that of a density may be negative.
        gain: step size in ``log beta``.
        ema: decay of the error's moving average.
        beta_init: initial beta, positive.
        bounds: lowest and highest beta.
        max_error: bound of the error, in nats.

    Raises:
        ConfigurationError: for values out of these ranges.

    >>> controller = GECO(target_distortion=80.0)
    >>> controller.update(mean_rate=5.0, mean_distortion=200.0)  # reconstructions are too poor: beta falls
    >>> controller.beta < 1.0
    True
    """

    def __init__(
        self,
        target_distortion: float,
        gain: float = 0.03,
        ema: float = 0.9,
        beta_init: float = 1.0,
        bounds: Bounds = (1e-8, 1e4),
        max_error: float = 1.0,
    ) -> None:
        super().__init__(gain, "log", 0.0, ema, beta_init, bounds, max_error)
        if not is_number(target_distortion) or not math.isfinite(target_distortion):
            raise ConfigurationError(f"target_distortion must be a finite number; got {target_distortion!r}")
        self.target_distortion = float(target_distortion)

    def advance(self, mean_rate: float, mean_distortion: float | None) -> None:
        """Lower beta if the distortion is above its target, raise it if below."""
        if mean_distortion is None:
            raise ConfigurationError("GECO needs the distortion: call rate_penalty(rate, distortion=...)")
        self._follow(self.target_distortion - mean_distortion)
