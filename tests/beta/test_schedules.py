"""Scheduled beta and capacity against their formulas."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_bottleneck.beta import CapacityBeta, ScheduledBeta
from tests.beta.controllers import drive


@given(
    beta=st.floats(0, 10),
    warmup=st.integers(1, 12),
    cycles=st.integers(1, 4),
    extra=st.one_of(st.none(), st.integers(0, 12)),
)
def test_the_schedule_is_the_cyclical_formula(beta: float, warmup: int, cycles: int, extra: int | None) -> None:
    period = None if extra is None else warmup + extra
    schedule = ScheduledBeta(beta, warmup, cycles, period)
    length = period or (warmup if cycles == 1 else 2 * warmup)
    total = cycles * length
    ramp = warmup / length
    expected = []
    for t in range(total + 5):
        phase = (t * cycles % total) / total  # frac(c t / T) without rounding the turn of a cycle
        expected.append(beta * min(1.0, phase / ramp) if t < total else beta)
    prices = drive(schedule, [1.0] * (total + 4))
    assert prices == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("cycles", [1, 3])
def test_a_schedule_without_warmup_is_constant(cycles: int) -> None:
    assert set(drive(ScheduledBeta(0.5, warmup_steps=0, cycles=cycles), [1.0] * 9)) == {0.5}


def test_the_penalty_of_a_schedule_uses_its_current_beta() -> None:
    schedule, rate = ScheduledBeta(2.0, warmup_steps=4), torch.tensor([1.0, 2.0])
    penalties = []
    for _ in range(6):
        penalties.append(schedule(rate).item())
        schedule.update(1.5)
    assert penalties == [0.0, 0.75, 1.5, 2.25, 3.0, 3.0]


@given(
    weight=st.floats(0, 10),
    capacity=st.floats(0, 20),
    kind=st.sampled_from(["hinge", "abs"]),
    reduction=st.sampled_from(["batch", "sample"]),
    warmup=st.integers(0, 10),
    steps=st.integers(0, 12),
    rates=st.lists(st.floats(0, 50), min_size=1, max_size=6),
)
def test_capacity_penalises_the_distance_from_the_capacity(
    weight, capacity, kind, reduction, warmup, steps, rates
) -> None:
    controller = CapacityBeta(weight, capacity, kind, reduction, warmup)
    assert set(drive(controller, [1.0] * steps)) == {weight}
    free = capacity * (min(1.0, steps / warmup) if warmup else 1.0)
    price = (lambda excess: max(excess, 0.0)) if kind == "hinge" else abs
    if reduction == "batch":
        expected = weight * price(float(np.mean(rates)) - free)
    else:
        expected = weight * float(np.mean([price(rate - free) for rate in rates]))
    assert controller.current_capacity == pytest.approx(free, rel=1e-12)
    found = controller(torch.tensor(rates, dtype=torch.float64)).item()
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)
