"""Controllers of every kind, and how the tests drive them."""

from collections.abc import Callable

from hypothesis import strategies as st

from lit_bottleneck.beta import GECO, BetaController, CapacityBeta, DualBeta, ScheduledBeta

RATES = st.lists(st.floats(0, 1000), min_size=1, max_size=40)
KINDS: dict[str, Callable[[], BetaController]] = {
    "scheduled": lambda: ScheduledBeta(0.7, warmup_steps=9, cycles=2, period=12),
    "capacity": lambda: CapacityBeta(2.0, capacity=3.0, kind="abs", warmup_steps=11),
    "dual": lambda: DualBeta(capacity=3.0),
    "linear": lambda: DualBeta(capacity=3.0, space="linear", beta_init=0.1),
    "pi": lambda: DualBeta(capacity=3.0, kp=0.2),
    "paper": lambda: DualBeta.paper(capacity=0.1),
    "geco": lambda: GECO(target_distortion=-3.0),
}


def drive(controller: BetaController, rates: list[float], distortions: list[float] | None = None) -> list[float]:
    """Update the controller once per rate; return beta before each update, and after the last."""
    betas = [controller.beta]
    for rate, distortion in zip(rates, distortions or [None] * len(rates), strict=True):
        controller.update(rate, distortion)
        betas.append(controller.beta)
    return betas
