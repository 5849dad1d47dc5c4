"""Prices against references of a few lines, closed loops with known fixed points, states that survive everything."""

import copy
import io
import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lit_bottleneck.beta import (
    GECO,
    BetaController,
    CapacityBeta,
    ConstantBeta,
    DualBeta,
    ScheduledBeta,
    controller_from,
)
from lit_bottleneck.hparams import to_config

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
    """The prices before each of the updates, and after the last."""
    prices = [controller.beta]
    for rate, distortion in zip(rates, distortions or [None] * len(rates), strict=True):
        controller.update(rate, distortion)
        prices.append(controller.beta)
    return prices


def moved(kind: str, steps: int = 7) -> BetaController:
    controller = KINDS[kind]()
    drive(controller, [0.3 * step + 1.7 for step in range(steps)], [0.1 * step for step in range(steps)])
    return controller


# --- constant ---------------------------------------------------------------------------------------------------------


@given(beta=st.floats(0, 1e3), rates=RATES)
def test_a_constant_price_does_not_move(beta: float, rates: list[float]) -> None:
    controller = ConstantBeta(beta)
    assert set(drive(controller, rates)) == {beta}
    rate = torch.tensor(rates, dtype=torch.float64)
    assert controller(rate).item() == pytest.approx(beta * sum(rates) / len(rates), rel=1e-12)
    assert controller.constant
    assert len(controller.state_dict()) == 0


def test_the_penalty_is_differentiable_and_zero_for_an_empty_batch() -> None:
    rate = torch.tensor([1.0, 3.0, 5.0], requires_grad=True)
    slopes = {ConstantBeta(0.6): 0.2, DualBeta(2.0, beta_init=0.3): 0.1, CapacityBeta(0.9, 1.0): 0.3}
    for controller, slope in slopes.items():
        (gradient,) = torch.autograd.grad(controller(rate), rate)
        torch.testing.assert_close(gradient, torch.full((3,), slope))
        empty = controller(torch.zeros(0, requires_grad=True))
        assert (empty.shape, empty.item()) == ((), 0.0)


# --- schedules --------------------------------------------------------------------------------------------------------


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


def test_the_schedule_prices_with_its_present_beta() -> None:
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
def test_capacity_pays_for_the_excess(weight, capacity, kind, reduction, warmup, steps, rates) -> None:
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


# --- feedback ---------------------------------------------------------------------------------------------------------


@given(rates=RATES, alpha=st.floats(0, 0.1), capacity=st.floats(0.01, 100), start=st.floats(0, 2))
def test_the_papers_update(rates: list[float], alpha: float, capacity: float, start: float) -> None:
    beta, expected = start, [start]
    for rate in rates:
        beta = max(0.0, beta + alpha * (rate - capacity))
        expected.append(beta)
    found = drive(DualBeta.paper(capacity, gain=alpha, beta_init=start), rates)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_papers_numbers_are_the_defaults_of_the_preset() -> None:
    controller = DualBeta.paper(capacity=0.1)
    assert drive(controller, [100.1, 0.1]) == pytest.approx([0.1, 0.101, 0.101], rel=1e-12)


@given(
    rates=RATES,
    gain=st.floats(0, 1),
    ema=st.floats(0, 0.99),
    max_error=st.sampled_from([0.1, 1.0, math.inf]),
    capacity=st.floats(0.1, 100),
)
def test_log_space_follows_the_relative_clipped_smoothed_error(rates, gain, ema, max_error, capacity) -> None:
    low, high = 1e-8, 1e4
    log_beta, smoothed, expected = math.log(1e-3), None, [1e-3]
    for rate in rates:
        error = float(np.clip((rate - capacity) / capacity, -max_error, max_error))
        smoothed = error if smoothed is None else ema * smoothed + (1 - ema) * error
        log_beta = float(np.clip(log_beta + gain * smoothed, math.log(low), math.log(high)))
        expected.append(math.exp(log_beta))
    found = drive(DualBeta(capacity, gain=gain, ema=ema, max_error=max_error), rates)
    assert found == pytest.approx(expected, rel=1e-9)
    assert all(low <= beta <= high for beta in found)


@given(rates=RATES, gain=st.floats(0, 1), ema=st.floats(0, 0.99), max_error=st.sampled_from([0.5, 5.0, math.inf]))
def test_linear_space_follows_the_error_in_nats(rates, gain, ema, max_error) -> None:
    low, high, capacity = 0.01, 50.0, 8.0
    beta, smoothed, expected = 0.5, None, [0.5]
    for rate in rates:
        error = float(np.clip(rate - capacity, -max_error, max_error))
        smoothed = error if smoothed is None else ema * smoothed + (1 - ema) * error
        beta = float(np.clip(beta + gain * smoothed, low, high))
        expected.append(beta)
    controller = DualBeta(
        capacity, gain=gain, space="linear", ema=ema, beta_init=0.5, bounds=(low, high), max_error=max_error
    )
    assert drive(controller, rates) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("space", ["log", "linear"])
@given(rates=RATES, gain=st.floats(0.001, 1), kp=st.floats(0, 3), ema=st.floats(0, 0.99))
def test_pi_adds_the_error_and_freezes_the_integral_when_saturated(space, rates, gain, kp, ema) -> None:
    low, high, capacity, start = 0.01, 10.0, 8.0, 0.5
    to_space = math.log if space == "log" else float
    ends = to_space(low), to_space(high)
    integral, smoothed, expected = to_space(start), None, [start]
    for rate in rates:
        error = (rate - capacity) / (capacity if space == "log" else 1.0)
        error = min(max(error, -1.0), 1.0)
        smoothed = error if smoothed is None else ema * smoothed + (1 - ema) * error
        proposed = float(np.clip(integral + gain * smoothed, *ends))
        price = proposed + kp * smoothed
        pushes_out = (price > ends[1] and smoothed > 0) or (price < ends[0] and smoothed < 0)
        integral = integral if pushes_out else proposed
        price = float(np.clip(integral + kp * smoothed, *ends))
        expected.append(math.exp(price) if space == "log" else price)
    controller = DualBeta(
        capacity, gain=gain, space=space, kp=kp, ema=ema, beta_init=start, bounds=(low, high), max_error=1.0
    )
    assert drive(controller, rates) == pytest.approx(expected, rel=1e-9)


@given(distortions=RATES, gain=st.floats(0, 0.01), ema=st.floats(0, 0.99), target=st.floats(-100, 500))
def test_geco_is_the_papers_lambda_upside_down(distortions, gain, ema, target) -> None:
    multiplier, smoothed, expected = 1.0, None, [1.0]
    for distortion in distortions:
        excess = distortion - target
        smoothed = excess if smoothed is None else ema * smoothed + (1 - ema) * excess
        multiplier *= math.exp(gain * smoothed)
        expected.append(1 / multiplier)
    controller = GECO(target, gain=gain, ema=ema, bounds=(1e-300, 1e300), max_error=math.inf)
    found = drive(controller, [5.0] * len(distortions), distortions)
    assert found == pytest.approx([min(max(beta, 1e-300), 1e300) for beta in expected], rel=1e-6)


def test_geco_says_where_the_distortion_goes() -> None:
    with pytest.raises(ValueError, match=r"rate_penalty\(rate, distortion="):
        GECO(target_distortion=1.0).update(mean_rate=2.0)


# --- closed loops -----------------------------------------------------------------------------------------------------


def linear_vae_rate(beta: float, eigenvalues: tuple[float, ...] = (4.0, 2.0), variance: float = 0.5) -> float:
    """Rate of the optimal linear VAE at this price: each direction that is worth it is coded."""
    return sum(max(0.0, 0.5 * math.log(eigenvalue / (beta * variance))) for eigenvalue in eigenvalues)


@pytest.mark.parametrize(("capacity", "price"), [(0.5, 3.431056), (1.0, 2.081040), (1.8, 0.935072)])
@pytest.mark.parametrize("space", ["log", "linear"])
@pytest.mark.parametrize("kp", [0.0, 0.1])
def test_dual_ascent_finds_the_price_of_the_linear_vae(capacity: float, price: float, space, kp: float) -> None:
    assert price == pytest.approx(math.exp((math.log(4) + math.log(2) - 2 * capacity) / 2) / 0.5, abs=1e-6)
    controller = DualBeta(capacity, space=space, kp=kp)
    for _ in range(4000):
        controller.update(linear_vae_rate(controller.beta))
    assert controller.beta == pytest.approx(price, abs=1e-6)
    assert linear_vae_rate(controller.beta) == pytest.approx(capacity, abs=1e-6)


def test_the_log_space_gain_is_free_of_the_scale_of_the_problem() -> None:
    trajectories = []
    for scale in (1.0, 1e-3):
        controller = DualBeta(1.0, beta_init=scale, bounds=(1e-9, 1e6))
        prices = []
        for _ in range(300):
            controller.update(linear_vae_rate(controller.beta / scale))
            prices.append(controller.beta / scale)
        trajectories.append(prices)
    assert trajectories[0] == pytest.approx(trajectories[1], rel=1e-9)


@pytest.mark.parametrize("kp", [0.0, 0.5])
def test_a_thousand_steps_far_above_the_capacity_are_forgotten_in_a_derived_number_of_steps(kp: float) -> None:
    gain, ema, high = 0.03, 0.9, 1e4
    controller = DualBeta(capacity=2.0, kp=kp)
    for _ in range(1000):
        controller.update(mean_rate=1000.0)
    assert high * math.exp(-gain) <= controller.beta <= high  # with kp the integral stands still a step below
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


def test_an_unbounded_linear_price_winds_up_as_the_paper_says() -> None:
    controller = DualBeta.paper(capacity=1.0, gain=1e-3, beta_init=0.0)
    assert drive(controller, [501.0] * 10)[-1] == pytest.approx(10 * 1e-3 * 500, rel=1e-12)
    assert drive(controller, [0.0] * 5000)[-1] == 0.0


# --- what is not finite -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_a_rate_that_is_not_finite_does_not_move_the_price_and_is_counted(kind: str, bad: float) -> None:
    controller = moved(kind)
    before = controller.get_extra_state()
    controller.update(bad, 1.0)
    controller.update(1.0, bad)
    after = controller.get_extra_state()
    assert controller.skipped_updates == 2
    assert {**before, "skipped_updates": 2} == after


# --- state ------------------------------------------------------------------------------------------------------------


def same_future(one: BetaController, other: BetaController) -> bool:
    rates, distortions = [0.5, 4.0, 9.0, 2.5] * 4, [1.0, -8.0, 0.0, 3.0] * 4
    penalty = torch.tensor([1.0, 7.0])
    if one(penalty).item() != other(penalty).item():
        return False
    return drive(one, rates, distortions) == drive(other, rates, distortions)


@pytest.mark.parametrize("kind", KINDS)
def test_state_goes_through_a_checkpoint_exactly(kind: str) -> None:
    controller = moved(kind)
    controller.update(math.nan)
    file = io.BytesIO()
    torch.save(nn.ModuleDict({"price": controller}).state_dict(), file)
    file.seek(0)
    restored = KINDS[kind]()
    nn.ModuleDict({"price": restored}).load_state_dict(torch.load(file, weights_only=True))
    assert restored.get_extra_state() == controller.get_extra_state()
    assert restored.skipped_updates == 1
    assert same_future(restored, controller)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "treat",
    [
        lambda controller: controller.half(),
        lambda controller: controller.bfloat16(),
        lambda controller: controller.to_empty(device="cpu"),
        copy.deepcopy,
        lambda controller: pickle.loads(pickle.dumps(controller)),
    ],
    ids=["half", "bfloat16", "to_empty", "deepcopy", "pickle"],
)
def test_state_is_not_rounded_by_anything(kind: str, treat) -> None:
    treated, untouched = treat(moved(kind)), moved(kind)
    assert treated.get_extra_state() == untouched.get_extra_state()
    assert to_config(treated) == to_config(untouched)
    assert same_future(treated, untouched)


def test_a_thousand_tiny_updates_in_half_precision_add_up() -> None:
    controller = nn.Sequential(DualBeta.paper(capacity=1.0, gain=1e-5, beta_init=1.0)).half()[0]
    assert drive(controller, [2.0] * 1000)[-1] == pytest.approx(1.01, rel=1e-9)


def test_a_copy_goes_its_own_way() -> None:
    controller = moved("dual")
    copied, before = copy.deepcopy(controller), controller.beta
    copied.update(1000.0)
    assert controller.beta == before != copied.beta


@pytest.mark.parametrize("kind", KINDS)
def test_constant_and_moving_prices_cannot_be_loaded_into_each_other(kind: str) -> None:
    constant, moving = nn.ModuleDict({"price": ConstantBeta(0.1)}), nn.ModuleDict({"price": moved(kind)})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*extra_state"):
        constant.load_state_dict(moving.state_dict())
    with pytest.raises(RuntimeError, match=r"Missing key.*extra_state"):
        moving.load_state_dict(constant.state_dict())


@pytest.mark.parametrize(
    ("stored", "loading"),
    [
        ("dual", "scheduled"),
        ("scheduled", "geco"),
        ("capacity", "dual"),
        # those whose numbers have the same names:
        ("dual", "geco"),
        ("geco", "dual"),
        ("scheduled", "capacity"),
        ("capacity", "scheduled"),
        ("dual", "linear"),  # a logarithm is no price
        ("linear", "dual"),
    ],
)
def test_the_state_of_another_controller_is_an_error(stored: str, loading: str) -> None:
    model = nn.ModuleDict({"price": KINDS[loading]()})
    with pytest.raises((RuntimeError, ValueError), match="another"):
        model.load_state_dict(nn.ModuleDict({"price": moved(stored)}).state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_with_a_number_missing_or_too_many_is_an_error(kind: str) -> None:
    controller = KINDS[kind]()
    state = dict(controller.get_extra_state())
    with pytest.raises(ValueError, match="state"):
        controller.set_extra_state({**state, "momentum": 1.0})
    state.pop("skipped_updates")
    with pytest.raises(ValueError, match="state"):
        controller.set_extra_state(state)


# --- arguments --------------------------------------------------------------------------------------------------------

NOT_A_PRICE = [math.nan, math.inf, -math.inf, -1e-9]
NOT_A_COUNT = [-1, 1.5, math.nan, math.inf]


@pytest.mark.parametrize("bad", NOT_A_PRICE)
@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("beta", lambda bad: ConstantBeta(bad)),
        ("beta", lambda bad: ScheduledBeta(bad, 3)),
        ("weight", lambda bad: CapacityBeta(bad, 1.0)),
        ("capacity", lambda bad: CapacityBeta(1.0, bad)),
        ("capacity", lambda bad: DualBeta(bad)),
        ("capacity", lambda bad: DualBeta.paper(bad)),
        ("gain", lambda bad: DualBeta(1.0, gain=bad)),
        ("gain", lambda bad: DualBeta.paper(1.0, gain=bad)),
        ("gain", lambda bad: GECO(1.0, gain=bad)),
        ("kp", lambda bad: DualBeta(1.0, kp=bad)),
        ("ema", lambda bad: DualBeta(1.0, ema=bad)),
        ("ema", lambda bad: GECO(1.0, ema=bad)),
        ("beta_init", lambda bad: DualBeta(1.0, beta_init=bad)),
        ("beta_init", lambda bad: GECO(1.0, beta_init=bad)),
    ],
)
def test_numbers_that_are_no_price_are_refused_by_name(name: str, build, bad: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be .*got {bad}"):
        build(bad)


@pytest.mark.parametrize("bad", NOT_A_COUNT)
@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("warmup_steps", lambda bad: ScheduledBeta(1.0, bad)),
        ("warmup_steps", lambda bad: CapacityBeta(1.0, 1.0, warmup_steps=bad)),
        ("cycles", lambda bad: ScheduledBeta(1.0, 4, cycles=bad)),
        ("period", lambda bad: ScheduledBeta(1.0, 4, period=bad)),
    ],
)
def test_numbers_that_count_nothing_are_refused_by_name(name: str, build, bad: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be .*got {bad}"):
        build(bad)


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("cycles", lambda: ScheduledBeta(1.0, 4, cycles=0)),
        ("period", lambda: ScheduledBeta(1.0, 4, period=3)),
        ("kind", lambda: CapacityBeta(1.0, 1.0, kind="square")),
        ("reduction", lambda: CapacityBeta(1.0, 1.0, reduction="sum")),
        ("space", lambda: DualBeta(1.0, space="square")),
        ("capacity", lambda: DualBeta(0.0)),
        ("ema", lambda: DualBeta(1.0, ema=1.0)),
        ("ema", lambda: GECO(1.0, ema=1)),
        ("beta_init", lambda: DualBeta(1.0, beta_init=0.0)),
        ("beta_init", lambda: GECO(1.0, beta_init=0.0)),
        ("beta_init", lambda: DualBeta(1.0, beta_init=2.0, bounds=(0.1, 1.0))),
        ("bounds", lambda: DualBeta(1.0, bounds=(1.0, 1e-3))),
        ("bounds", lambda: DualBeta(1.0, bounds=(1e-3, 1e-3))),
        ("bounds", lambda: DualBeta(1.0, bounds=(-1.0, 1.0))),
        ("bounds", lambda: DualBeta(1.0, bounds=(0.0, 1.0))),
        ("bounds", lambda: DualBeta(1.0, bounds=(math.nan, 1.0))),
        ("bounds", lambda: DualBeta(1.0, bounds=(1e-8, math.nan))),
        ("bounds", lambda: DualBeta(1.0, bounds=(1e-8,))),
        ("bounds", lambda: DualBeta(1.0, bounds=(1e-8, 1.0, 2.0))),
        ("max_error", lambda: DualBeta(1.0, max_error=0.0)),
        ("max_error", lambda: DualBeta(1.0, max_error=-1.0)),
        ("max_error", lambda: DualBeta(1.0, max_error=math.nan)),
        ("target_distortion", lambda: GECO(math.nan)),
        ("target_distortion", lambda: GECO(math.inf)),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(name: str, build) -> None:
    with pytest.raises(ValueError, match=name):
        build()


def test_a_price_of_zero_may_start_in_linear_space() -> None:
    assert drive(DualBeta(1.0, space="linear", beta_init=0.0, bounds=(0.0, 1.0), ema=0.0), [2.0])[-1] > 0


def test_a_tensor_is_no_price() -> None:
    with pytest.raises(ValueError, match="beta must be"):
        ConstantBeta(torch.tensor(0.1))  # type: ignore[arg-type]


# --- descriptions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*KINDS, "constant"])
def test_a_description_rebuilds_the_controller(kind: str) -> None:
    controller = ConstantBeta(0.25) if kind == "constant" else KINDS[kind]()
    description = to_config(controller)
    rebuilt = controller_from(description)
    assert type(rebuilt) is type(controller)
    assert rebuilt is not controller
    assert to_config(rebuilt) == description
    assert description["class_path"] == f"lit_bottleneck.beta.{type(controller).__name__}"
    assert same_future(rebuilt, controller)


@pytest.mark.parametrize("kind", KINDS)
def test_a_description_survives_a_weights_only_checkpoint(kind: str) -> None:
    file = io.BytesIO()
    torch.save(to_config(KINDS[kind]()), file)
    file.seek(0)
    assert same_future(controller_from(torch.load(file, weights_only=True)), KINDS[kind]())


class Doubled(DualBeta):
    """A user's controller that hands on keyword arguments."""

    def __init__(self, factor: float, **kwargs) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    @property
    def beta(self) -> float:
        return self.factor * super().beta


class Annealed(BetaController):
    """A user's controller without a constructor."""

    @property
    def beta(self) -> float:
        return 0.5

    def advance(self, mean_rate: float, mean_distortion: float | None) -> None:
        pass


@pytest.mark.parametrize(
    "build", [lambda: Doubled(2.0, capacity=4.0, kp=0.1), Annealed], ids=["kwargs", "no_constructor"]
)
def test_a_description_rebuilds_a_users_controller(build) -> None:
    controller = build()
    rebuilt = controller_from(to_config(controller))
    assert type(rebuilt) is type(controller)
    assert to_config(rebuilt) == to_config(controller)
    assert same_future(rebuilt, controller)


def test_numbers_and_controllers_are_taken_as_they_are() -> None:
    dual = DualBeta(2.0)
    assert controller_from(dual) is dual
    for number in (0.25, np.float32(0.25), np.float64(0.25)):
        controller = controller_from(number)
        assert isinstance(controller, ConstantBeta)
        assert type(controller.beta) is float
        assert controller.beta == 0.25
    assert controller_from(1).beta == 1.0


@pytest.mark.parametrize("bad", [True, "0.1", None, [0.1], torch.tensor(0.1), 1j])
def test_what_is_no_price_is_refused(bad) -> None:
    with pytest.raises(ValueError, match="beta must be a number or a BetaController"):
        controller_from(bad)


@pytest.mark.parametrize(
    "path", ["torch.nn.Linear", "os.system", "lit_bottleneck.beta.BetaController", "DualBeta", None]
)
def test_class_paths_of_anything_else_are_refused(path) -> None:
    with pytest.raises(ValueError, match="class_path"):
        controller_from({"class_path": path, "init_args": {"capacity": 1.0}})


def test_a_description_without_a_class_path_is_refused() -> None:
    with pytest.raises(ValueError, match="class_path"):
        controller_from({"capacity": 1.0})


@settings(max_examples=20)
@given(rates=RATES, kind=st.sampled_from(sorted(KINDS)))
def test_every_price_is_finite_and_not_negative_for_ever(rates: list[float], kind: str) -> None:
    controller = KINDS[kind]()
    assert all(math.isfinite(beta) and beta >= 0 for beta in drive(controller, 5 * rates, 5 * rates))
    assert controller.skipped_updates == 0


class Doubling(BetaController):
    """A user's price, by the documented way: `beta`, `advance` and the names of its state."""

    state_names = ("price",)

    def __init__(self, price: float = 0.1) -> None:
        super().__init__()
        self.price = price

    @property
    def beta(self) -> float:
        return self.price

    def advance(self, mean_rate: float, mean_distortion: float | None) -> None:
        self.price *= 2


class Counting(BetaController):
    """A user's price that overrides `update` itself."""

    def __init__(self) -> None:
        super().__init__()
        self.updates = 0

    @property
    def beta(self) -> float:
        return float(self.updates)

    def update(self, mean_rate: float, mean_distortion: float | None = None) -> None:
        self.updates += 1


def test_a_users_controller_keeps_its_state() -> None:
    live, loaded = Doubling(), Doubling()
    live.update(1.0)
    loaded.load_state_dict(live.state_dict())

    assert live.beta == loaded.beta == 0.2


def test_a_users_controller_may_override_update_alone() -> None:
    controller = Counting()
    controller.update(1.0)

    assert controller.beta == 1.0
