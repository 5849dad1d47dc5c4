"""The mixin in loops by hand: construction, penalty, updates, compilation."""

import copy
import gc
import math
import pickle
import weakref
from typing import Any

import pytest
import torch
from lightning import LightningModule
from torch import Tensor, nn

from lit_bottleneck import GaussianBottleneck
from lit_bottleneck.beta import GECO, ConstantBeta, DualBeta
from lit_bottleneck.code import gaussian_code
from tests.bottleneck.modules import Plain, fast_dual

RESERVED = ["beta", "beta_controller", "bottleneck", "deterministic", "rate_penalty", "step_beta"]


# --- construction -----------------------------------------------------------------------------------------------------


class Titled:
    def __init__(self, *args: Any, title: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = title


@pytest.mark.parametrize("base", [nn.Module, LightningModule])
def test_init_is_cooperative(base: type) -> None:
    class Model(GaussianBottleneck, Titled, base):
        pass

    model = Model(beta=0.5, title="mine", deterministic=True)
    assert (model.title, model.beta, model.deterministic, model.training) == ("mine", 0.5, True, True)
    assert isinstance(model.beta_controller, ConstantBeta)
    assert dict(model.named_modules())["beta_controller"] is model.beta_controller


@pytest.mark.parametrize("base", [nn.Module, LightningModule])
def test_beta_is_required_and_checked(base: type) -> None:
    class Model(GaussianBottleneck, base):
        pass

    with pytest.raises(TypeError, match="beta"):
        Model()
    with pytest.raises(ValueError, match="beta must be a finite number"):
        Model(beta=-1.0)
    with pytest.raises(ValueError, match="beta must be a number or a BetaController"):
        Model(beta="0.1")
    with pytest.raises(ValueError, match="scale must be"):
        Model(beta=0.1, scale="sigmoid")


@pytest.mark.parametrize("base", [nn.Module, LightningModule])
def test_the_mixin_must_stand_first(base: type) -> None:
    with pytest.raises(TypeError, match=rf"class Model\(GaussianBottleneck, {base.__name__}\)"):

        class Model(base, GaussianBottleneck):
            pass


@pytest.mark.parametrize("name", [*RESERVED, "end_step", "_layers", "logs_this_step"])
@pytest.mark.parametrize("value", [0.5, None, lambda self: None], ids=["attribute", "none", "method"])
@pytest.mark.parametrize("bases", [(GaussianBottleneck, nn.Module), (Plain,)])
def test_a_class_that_overwrites_a_name_of_the_mixin_is_refused(name: str, value: Any, bases: tuple[type, ...]) -> None:
    with pytest.raises(TypeError, match=f"Model overwrites {name} of GaussianBottleneck"):
        type("Model", bases, {name: value})


def test_a_base_before_the_mixin_that_overwrites_a_name_is_refused() -> None:
    class Other:
        def bottleneck(self, x: Tensor) -> Tensor:
            return x

    with pytest.raises(TypeError, match="bottleneck of GaussianBottleneck"):

        class Model(Other, GaussianBottleneck, nn.Module):
            pass


@pytest.mark.parametrize("name", RESERVED)
@pytest.mark.parametrize("value", [nn.Linear(2, 2), nn.Parameter(torch.zeros(1)), 0.5, None])
def test_an_attribute_that_overwrites_a_name_of_the_mixin_is_refused(name: str, value: Any) -> None:
    model = Plain(0.5)
    with pytest.raises(TypeError, match=rf"^{name} belongs to GaussianBottleneck.*{type(value).__name__}"):
        setattr(model, name, value)
    assert model.beta == 0.5


def test_a_buffer_called_beta_is_refused() -> None:
    with pytest.raises(KeyError, match="beta"):
        Plain(0.5).register_buffer("beta", torch.zeros(()))


def test_the_controller_can_be_replaced() -> None:
    model = Plain(0.5)
    model.beta_controller = DualBeta(1.0, beta_init=0.25)
    assert model.beta == pytest.approx(0.25)
    assert model.rate_penalty(torch.tensor([2.0])).item() == pytest.approx(0.5)


@pytest.mark.parametrize("base", [nn.Module, LightningModule])
@pytest.mark.parametrize(
    "use",
    [
        lambda model: model.bottleneck(torch.zeros(2, 4)),
        lambda model: model.rate_penalty(torch.zeros(2)),
        lambda model: model.rate_penalty(),
        lambda model: model.step_beta(),
        lambda model: model.beta,
        lambda model: model.beta_controller,
        lambda model: model.deterministic,
    ],
    ids=["bottleneck", "rate_penalty", "layers", "step_beta", "beta", "beta_controller", "deterministic"],
)
def test_a_forgotten_super_init_says_what_to_do(base: type, use: Any) -> None:
    class Model(GaussianBottleneck, base):
        def __init__(self) -> None:
            base.__init__(self)

    with pytest.raises(RuntimeError, match=r"Model.__init__ must call super\(\).__init__\(beta=...\)"):
        use(Model())


# --- the code, the penalty and the hand loop --------------------------------------------------------------------------


def test_the_code_is_a_draw_in_training_and_the_mean_in_evaluation() -> None:
    model, moments = Plain(0.1, scale="softplus"), torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    noise = torch.ones(3, 4)
    torch.manual_seed(1)
    drawn = model.bottleneck(moments)
    torch.manual_seed(1)
    assert torch.equal(drawn.z, gaussian_code(moments, True, scale="softplus").z)
    assert torch.equal(model.bottleneck(moments, sample=False).z, moments[:, :4])
    model.eval()
    assert torch.equal(model.bottleneck(moments).z, moments[:, :4])
    assert not torch.equal(model.bottleneck(moments, sample=True).z, moments[:, :4])
    with_noise = gaussian_code(moments, True, noise, "softplus").z
    assert torch.equal(model.bottleneck(moments, noise=noise).z, with_noise)
    with pytest.raises(ValueError, match="sample=False"):
        model.bottleneck(moments, sample=False, noise=noise)


def test_the_penalty_is_beta_times_the_mean_rate() -> None:
    rate = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    penalty = Plain(0.5).rate_penalty(rate)
    assert (penalty.shape, penalty.item()) == ((), 1.5)
    (gradient,) = torch.autograd.grad(penalty, rate)
    torch.testing.assert_close(gradient, torch.full((3,), 0.5 / 3))


def test_step_beta_updates_with_the_mean_over_all_examples_since_the_last_step() -> None:
    model, reference = Plain(fast_dual()), fast_dual()
    model.step_beta()  # without a penalty it does nothing
    assert model.beta == reference.beta
    model.rate_penalty(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]))
    model.rate_penalty(torch.tensor([0.0, 0.5, 1.0]))
    assert model.beta == reference.beta
    model.step_beta()
    reference.update(2.95)
    assert model.beta == pytest.approx(reference.beta, rel=1e-12)
    model.step_beta()
    assert model.beta == pytest.approx(reference.beta, rel=1e-12)


def test_a_loop_by_hand_is_the_reference_loop() -> None:
    torch.manual_seed(0)
    model, reference = Plain(fast_dual()), fast_dual()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    x, noise = torch.randn(8, 4), torch.randn(8, 3)
    for _ in range(20):
        rate = gaussian_code(model.encoder(x), False).rate.detach()
        loss = model(x, noise)
        code = gaussian_code(model.encoder(x), True, noise)
        expected = model.head(code.z).square().mean() + reference.beta * code.rate.mean()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.step_beta()
        reference.update(rate.double().mean().item())
        assert model.beta == pytest.approx(reference.beta, rel=1e-12)
    assert reference.beta > 0.02


@pytest.mark.parametrize("mean_given", [False, True])
def test_the_mean_distortion_drives_geco(mean_given: bool) -> None:
    model, reference = Plain(GECO(target_distortion=2.0)), GECO(target_distortion=2.0)
    for distortion in (torch.tensor([1.0, 2.0, 6.0, 3.5]), torch.tensor([4.0])):
        given = distortion.mean() if mean_given else distortion
        model.rate_penalty(torch.ones(len(distortion)), distortion=given.requires_grad_())
    model.step_beta()
    reference.update(1.0, 16.5 / 5)
    assert model.beta == pytest.approx(reference.beta, rel=1e-9)


def test_a_penalty_in_evaluation_does_not_move_beta() -> None:
    model = Plain(fast_dual()).eval()
    assert model.rate_penalty(torch.tensor([5.0])).item() == pytest.approx(0.05)
    model.train()
    before = model.beta
    model.step_beta()
    assert model.beta == before


def test_a_pending_penalty_keeps_no_graph_alive() -> None:
    model = Plain(fast_dual())
    x = torch.randn(2, 4, requires_grad=True)
    hidden = x * 2
    loss = model(hidden)
    alive = weakref.ref(hidden)
    del hidden
    assert alive() is not None  # by the graph of the loss
    del loss
    gc.collect()
    assert alive() is None


def test_a_deterministic_model_pays_no_penalty_and_its_beta_never_moves() -> None:
    model = Plain(fast_dual(), deterministic=True)
    before = model.beta
    moments = torch.randn(3, 8)
    code = model.bottleneck(moments)
    assert torch.equal(code.z, moments[:, :4])
    assert torch.equal(code.rate, torch.zeros(3))
    for rate in (code.rate, torch.full((3,), 100.0)):
        assert torch.equal(model.rate_penalty(rate), torch.zeros(()))
        model.step_beta()
    assert model.beta == before


def test_a_rate_that_is_not_finite_does_not_move_beta_and_is_counted() -> None:
    model = Plain(fast_dual())
    before = model.beta
    for bad in (math.nan, math.inf):
        model.rate_penalty(torch.tensor([1.0, bad]))
        with pytest.warns(UserWarning, match="no rate of an optimizer step of Plain is finite: beta has not moved"):
            model.step_beta()
    assert (model.beta, model.beta_controller.skipped_updates) == (before, 2)
    model.rate_penalty(torch.tensor([5.0]))
    model.step_beta()
    assert model.beta > before


@pytest.mark.filterwarnings("error")
def test_an_adaptive_beta_that_never_steps_warns_once_at_the_hundredth_penalty() -> None:
    model, rate = Plain(fast_dual()), torch.ones(2)
    for _ in range(99):
        model.rate_penalty(rate)
    with pytest.warns(UserWarning, match=r"100 times and beta has not moved.*call step_beta\(\)") as caught:
        model.rate_penalty(rate)
    assert caught[0].filename == __file__
    for _ in range(200):
        model.rate_penalty(rate)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("steps", [False, True])
def test_no_warning_for_a_constant_or_for_a_loop_that_steps(steps: bool) -> None:
    model = Plain(fast_dual() if steps else 0.1)
    for _ in range(250):
        model.rate_penalty(torch.ones(2))
        if steps:
            model.step_beta()


def test_a_model_with_a_pending_penalty_can_be_copied_and_pickled() -> None:
    model, reference = Plain(fast_dual()), fast_dual()
    model(torch.ones(2, 4)).backward()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.beta == reference.beta
        twin.rate_penalty(torch.full((2,), 5.0))
        twin.step_beta()
        assert twin.beta > model.beta == reference.beta


@pytest.mark.parametrize("treat", [nn.Module.half, nn.Module.bfloat16, nn.Module.double])
def test_casting_the_module_does_not_round_beta(treat: Any) -> None:
    model, reference = treat(Plain(fast_dual())), fast_dual()
    for _ in range(3):
        model.rate_penalty(torch.tensor([5.0]))
        model.step_beta()
        reference.update(5.0)
    assert model.beta == reference.beta


# --- torch.compile ----------------------------------------------------------------------------------------------------


def test_a_compiled_step_gives_the_same_numbers_and_is_compiled_once() -> None:
    from torch._dynamo.testing import CompileCounter

    torch.manual_seed(0)
    eager, x, noise = Plain(fast_dual()), torch.randn(6, 4), torch.randn(6, 3)
    compiled = copy.deepcopy(eager)
    counter, frames, betas = CompileCounter(), [], []
    torch._dynamo.reset()
    step = torch.compile(compiled, backend=counter)
    for _ in range(4):
        for model, run in ((eager, eager), (compiled, step)):
            model.zero_grad()
            run(x, noise).backward()
            model.step_beta()
        frames.append(counter.frame_count)
        betas.append(compiled.beta)
        assert compiled.beta == pytest.approx(eager.beta, rel=1e-6)
        for one, other in zip(eager.parameters(), compiled.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad)
    assert len(set(betas)) == 4
    assert frames[0] in (1, 2)
    assert frames == [frames[0]] * 4  # beta moves without recompilation
    torch._dynamo.reset()
