"""The drop-in layer."""

import collections
import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lit_bottleneck import BottleneckLayer, GaussianBottleneck
from lit_bottleneck.beta import BetaController
from lit_bottleneck.bottleneck.layer import _Call
from lit_bottleneck.code import gaussian_code
from tests.bottleneck.modules import fast_dual

# --- the layer --------------------------------------------------------------------------------------------------------


class Stacked(GaussianBottleneck, nn.Module):
    def __init__(self, beta: float | BetaController = 1.0) -> None:
        super().__init__(beta=beta)
        self.first, self.second = BottleneckLayer(4, 3), BottleneckLayer(3, 2)


def rate_of(layer: BottleneckLayer, x: Tensor) -> Tensor:
    return gaussian_code(layer.moments(x), False, scale=layer.scale).rate


@pytest.mark.parametrize("scale", ["bounded", "softplus"])
def test_the_layer_is_a_linear_map_to_a_code(scale: Any) -> None:
    layer, x = BottleneckLayer(4, 3, scale=scale), torch.randn(5, 4)
    torch.manual_seed(2)
    z = layer(x)
    torch.manual_seed(2)
    code = gaussian_code(layer.moments(x), True, scale=scale)
    assert torch.equal(z, code.z)
    assert torch.equal(layer.take_rate(), code.rate)
    layer.eval()
    assert torch.equal(layer(x), code.mean)


def test_the_layer_needs_no_mixin() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 4), BottleneckLayer(4, 3), nn.Linear(3, 1))
    x = torch.randn(6, 4)
    (network(x).square().mean() + 0.1 * network[1].take_rate().mean()).backward()
    gradient = network[0].weight.grad.clone()
    assert gradient.abs().sum() > 0
    with pytest.raises(RuntimeError, match="has no rate"):
        network[1].take_rate()


def test_rates_of_several_calls_are_concatenated() -> None:
    model = Stacked()
    x1, x2 = torch.randn(5, 4), torch.randn(3, 4)
    model.first(x1)
    model.first(x2)
    expected = torch.cat([rate_of(model.first, x1), rate_of(model.first, x2)])
    assert torch.equal(model.first.take_rate(), expected)
    model.first(x1)
    model.first(x2)
    assert model.rate_penalty().item() == pytest.approx(expected.mean().item(), rel=1e-6)


def test_rates_of_several_layers_are_added() -> None:
    model, reference = Stacked(fast_dual()), fast_dual()
    x, y = torch.randn(5, 4), torch.randn(5, 3)
    model.first(x)
    model.second(y)
    expected = rate_of(model.first, x) + rate_of(model.second, y)
    assert model.rate_penalty().item() == pytest.approx(reference.beta * expected.mean().item(), rel=1e-6)
    model.step_beta()
    reference.update(expected.double().mean().item())
    assert model.beta == pytest.approx(reference.beta, rel=1e-9)


def test_layers_that_coded_different_numbers_of_examples_cannot_be_added() -> None:
    model = Stacked()
    model.first(torch.randn(5, 4))
    model.second(torch.randn(4, 3))
    with pytest.raises(RuntimeError, match=r"different numbers of examples, \[4, 5\]"):
        model.rate_penalty()


def test_a_rate_is_picked_up_once() -> None:
    model = Stacked()
    model.first(torch.randn(5, 4))
    assert model.first.has_rate
    model.rate_penalty()
    assert not model.first.has_rate
    with pytest.raises(RuntimeError, match="after the forward pass"):
        model.rate_penalty()


def test_the_layer_keeps_no_graph_alive_once_its_rate_is_picked_up() -> None:
    model = Stacked()
    hidden = torch.randn(5, 4, requires_grad=True) * 2
    alive = weakref.ref(hidden)
    model.first(hidden)
    del hidden
    gc.collect()
    assert alive() is not None  # by the waiting rate
    penalty = model.rate_penalty()
    penalty.backward()
    del penalty
    gc.collect()
    assert alive() is None


def test_evaluation_keeps_the_rate_of_the_last_call_only() -> None:
    layer = BottleneckLayer(4, 3).eval()
    x1, x2 = torch.randn(5, 4), torch.randn(2, 4)
    layer(x1)
    layer(x2)
    assert torch.equal(layer.take_rate(), rate_of(layer, x2))


@pytest.mark.parametrize("treat", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_layer_with_a_waiting_rate_can_be_copied_and_pickled(treat: Any) -> None:
    model, x = Stacked(fast_dual()), torch.randn(5, 4)
    model.first(x)
    twin = treat(model)
    assert model.first.has_rate
    assert not twin.first.has_rate
    twin.first(x)
    assert torch.equal(twin.first.take_rate(), model.first.take_rate())


def test_a_deterministic_layer_returns_the_mean_with_rate_zero() -> None:
    layer, x = BottleneckLayer(4, 3, deterministic=True), torch.randn(5, 4)
    assert torch.equal(layer(x), layer.moments(x)[:, :3])
    assert torch.equal(layer.take_rate(), torch.zeros(5))


def test_no_rate_is_dropped_before_it_is_picked_up() -> None:
    layer, x = BottleneckLayer(4, 3, reduction="none"), torch.randn(102 * 4, 4)
    with pytest.warns(UserWarning, match="keeps the graphs of 101 calls") as caught:
        collections.deque(map(layer, x.split(4)), maxlen=0)
    assert len(caught) == 1
    assert torch.equal(layer.take_rate(), rate_of(layer, x))


def test_only_passes_through_which_a_gradient_can_flow_leave_a_rate() -> None:
    model, x = Stacked(), torch.randn(5, 4)
    for rollout in (torch.no_grad, torch.inference_mode):
        with rollout():
            for _ in range(64):
                model.first(x)
    assert not model.first.has_rate
    model.first(x)
    model.rate_penalty().backward()
    gradient = model.first.moments.weight.grad
    [expected] = torch.autograd.grad(rate_of(model.first, x).mean(), model.first.moments.weight)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("reentrant", [False, True])
def test_the_recomputation_of_a_checkpoint_leaves_no_rate(reentrant: bool) -> None:
    model, x = Stacked(fast_dual()), torch.randn(32, 4, requires_grad=True)
    for _ in range(3):
        z = checkpoint(model.first, x, use_reentrant=reentrant)
        if reentrant:  # the first pass is without a graph
            with pytest.raises(RuntimeError, match="none has one"):
                model.rate_penalty()
            z.sum().backward()
        else:
            rate = model.first.take_rate()
            assert rate.shape == (32,)
            (z.sum() + model.rate_penalty(rate)).backward()
        assert not model.first.has_rate


@pytest.mark.parametrize(
    "module",
    [Stacked(), nn.Sequential(nn.Linear(4, 4), BottleneckLayer(4, 3)), torch.nn.ModuleDict({"deep": Stacked()})],
)
def test_a_rate_that_nothing_prices_is_a_warning_once_with_the_layers_name(module: nn.Module) -> None:
    layer = next(part for part in module.modules() if isinstance(part, BottleneckLayer))
    name = (
        "BottleneckLayer first"
        if layer.latent_dim == 3 and not isinstance(module, nn.Sequential)
        else f"BottleneckLayer({layer.extra_repr()})"
    )

    def loop() -> None:
        for _ in range(20):
            layer(torch.randn(5, 4)).sum().backward()
            layer.eval()(torch.randn(5, 4))
            layer.train()

    with pytest.warns(UserWarning, match="nothing priced") as caught:
        loop()
    assert [str(warning.message).startswith(name) for warning in caught] == [True]


@pytest.mark.filterwarnings("error")
def test_a_rate_that_is_priced_by_hand_waits_no_longer() -> None:
    layer = BottleneckLayer(4, 3)
    for _ in range(3):
        z = layer(torch.randn(5, 4))
        assert layer.code is not None
        (z.sum() + 0.1 * layer.code.rate.mean()).backward()
    layer(torch.randn(2, 4))
    assert layer.take_rate().shape == (2,)


def test_a_rate_may_be_priced_after_a_gradient_of_the_code() -> None:
    layer, x = BottleneckLayer(4, 3), torch.randn(5, 4)
    layer(x).sum().backward(retain_graph=True)
    before = layer.moments.weight.grad.clone()
    rate = layer.take_rate()
    rate.sum().backward()
    [expected] = torch.autograd.grad(rate_of(layer, x).sum(), layer.moments.weight)
    torch.testing.assert_close(layer.moments.weight.grad - before, expected)


def test_no_graph_outlives_its_training_step() -> None:
    layer, head = BottleneckLayer(4, 3), nn.Linear(3, 1)
    gc.collect()
    others = sum(type(thing) is _Call for thing in gc.get_objects())
    for index in range(20):
        loss = head(layer(torch.randn(5, 4))).sum()
        rate = layer.take_rate()
        if index % 2:  # the others are left out
            (loss + rate.mean()).backward()
        del loss, rate
    gc.collect()
    assert sum(type(thing) is _Call for thing in gc.get_objects()) == others


def test_a_gradient_penalty_before_the_price_drops_no_rate() -> None:
    layer, real = BottleneckLayer(4, 3, reduction="none"), torch.randn(5, 4, requires_grad=True)
    [gradient] = torch.autograd.grad(layer(real).sum(), real, create_graph=True)
    layer(torch.randn(2, 4))
    rate = layer.take_rate()
    assert rate.shape == (7,)
    (gradient.square().sum() + rate.sum()).backward()


def test_a_frozen_layer_leaves_no_rate() -> None:
    layer = BottleneckLayer(4, 3).requires_grad_(False)
    layer(torch.randn(5, 4))
    assert not layer.has_rate
    layer(torch.randn(5, 4, requires_grad=True))  # a gradient can flow to the input
    assert layer.has_rate


def test_a_layer_of_a_bottleneck_inside_is_priced_by_that() -> None:
    outer = Stacked()
    outer.first = nn.Sequential(Stacked(fast_dual()))  # type: ignore[assignment]
    x = torch.randn(5, 4)
    inner = outer.first[0]
    outer.second(inner.first(x))
    torch.testing.assert_close(outer.rate_penalty(), rate_of(outer.second, inner.first.code.z).mean())
    assert inner.first.has_rate


@pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="torch 2.6 does not say that it exports")
def test_a_layer_can_be_exported_after_a_forward_pass() -> None:
    network, x = nn.Sequential(nn.Linear(4, 4), BottleneckLayer(4, 3)).eval(), torch.randn(5, 4)
    expected = network(x)
    torch.testing.assert_close(torch.export.export(network, (x,)).module()(x), expected)


# --- several calls ----------------------------------------------------------------------------------------------------


def test_the_rates_of_a_siamese_layer_add_up_or_stay_apart() -> None:
    x1, x2 = torch.randn(2, 5, 4)
    adding, apart = BottleneckLayer(4, 3, reduction="sum"), BottleneckLayer(4, 3, reduction="none")
    for layer in (adding, apart):
        for mode in (layer.train, layer.eval):  # evaluation waits for as many calls as training had
            mode()
            layer(x1)
            layer(x2)
            rates = rate_of(layer, x1), rate_of(layer, x2)
            torch.testing.assert_close(layer.take_rate(), sum(rates) if layer is adding else torch.cat(rates))


def test_how_many_calls_an_evaluation_waits_for_is_in_the_state() -> None:
    trained, fresh, x = (
        BottleneckLayer(4, 3, reduction="sum"),
        BottleneckLayer(4, 3, reduction="sum"),
        torch.randn(5, 4),
    )
    for part in (x, -x):
        trained(part)
    trained.take_rate()
    fresh.load_state_dict(trained.state_dict())
    for part in (3 * x, x, -x):
        fresh.eval()(part)
    torch.testing.assert_close(fresh.take_rate(), rate_of(fresh, x) + rate_of(fresh, -x))


def test_calls_of_one_batch_are_a_warning_if_nobody_said_what_to_do() -> None:
    layer = BottleneckLayer(4, 3)

    def twice() -> None:
        for _ in range(3):
            layer(torch.randn(5, 4))
            layer(torch.randn(5, 4))
            assert layer.take_rate().shape == (10,)

    with pytest.warns(UserWarning, match=r"pays the mean of its codes: set reduction='sum'") as caught:
        twice()
    assert len(caught) == 1


def test_calls_of_different_batches_cannot_be_added() -> None:
    layer = BottleneckLayer(4, 3, reduction="sum")
    layer(torch.randn(5, 4))
    layer(torch.randn(2, 4))
    with pytest.raises(RuntimeError, match=r"calls of as many examples; they coded \[2, 5\]"):
        layer.take_rate()


# --- shapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "dim"), [((5, 7, 4), -1), ((5, 4, 6, 7), 1), ((5, 6, 7, 4), -1), ((5, 1, 1, 2, 4), -1)]
)
@pytest.mark.parametrize("masked", [False, True])
def test_each_position_is_coded_by_the_same_map(shape: tuple[int, ...], dim: int, masked: bool) -> None:
    layer, x = BottleneckLayer(4, 3), torch.randn(shape)
    rows = x.movedim(dim, -1)
    mask = torch.rand(rows.shape[:-1]) < 0.5 if masked else torch.ones(rows.shape[:-1], dtype=torch.bool)
    mask[0].fill_(True)
    z = layer(x, mask) if masked else layer(x)
    assert layer.code is not None
    torch.testing.assert_close(layer.code.mean.movedim(dim, -1), layer.moments(rows)[..., :3])
    assert z.shape == layer.code.mean.shape
    each = rate_of(layer, rows.reshape(-1, 4)).view(mask.shape) * mask
    torch.testing.assert_close(layer.take_rate(), each.flatten(1).sum(1))


def test_the_dimension_of_the_features_can_be_said() -> None:
    x = torch.randn(5, 4, 6, 4)
    first, last = (BottleneckLayer(4, 3, dim=dim)(x) for dim in (1, -1))
    assert (first.shape, last.shape) == ((5, 3, 6, 4), (5, 4, 6, 3))


def test_the_code_of_the_last_call_keeps_no_graph_once_its_rate_is_picked_up() -> None:
    layer, x = BottleneckLayer(4, 3), torch.randn(5, 4)
    z = layer(x)
    assert layer.code is not None
    assert layer.code.z is z
    layer.take_rate()
    assert torch.equal(layer.code.z, z)
    assert not any(field.requires_grad for field in layer.code)


@pytest.mark.parametrize(
    ("shape", "dim", "words"),
    [
        ((2, 5), None, r"\(B, \.\.\., 4\) or \(B, 4, H, W\); got \(2, 5\)"),
        ((4,), None, r"got \(4,\)"),
        ((2, 4, 3, 4), None, "set dim=1 or dim=-1"),
        ((2, 4), 2, "got .2, 4. for dim=2"),
    ],
)
def test_other_shapes_are_refused(shape: tuple[int, ...], dim: int | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        BottleneckLayer(4, 3, dim=dim)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"scale": "sigmoid"}, "scale must be"), ({"dim": 0}, "dim must"), ({"reduction": "mean"}, "reduction")],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        BottleneckLayer(4, 3, **arguments)


def test_training_forgets_the_rate_of_the_last_evaluation() -> None:
    layer = BottleneckLayer(3, 2).eval()
    layer(torch.randn(7, 3))
    layer.train()(torch.randn(3, 3))
    assert layer.take_rate().shape == (3,)
