"""Facts that hold for all controllers: penalty, state, checkpoints, arguments and descriptions."""

import copy
import io
import math
import pickle
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
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
from lit_bottleneck.bottleneck import GaussianBottleneck
from lit_bottleneck.hparams import to_config
from tests.beta.controllers import KINDS, RATES, drive


def moved(kind: str, steps: int = 7) -> BetaController:
    controller = KINDS[kind]()
    drive(controller, [0.3 * step + 1.7 for step in range(steps)], [0.1 * step for step in range(steps)])
    return controller


# --- constant ---------------------------------------------------------------------------------------------------------


@given(beta=st.floats(0, 1e3), rates=RATES)
def test_a_constant_beta_does_not_change(beta: float, rates: list[float]) -> None:
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


# --- updates that are not finite -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_updates_that_are_not_finite_are_skipped_and_counted(kind: str, bad: float) -> None:
    controller = moved(kind)
    before = [getattr(controller, name) for name in controller.state_names]
    controller.update(bad, 1.0)
    controller.update(1.0, bad)
    assert controller.skipped_updates == 2
    assert [getattr(controller, name) for name in controller.state_names] == before


# --- state ------------------------------------------------------------------------------------------------------------


def same_future(one: BetaController, other: BetaController) -> bool:
    rates, distortions = [0.5, 4.0, 9.0, 2.5] * 4, [1.0, -8.0, 0.0, 3.0] * 4
    penalty = torch.tensor([1.0, 7.0])
    if one(penalty).item() != other(penalty).item():
        return False
    return drive(one, rates, distortions) == drive(other, rates, distortions)


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_restores_the_state_exactly(kind: str) -> None:
    controller = moved(kind)
    controller.update(math.nan)
    file = io.BytesIO()
    torch.save(nn.ModuleDict({"beta": controller}).state_dict(), file)
    file.seek(0)
    restored = KINDS[kind]()
    nn.ModuleDict({"beta": restored}).load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(restored.get_extra_state(), controller.get_extra_state())
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
def test_casts_copies_and_pickles_do_not_round_the_state(kind: str, treat) -> None:
    treated, untouched = treat(moved(kind)), moved(kind)
    assert torch.equal(treated.get_extra_state(), untouched.get_extra_state())
    assert to_config(treated) == to_config(untouched)
    assert same_future(treated, untouched)


def test_a_thousand_tiny_updates_in_half_precision_add_up() -> None:
    controller = nn.Sequential(DualBeta.paper(capacity=1.0, gain=1e-5, beta_init=1.0)).half()[0]
    assert drive(controller, [2.0] * 1000)[-1] == pytest.approx(1.01, rel=1e-9)


def test_a_copy_shares_no_state_with_its_original() -> None:
    controller = moved("dual")
    copied, before = copy.deepcopy(controller), controller.beta
    copied.update(1000.0)
    assert controller.beta == before != copied.beta


@pytest.mark.parametrize("kind", KINDS)
def test_constant_and_adaptive_controllers_load_each_others_checkpoint_with_a_warning(kind: str) -> None:
    constant, moving = nn.ModuleDict({"beta": ConstantBeta(0.1)}), nn.ModuleDict({"beta": moved(kind)})
    before = moving["beta"].get_extra_state()
    with pytest.warns(UserWarning, match="a state of beta, which a ConstantBeta has not"):
        constant.load_state_dict(moving.state_dict())
    with pytest.warns(UserWarning, match="starts afresh: the checkpoint holds none"):
        moving.load_state_dict(constant.state_dict())
    assert constant["beta"].beta == 0.1
    assert torch.equal(moving["beta"].get_extra_state(), before)


@pytest.mark.parametrize(
    ("stored", "loading"),
    [
        ("dual", "scheduled"),
        ("scheduled", "geco"),
        ("capacity", "dual"),
        # whose numbers have the same names:
        ("dual", "geco"),
        ("geco", "dual"),
        ("scheduled", "capacity"),
        ("capacity", "scheduled"),
        ("dual", "linear"),  # log(beta) is not beta
        ("linear", "dual"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_at_the_state_of_another_controller_one_starts_afresh(stored: str, loading: str, strict: bool) -> None:
    model, other = nn.ModuleDict({"beta": KINDS[loading]()}), moved(stored)
    with pytest.warns(
        UserWarning, match=f"{model['beta'].state_kind} starts afresh.* holds that of {other.state_kind}"
    ):
        model.load_state_dict(nn.ModuleDict({"beta": other}).state_dict(), strict=strict)
    assert torch.equal(model["beta"].get_extra_state(), KINDS[loading]().get_extra_state())


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_of_earlier_versions_is_loaded(kind: str) -> None:
    controller, again = moved(kind), KINDS[kind]()
    names = (*controller.state_names, "skipped_updates")
    state = {"kind": controller.state_kind} | {name: getattr(controller, name) for name in names}
    again.set_extra_state(state)
    assert torch.equal(again.get_extra_state(), controller.get_extra_state())
    assert all(type(getattr(again, name)) is type(getattr(controller, name)) for name in names)
    for other in ({**state, "momentum": 1.0}, {"kind": controller.state_kind}):
        with pytest.warns(UserWarning, match="starts afresh"):
            KINDS[kind]().set_extra_state(other)


def test_the_state_is_a_tensor_that_safetensors_takes(tmp_path: Path) -> None:
    states = {"beta": moved("dual"), "other": moved("scheduled")}
    model, again = nn.ModuleDict(states), nn.ModuleDict({"beta": KINDS["dual"](), "other": KINDS["scheduled"]()})
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert [again[name].beta for name in states] == [model[name].beta for name in states]
    assert {state.dtype for state in model.half().state_dict().values()} == {torch.float64}


# --- arguments --------------------------------------------------------------------------------------------------------

BAD = (math.nan, math.inf, -math.inf, -1e-9)
BAD_BOUNDS = (
    (1.0, 1e-3),
    (1e-3, 1e-3),
    (-1.0, 1.0),
    (0.0, 1.0),
    (math.nan, 1.0),
    (1e-8, math.nan),
    (1e-8,),
    (1e-8, 1, 2),
)
scheduled, capacity = partial(ScheduledBeta, 1.0, 4), partial(CapacityBeta, 1.0, 1.0)
dual, geco = partial(DualBeta, 1.0), partial(GECO, 1.0)
WRONG: list[tuple[Callable[..., BetaController], str, tuple[Any, ...]]] = [
    (partial(ScheduledBeta, 1.0), "warmup_steps", (*BAD, 1.5)),
    (partial(ScheduledBeta, warmup_steps=3), "beta", BAD),
    (scheduled, "cycles", (*BAD, 0)),
    (scheduled, "period", (*BAD, 3)),
    (ConstantBeta, "beta", BAD),
    (partial(CapacityBeta, capacity=1.0), "weight", BAD),
    (partial(CapacityBeta, 1.0), "capacity", BAD),
    (capacity, "warmup_steps", BAD),
    (capacity, "kind", ("square",)),
    (capacity, "reduction", ("sum",)),
    (DualBeta, "capacity", (*BAD, 0.0)),
    (DualBeta.paper, "capacity", BAD),
    (partial(DualBeta.paper, 1.0), "gain", BAD),
    (dual, "gain", BAD),
    (dual, "kp", BAD),
    (dual, "ema", (*BAD, 1.0)),
    (dual, "space", ("square",)),
    (dual, "beta_init", (*BAD, 0.0)),
    (partial(dual, bounds=(0.1, 1.0)), "beta_init", (2.0,)),
    (dual, "bounds", BAD_BOUNDS),
    (dual, "max_error", (0.0, -1.0, math.nan)),
    (GECO, "target_distortion", (math.nan, math.inf)),
    (geco, "gain", BAD),
    (geco, "ema", (*BAD, 1)),
    (geco, "beta_init", (*BAD, 0.0)),
]


@pytest.mark.parametrize(("build", "name", "values"), WRONG)
def test_arguments_out_of_range_are_refused_by_name(
    build: Callable[..., BetaController], name: str, values: tuple[Any, ...]
) -> None:
    for value in values:
        with pytest.raises(ValueError, match=rf"\b{name}\b.* must be .*; got .*{re.escape(str(value))}"):
            build(**{name: value})


def test_beta_may_start_at_zero_in_linear_space() -> None:
    assert drive(DualBeta(1.0, space="linear", beta_init=0.0, bounds=(0.0, 1.0), ema=0.0), [2.0])[-1] > 0


def test_a_tensor_as_beta_is_refused() -> None:
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


class Counting(BetaController):
    """A user's controller without a constructor, which overrides ``update`` itself."""

    updates = 0

    @property
    def beta(self) -> float:
        return float(self.updates)

    def update(self, mean_rate: float, mean_distortion: float | None = None) -> None:
        self.updates += 1


class Doubled(DualBeta):
    """A user's controller that passes keyword arguments on."""

    def __init__(self, factor: float, **kwargs) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    @property
    def beta(self) -> float:
        return self.factor * super().beta


@pytest.mark.parametrize(
    "build", [lambda: Doubled(2.0, capacity=4.0, kp=0.1), Counting], ids=["kwargs", "no_constructor"]
)
def test_a_description_rebuilds_a_users_controller(build) -> None:
    controller = build()
    rebuilt = controller_from(to_config(controller))
    assert type(rebuilt) is type(controller)
    assert to_config(rebuilt) == to_config(controller)
    assert same_future(rebuilt, controller)


def test_a_controller_is_copied_and_a_number_becomes_a_constant() -> None:
    dual = moved("dual")
    copied = controller_from(dual)
    assert same_future(copied, moved("dual"))
    assert same_future(dual, moved("dual"))  # it did not move with its copy
    for number in (0.25, np.float32(0.25), np.float64(0.25)):
        controller = controller_from(number)
        assert isinstance(controller, ConstantBeta)
        assert type(controller.beta) is float
        assert controller.beta == 0.25
    assert controller_from(1).beta == 1.0


@pytest.mark.parametrize("bad", [True, "0.1", None, [0.1], torch.tensor(0.1), 1j])
def test_other_types_are_refused(bad) -> None:
    with pytest.raises(ValueError, match="beta must be a number or a BetaController"):
        controller_from(bad)


@pytest.mark.parametrize(
    "path", ["torch.nn.Linear", "os.system", "lit_bottleneck.beta.BetaController", "DualBeta", None]
)
def test_class_paths_of_anything_else_are_refused(path) -> None:
    with pytest.raises(ValueError, match="class_path"):
        controller_from({"class_path": path, "init_args": {"capacity": 1.0}} if path else {"capacity": 1.0})


@settings(max_examples=20)
@given(rates=RATES, kind=st.sampled_from(sorted(KINDS)))
def test_beta_is_always_finite_and_not_negative(rates: list[float], kind: str) -> None:
    controller = KINDS[kind]()
    assert all(math.isfinite(beta) and beta >= 0 for beta in drive(controller, 5 * rates, 5 * rates))
    assert controller.skipped_updates == 0


class Doubling(BetaController):
    """A user's controller in the documented way: ``beta``, ``advance`` and the names of its state."""

    state_names = ("price",)

    def __init__(self, price: float = 0.1) -> None:
        super().__init__()
        self.price = price

    @property
    def beta(self) -> float:
        return self.price

    def advance(self, mean_rate: float, mean_distortion: float | None) -> None:
        self.price *= 2


def test_a_users_controller_keeps_its_state_and_may_override_update() -> None:
    live, loaded, counting = Doubling(), Doubling(), Counting()
    for controller in (live, counting):
        controller.update(1.0)
    loaded.load_state_dict(live.state_dict())
    assert live.beta == loaded.beta == 0.2
    assert counting.beta == 1.0


class Priced(GaussianBottleneck, nn.Module):
    pass


@pytest.mark.parametrize("kind", KINDS)
def test_one_price_and_prices_by_name_load_each_others_checkpoint_with_a_warning(kind: str) -> None:
    own = KINDS[kind]().get_extra_state()
    single, named = Priced(beta=moved(kind)), Priced(beta={"shared": moved(kind)})
    afresh = f"{moved(kind).state_kind} starts afresh"
    for model, other, key, none in (
        (
            Priced(beta=KINDS[kind]()),
            named,
            "beta_controller.shared._extra_state",
            f"a {type(moved(kind)).__name__} has not",
        ),
        (Priced(beta={"shared": KINDS[kind]()}), single, "beta_controller._extra_state", "these prices have not"),
        (Priced(beta={"other": KINDS[kind]()}), named, "beta_controller.shared._extra_state", "these prices have not"),
    ):
        left_out = re.escape(f"a state of beta, which {none}: {key}, of {moved(kind).state_kind}")
        with pytest.warns(UserWarning, match=left_out), pytest.warns(UserWarning, match=re.escape(afresh)):
            model.load_state_dict(other.state_dict())
        [state] = [value for name, value in model.state_dict().items() if name.endswith("_extra_state")]
        assert torch.equal(state, own)
    with pytest.warns(UserWarning, match=r"these prices have not: beta_controller\.shared\._extra_state"):
        Priced(beta={"shared": 0.5}).load_state_dict(named.state_dict())
