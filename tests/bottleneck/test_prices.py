"""Several prices in one module, and the optimizer steps after which each of them moves, in any loop."""

import copy
import math
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from lightning import LightningModule
from lightning.fabric import Fabric
from torch import Tensor, nn

from lit_bottleneck import GaussianBottleneck
from lit_bottleneck.beta import GECO, BetaController, ConstantBeta
from tests.bottleneck.modules import Noted, Plain, fast_dual, loader
from tests.quiet import trainer


class Two(GaussianBottleneck, LightningModule):
    """Two codes with a price each; ``calls`` says what a training step pays."""

    def __init__(self, **prices: Any) -> None:
        super().__init__(beta=prices)
        torch.manual_seed(0)
        self.shared, self.private, self.head = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 1)
        self.notes: dict[str, list[Tensor]] = {"shared": [], "private": []}

    def rates(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        codes = {name: self.bottleneck(getattr(self, name)(x), noise=torch.sin(9 * x[:, :3])) for name in self.notes}
        for name, code in codes.items():
            self.notes[name].append(code.rate.detach().double().mean())
        loss = (self.head(torch.cat([code.z for code in codes.values()], 1)) - x[:, :1]).square().mean()
        return loss, {name: code.rate for name, code in codes.items()}

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss, rates = self.rates(batch[0])
        return loss + sum(self.rate_penalty(rate, name=name) for name, rate in rates.items())

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.02)


def moved_by(reference: BetaController, rates: list[Tensor]) -> float:
    for rate in rates:
        reference.update(rate.item())
    return reference.beta


# --- prices by name ---------------------------------------------------------------------------------------------------


def test_each_price_moves_by_its_own_rate_and_is_logged_under_its_name() -> None:
    model = Two(shared=fast_dual(), private=fast_dual(capacity=2.0))
    run = trainer(max_epochs=2)
    run.fit(model, loader())
    expected = {
        "shared": moved_by(fast_dual(), model.notes["shared"]),
        "private": moved_by(fast_dual(capacity=2.0), model.notes["private"]),
    }
    assert model.beta == pytest.approx(expected, rel=1e-9)
    assert model.beta["shared"] != model.beta["private"]
    assert {name for name in run.callback_metrics if "beta" in name} == {"train/beta/shared", "train/beta/private"}
    for name, rates in model.notes.items():
        assert run.callback_metrics[f"train/rate/{name}"].item() == pytest.approx(rates[-1].item())


def test_the_penalty_is_that_of_the_price_that_is_named() -> None:
    model = Two(shared=0.5, private=2.0)
    rate = torch.tensor([1.0, 3.0])
    assert [model.rate_penalty(rate, name=name).item() for name in ("shared", "private")] == [1.0, 4.0]
    assert model.beta == {"shared": 0.5, "private": 2.0}
    assert isinstance(model.beta_controller["shared"], ConstantBeta)


def test_distortion_and_priced_rate_are_those_of_the_named_price() -> None:
    model = Two(shared=GECO(5.0), private=0.1)
    before = model.beta["shared"]
    penalty = model.rate_penalty(torch.ones(4), torch.tensor(50.0), priced_rate=torch.full((4,), 3.0), name="shared")
    assert penalty.item() == pytest.approx(3 * before)
    model.step_beta()
    reference = GECO(5.0)
    reference.update(1.0, 50.0)
    assert model.beta == {"shared": reference.beta, "private": 0.1}


@pytest.mark.parametrize("name", [None, "other", ""])
def test_a_name_that_is_none_of_the_prices_is_refused(name: str | None) -> None:
    with pytest.raises(ValueError, match=rf"one of 'shared', 'private'; got {name!r}"):
        Two(shared=0.5, private=2.0).rate_penalty(torch.ones(2), name=name)


def test_a_name_for_the_only_price_is_refused() -> None:
    with pytest.raises(ValueError, match="without a name; got 'shared'"):
        Plain(0.5).rate_penalty(torch.ones(2), name="shared")


@pytest.mark.parametrize(
    ("beta", "words"),
    [
        ({}, "at least one price"),
        ({"a.b": 1.0}, "a.b"),
        ({"": 1.0}, "''"),
        ({"values": 1.0}, "values"),
        ({3: 1.0}, "got 3"),
        ({"shared": -1.0}, "not negative"),
        ({"shared": "much"}, "a number or a BetaController"),
    ],
)
def test_prices_that_are_none_are_refused(beta: dict[Any, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Plain(beta)  # type: ignore[arg-type]


def test_the_state_of_several_prices_comes_back() -> None:
    model, again = (Two(shared=fast_dual(), private=fast_dual(capacity=2.0)) for _ in range(2))
    trainer().fit(model, loader())
    again.load_state_dict(model.state_dict())
    assert again.beta == model.beta != Two(shared=fast_dual(), private=fast_dual()).beta
    assert {name for name in model.state_dict() if "beta" in name} == {
        "beta_controller.shared._extra_state",
        "beta_controller.private._extra_state",
    }


def test_a_controller_that_is_given_to_two_modules_or_prices_is_moved_by_none() -> None:
    given = fast_dual()
    model, other = Two(shared=given, private=given), Plain(given)
    model.rate_penalty(torch.full((2,), 9.0), name="shared")
    model.step_beta()
    start = fast_dual().beta
    assert model.beta["shared"] > start
    assert model.beta["private"] == other.beta == given.beta == start


def test_modules_cannot_share_a_controller() -> None:
    one, other = Plain(fast_dual()), Plain(fast_dual())
    with pytest.raises(TypeError, match="another module moves this controller"):
        one.beta_controller = other.beta_controller
    one.beta_controller = one.beta_controller
    one.beta_controller = copy.deepcopy(other.beta_controller)


# --- a second call ----------------------------------------------------------------------------------------------------


class Twice(Plain, LightningModule):  # type: ignore[misc]
    """Computes two penalties in a training step, in a way that a test gives."""

    way: Any = None

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
        rates = [self.bottleneck(self.encoder(part)).rate for part in batch[0].chunk(2)]
        return type(self).way(self, rates)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def both(module: Any, rates: list[Tensor]) -> Tensor:
    return sum(map(module.rate_penalty, rates))


def by_hand(between: bool) -> Any:
    def step(module: Any, rates: list[Tensor]) -> None:
        module.automatic_optimization = False
        optimizer = module.optimizers()
        optimizer.zero_grad()
        for rate in rates:
            module.manual_backward(module.rate_penalty(rate))
            if between:
                optimizer.step()
        if not between:
            optimizer.step()

    return step


def with_way(way: Any) -> Twice:
    module = type("Mine", (Twice,), {"way": staticmethod(way)})(Noted())
    module.automatic_optimization = way is both or way is none_of_it
    return module


def none_of_it(module: Any, rates: list[Tensor]) -> None:
    module.rate_penalty(rates[0])  # then the batch is left out


def test_a_second_call_for_one_price_in_a_training_step_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"called twice for the same price.*add the rates.*by name"):
        trainer().fit(with_way(both), loader(4))


@pytest.mark.parametrize(("between", "updates"), [(False, 4), (True, 8)])
def test_a_call_after_a_backward_pass_is_no_second_call(between: bool, updates: int) -> None:
    module = with_way(by_hand(between))
    trainer().fit(module, loader(4))
    assert len(module.beta_controller.rates) == updates


def test_a_batch_that_is_left_out_is_no_first_call() -> None:
    module = with_way(none_of_it)
    trainer().fit(module, loader(4))
    assert module.beta_controller.rates == []


def test_a_nested_module_is_refused_a_second_call_too() -> None:
    class Around(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Plain(fast_dual())

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return self.inner(batch[0]) + self.inner(batch[0])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    with pytest.raises(RuntimeError, match="rate_penalty of Plain was called twice"):
        trainer().fit(Around(), loader(4))


# --- the optimizer that moves a price ---------------------------------------------------------------------------------


def batches(count: int, seed: int = 0) -> Iterator[Tensor]:
    yield from torch.randn(count, 8, 4, generator=torch.Generator().manual_seed(seed))


def test_beta_moves_with_the_optimizer_of_the_encoder_whatever_others_do() -> None:
    model = Plain(Noted())
    encoder, head = (torch.optim.SGD(part.parameters(), lr=0.01) for part in (model.encoder, model.head))
    rates = []
    for index, x in enumerate(batches(22)):
        code = model.bottleneck(model.encoder(x))
        rates.append(code.rate.detach().double().mean().item())
        (model.head(code.z).square().mean() + model.rate_penalty(code.rate)).backward()
        head.step()
        if index % 2:
            encoder.step()
            encoder.zero_grad()
    expected = [(one + other) / 2 for one, other in zip(rates[::2], rates[1::2], strict=True)]
    assert model.beta_controller.rates == pytest.approx(expected, rel=1e-12)


def test_one_step_of_several_optimizers_of_the_encoder_moves_beta_once() -> None:
    model = Plain(Noted())
    optimizers = [torch.optim.SGD([weight], lr=0.01) for weight in model.parameters()]
    for x in batches(5):
        model(x).backward()
        for optimizer in optimizers:
            optimizer.step()
    assert len(model.beta_controller.rates) == 5


def test_prices_of_encoders_with_an_optimizer_each_move_apart() -> None:
    model = Two(shared=Noted(), private=Noted())
    often, seldom = (torch.optim.SGD(part.parameters(), lr=0.01) for part in (model.shared, model.private))
    for index, x in enumerate(batches(9)):
        loss, rates = model.rates(x)
        (loss + sum(model.rate_penalty(rate, name=name) for name, rate in rates.items())).backward()
        often.step()
        if index % 3 == 2:
            seldom.step()
    assert [len(model.beta_controller[name].rates) for name in ("shared", "private")] == [9, 3]
    third = torch.stack(model.notes["private"]).view(3, 3).mean(1).tolist()
    assert model.beta_controller["private"].rates == pytest.approx(third, rel=1e-12)


class Price(GaussianBottleneck, nn.Module):
    """A price without parameters, for the rate of another network."""

    def forward(self, moments: Tensor) -> Tensor:
        penalty: Tensor = self.rate_penalty(self.bottleneck(moments).rate)
        return penalty


def test_a_module_without_parameters_moves_with_the_network_of_its_rate() -> None:
    price, encoder, other = Price(beta=Noted()), nn.Linear(4, 6), nn.Linear(4, 6)
    optimizers = [torch.optim.SGD(network.parameters(), lr=0.01) for network in (other, encoder)]
    for x in batches(4):
        (price(encoder(x)) + other(x).square().mean()).backward()
        optimizers[0].step()
        assert price.beta_controller.rates == []
    optimizers[1].step()
    assert len(price.beta_controller.rates) == 1


def test_a_frozen_encoder_leaves_the_module_to_its_other_parameters() -> None:
    model = Plain(Noted())
    model.encoder.requires_grad_(False)
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.01)
    for x in batches(3):
        model(x).backward()
        optimizer.step()
    assert len(model.beta_controller.rates) == 3


def test_reentrant_checkpoints_which_hide_the_parameters_move_beta_too() -> None:
    model = Plain(Noted())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for x in batches(3):
        moments = torch.utils.checkpoint.checkpoint(model.encoder, x.requires_grad_(), use_reentrant=True)
        model.rate_penalty(model.bottleneck(moments).rate).backward()
        optimizer.step()
    assert len(model.beta_controller.rates) == 3


def test_a_penalty_in_a_checkpoint_is_remembered_once() -> None:
    model = Plain(Noted())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for x in batches(3):
        torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False).backward()
        optimizer.step()
        model.step_beta()  # nothing is left
    assert len(model.beta_controller.rates) == 3


@pytest.mark.parametrize("treat", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_moves_by_its_own_optimizer(treat: Any) -> None:
    model = Plain(fast_dual())
    model(next(batches(1))).backward()
    twin = treat(model)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.01)
    twin(next(batches(1))).backward()
    optimizer.step()
    assert twin.beta != model.beta == fast_dual().beta


def test_an_upstream_optimizer_that_steps_before_the_gradient_is_none_of_its_own() -> None:
    model, before = Plain(Noted()), nn.Linear(4, 4)
    model.add_module("before", before)
    first = torch.optim.SGD(before.parameters(), lr=0.01)
    second = torch.optim.SGD(model.encoder.parameters(), lr=0.01)
    for x in batches(5):
        first.zero_grad()
        penalty = model(before(x))
        first.step()
        penalty.backward()
        second.step()
    assert len(model.beta_controller.rates) == 5
    assert model.beta_controller.skipped_updates == 0


def test_an_optimizer_that_resets_gradients_itself_moves_beta() -> None:
    class Resetting(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            loss = super().step(closure)
            self.zero_grad()
            return loss

    model = Plain(Noted())
    optimizer = Resetting(model.parameters(), lr=0.01)
    optimizer.register_step_post_hook(lambda optimizer, *_: optimizer.zero_grad())
    for x in batches(4):
        model(x).backward()
        optimizer.step()
    assert len(model.beta_controller.rates) == 4


def test_penalties_without_grad_mode_or_gradient_count_for_nothing() -> None:
    model = Plain(Noted())
    optimizer, expected = torch.optim.SGD(model.parameters(), lr=0.01), []
    for x in batches(4):
        with torch.no_grad():
            model(100 * x)
        model(10 * x)  # a batch that the loop leaves out
        code = model.bottleneck(model.encoder(x))
        expected.append(code.rate.mean().item())
        model.rate_penalty(code.rate).backward()
        optimizer.step()
    assert model.beta_controller.rates == pytest.approx(expected, rel=1e-5)


def test_all_rates_of_a_window_count_for_whose_step_it_is() -> None:
    model, other = Plain(Noted()), nn.Linear(4, 6)
    model.add_module("other", other)
    optimizer = torch.optim.SGD(model.encoder.parameters(), lr=0.01)
    for x in batches(3):
        for encoder in (model.encoder, other):
            model.rate_penalty(model.bottleneck(encoder(x)).rate).backward()
        optimizer.step()
    assert len(model.beta_controller.rates) == 3


# --- gradient scalers and Fabric --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [False, True])
def test_beta_moves_by_the_finite_batches_of_the_steps_that_a_bare_scaler_takes(fused: bool) -> None:
    model = Plain(Noted())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=fused)
    scaler, rates, steps = torch.amp.GradScaler("cpu", init_scale=8.0), [], 0
    for index, x in enumerate(batches(12)):
        spoiled = index in (2, 5, 6)
        code = model.bottleneck(model.encoder(x * (math.inf if spoiled else 1)))
        scaler.scale(model.head(code.z).square().mean() + model.rate_penalty(code.rate)).backward()
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        steps += scaler.get_scale() >= scale
        if not spoiled:
            rates.append(code.rate.detach().double().mean().item())
    assert steps == 9
    assert model.beta_controller.rates == pytest.approx(rates, rel=1e-12)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_beta_moves_in_a_loop_of_fabric(accumulate: int) -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    inner = Plain(Noted())
    model, optimizer = fabric.setup(inner, torch.optim.Adam(inner.parameters()))
    for index, x in enumerate(batches(8)):
        fabric.backward(model(x) / accumulate)
        if (index + 1) % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
    assert len(inner.beta_controller.rates) == 8 // accumulate
    code = inner.bottleneck(inner.encoder(next(batches(1))))
    assert type(fabric.to_device(code)) is type(code)
