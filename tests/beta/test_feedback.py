"""Feedback controllers against references of a few lines, and in closed loops with known fixed points."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_bottleneck.beta import GECO, DualBeta
from tests.beta.controllers import RATES, drive


@given(rates=RATES, alpha=st.floats(0, 0.1), capacity=st.floats(0.01, 100), start=st.floats(0, 2))
def test_the_papers_update(rates: list[float], alpha: float, capacity: float, start: float) -> None:
    beta, expected = start, [start]
    for rate in rates:
        beta = max(0.0, beta + alpha * (rate - capacity))
        expected.append(beta)
    found = drive(DualBeta.paper(capacity, gain=alpha, beta_init=start), rates)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_preset_has_the_papers_numbers() -> None:
    controller = DualBeta.paper(capacity=0.1)
    assert drive(controller, [100.1, 0.1]) == pytest.approx([0.1, 0.101, 0.101], rel=1e-12)


@pytest.mark.parametrize("space", ["log", "linear"])
@given(
    rates=RATES,
    capacity=st.floats(0.1, 100),
    gain=st.floats(0, 1),
    kp=st.one_of(st.just(0.0), st.floats(0, 3)),
    ema=st.floats(0, 0.99),
    bounds=st.sampled_from([(0.01, 10.0), (1e-8, 1e4)]),
    max_error=st.sampled_from([0.1, 1.0, math.inf]),
)
def test_dual_ascent_integrates_and_adds_the_error_and_freezes_the_integral_at_a_bound(
    space, rates, capacity, gain, kp, ema, bounds, max_error
) -> None:
    start = 0.5
    to_space = math.log if space == "log" else float
    ends = [to_space(bound) for bound in bounds]
    integral, smoothed, expected = to_space(start), None, [start]
    for rate in rates:
        error = (rate - capacity) / (capacity if space == "log" else 1.0)
        error = min(max(error, -max_error), max_error)
        smoothed = error if smoothed is None else ema * smoothed + (1 - ema) * error
        proposed = float(np.clip(integral + gain * smoothed, *ends))
        price = proposed + kp * smoothed
        pushes_out = (price > ends[1] and smoothed > 0) or (price < ends[0] and smoothed < 0)
        integral = integral if pushes_out else proposed
        price = float(np.clip(integral + kp * smoothed, *ends))
        expected.append(math.exp(price) if space == "log" else price)
    controller = DualBeta(capacity, gain, space, kp, ema, start, bounds, max_error)
    found = drive(controller, rates)
    assert found == pytest.approx(expected, rel=1e-9)
    assert all(bounds[0] <= beta <= bounds[1] for beta in found)


@given(distortions=RATES, gain=st.floats(0, 0.01), ema=st.floats(0, 0.99), target=st.floats(-100, 500))
def test_geco_is_the_inverse_of_the_papers_lambda(distortions, gain, ema, target) -> None:
    multiplier, smoothed, expected = 1.0, None, [1.0]
    for distortion in distortions:
        excess = distortion - target
        smoothed = excess if smoothed is None else ema * smoothed + (1 - ema) * excess
        multiplier *= math.exp(gain * smoothed)
        expected.append(1 / multiplier)
    controller = GECO(target, gain=gain, ema=ema, bounds=(1e-300, 1e300), max_error=math.inf)
    found = drive(controller, [5.0] * len(distortions), distortions)
    assert found == pytest.approx([min(max(beta, 1e-300), 1e300) for beta in expected], rel=1e-6)


def test_geco_without_a_distortion_is_refused_with_the_way_to_pass_it() -> None:
    with pytest.raises(ValueError, match=r"rate_penalty\(rate, distortion="):
        GECO(target_distortion=1.0).update(mean_rate=2.0)


def linear_vae_rate(beta: float, eigenvalues: tuple[float, ...] = (4.0, 2.0), variance: float = 0.5) -> float:
    """Return the rate of the optimal linear VAE, which encodes each direction whose variance exceeds its cost."""
    return sum(max(0.0, 0.5 * math.log(eigenvalue / (beta * variance))) for eigenvalue in eigenvalues)


@pytest.mark.parametrize(("capacity", "beta"), [(0.5, 3.431056), (1.0, 2.081040), (1.8, 0.935072)])
@pytest.mark.parametrize("space", ["log", "linear"])
@pytest.mark.parametrize("kp", [0.0, 0.1])
def test_dual_ascent_finds_the_beta_of_the_linear_vae(capacity: float, beta: float, space, kp: float) -> None:
    assert beta == pytest.approx(math.exp((math.log(4) + math.log(2) - 2 * capacity) / 2) / 0.5, abs=1e-6)
    controller = DualBeta(capacity, space=space, kp=kp)
    for _ in range(4000):
        controller.update(linear_vae_rate(controller.beta))
    assert controller.beta == pytest.approx(beta, abs=1e-6)
    assert linear_vae_rate(controller.beta) == pytest.approx(capacity, abs=1e-6)


def test_the_gain_in_log_space_does_not_depend_on_the_scale_of_beta() -> None:
    trajectories: list[list[float]] = []
    for scale in (1.0, 1e-3):
        controller = DualBeta(1.0, beta_init=scale, bounds=(1e-9, 1e6))
        trajectories.append([])
        for _ in range(300):
            controller.update(linear_vae_rate(controller.beta / scale))
            trajectories[-1].append(controller.beta / scale)
    assert trajectories[0] == pytest.approx(trajectories[1], rel=1e-9)


@pytest.mark.parametrize("kp", [0.0, 0.5])
def test_recovery_from_a_thousand_steps_far_above_the_capacity_takes_the_derived_number_of_steps(kp: float) -> None:
    gain, ema, high = 0.03, 0.9, 1e4
    controller = DualBeta(capacity=2.0, kp=kp)
    for _ in range(1000):
        controller.update(mean_rate=1000.0)
    assert high * math.exp(-gain) <= controller.beta <= high  # with kp the integral stops a step below
    # From now on the rate is 0, the clipped error -1, and its average 2 * ema^n - 1 after n steps. As long as that
    # is positive the integral cannot rise above log(high); from step `turn` on it falls, by gain times the average.
    # Without kp the price is exp(integral): it reaches 1 when log(high) is used up. With kp it is there earlier.
    turn = math.ceil(math.log(0.5) / math.log(ema))
    n, integral = turn - 1, math.log(high)
    while integral > 0:
        n += 1
        integral += gain * (2 * ema**n - 1)
    steps = 0
    while controller.beta > 1.0:
        controller.update(mean_rate=0.0)
        steps += 1
    assert math.log(high) / gain < n < math.log(high) / gain + turn + 2 * ema**turn / (1 - ema) + 1
    assert steps == n if kp == 0 else steps <= n


def test_the_papers_unbounded_beta_winds_up() -> None:
    controller = DualBeta.paper(capacity=1.0, gain=1e-3, beta_init=0.0)
    assert drive(controller, [501.0] * 10)[-1] == pytest.approx(10 * 1e-3 * 500, rel=1e-12)
    assert drive(controller, [0.0] * 5000)[-1] == 0.0
