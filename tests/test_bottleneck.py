"""The mixin and the drop-in layer, in loops by hand and under a trainer."""

import copy
import gc
import itertools
import math
import pickle
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_bottleneck import BottleneckLayer, GaussianBottleneck
from lit_bottleneck.beta import GECO, BetaController, ConstantBeta, DualBeta, ScheduledBeta
from lit_bottleneck.code import gaussian_code
from tests.quiet import trainer

RESERVED = ["beta", "beta_controller", "bottleneck", "deterministic", "rate_penalty", "step_beta"]


def fast_dual(**kwargs: Any) -> DualBeta:
    return DualBeta(**{"capacity": 0.3, "gain": 0.05, "ema": 0.5, "beta_init": 0.01, "max_error": 100.0} | kwargs)


class Plain(GaussianBottleneck, nn.Module):
    def __init__(self, beta: float | BetaController, **kwargs: Any) -> None:
        super().__init__(beta=beta, **kwargs)
        self.encoder, self.head = nn.Linear(4, 6), nn.Linear(3, 1)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        code = self.bottleneck(self.encoder(x), noise=noise)
        return self.head(code.z).square().mean() + self.rate_penalty(code.rate)


class Regressor(GaussianBottleneck, LightningModule):
    """Notes optimizer step, rates and beta of each penalty; its noise is a function of x.

    The gradient overflows in the batches ``spoiled``.
    """

    spoiled: tuple[int, ...] = ()

    def __init__(self, beta: float | BetaController, **kwargs: Any) -> None:
        super().__init__(beta=beta, **kwargs)
        torch.manual_seed(0)
        self.encoder, self.head = nn.Linear(4, 6), nn.Linear(3, 1)
        self.notes: list[tuple[int, Tensor, float]] = []

    def loss(self, x: Tensor) -> Tensor:
        code = self.bottleneck(self.encoder(x), noise=torch.sin(9 * x[:, :3]))
        self.notes.append((self.trainer.global_step, code.rate.detach().double(), self.beta))
        return F.mse_loss(self.head(code.z), x[:, :1]) + self.rate_penalty(code.rate)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
        return self.spoil(self.loss(batch[0]), batch_idx)

    def spoil(self, loss: Tensor, batch_idx: int) -> Tensor:
        return loss * math.inf if batch_idx in self.spoiled else loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.02)

    @property
    def prices(self) -> list[float]:
        return [price for _, _, price in self.notes]

    def windows(self) -> list[list[Tensor]]:
        groups = itertools.groupby(self.notes, key=lambda note: note[0])
        return [[rate for _, rate, _ in notes] for _, notes in groups]


def loader(batches: int = 16, size: int = 5) -> DataLoader:
    """Return batches of ``size``, the last one smaller."""
    x = 3 * torch.randn(batches * size - size // 2, 4, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x), batch_size=size)


def assert_follows(module: Regressor, reference: BetaController, updates: int, skip: tuple[int, ...] = ()) -> None:
    """Assert that beta follows ``reference``, updated once per optimizer step with the mean rate of its examples."""
    expected, done = [], 0
    for index, rates in enumerate(module.windows()):
        expected += [reference.beta] * len(rates)
        if index not in skip:
            reference.update(torch.cat(rates).mean().item())
            done += 1
    assert done == updates
    assert len({*expected, reference.beta}) > updates / 2  # it did move
    assert module.prices == pytest.approx(expected, rel=1e-9)
    assert module.beta == pytest.approx(reference.beta, rel=1e-9)


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


@pytest.mark.parametrize("name", [*RESERVED, "_remember", "_layers", "logs_this_step"])
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
        with pytest.warns(UserWarning, match=f"mean rate of an optimizer step of Plain is {bad}.*beta has not moved"):
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


def test_step_beta_drops_rates_that_were_not_picked_up() -> None:
    model = Stacked(fast_dual())
    model.first(torch.randn(5, 4))
    model.rate_penalty(torch.ones(5))
    model.step_beta()
    assert not model.first.has_rate


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


@pytest.mark.filterwarnings("error")
def test_a_rate_that_is_never_picked_up_warns_and_is_dropped() -> None:
    layer, x = BottleneckLayer(4, 3), torch.randn(2, 4)
    for _ in range(100):
        layer(x)
    with pytest.warns(UserWarning, match="nothing picks up the rate"):
        layer(x)
    assert not layer.has_rate


def test_the_layer_refuses_other_shapes_and_scales() -> None:
    with pytest.raises(ValueError, match=r"\(B, 4\); got \(2, 3, 4\)"):
        BottleneckLayer(4, 3)(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match="scale must be"):
        BottleneckLayer(4, 3, scale="sigmoid")  # type: ignore[arg-type]


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


# --- under a trainer: one update per optimizer step -------------------------------------------------------------------


class WithOptimizerSubclass(Regressor):
    def configure_optimizers(self) -> Any:
        class Twice(torch.optim.Adam):
            def step(self, closure: Any = None) -> Any:
                return super().step(closure)

        return Twice(self.parameters(), lr=0.02)


class WithLBFGS(Regressor):
    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=5)


class WithScheduler(Regressor):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.02, fused=True)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class WithOwnHooks(Regressor):
    """Overrides hooks of Lightning without ``super()``."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        optimizer.step(closure=optimizer_closure)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        optimizer.zero_grad()

    def nothing(self, *args: Any) -> None:
        pass

    on_before_zero_grad = on_before_optimizer_step = on_train_batch_start = on_train_batch_end = nothing
    on_fit_start = on_train_start = nothing


class Adversarial(Regressor):
    """Two optimizers in manual optimization; the first pays the penalty, the second sees the mean code."""

    def __init__(self, beta: float | BetaController, **kwargs: Any) -> None:
        super().__init__(beta, **kwargs)
        self.automatic_optimization = False
        self.generator = nn.Linear(4, 4)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        first, second = self.optimizers()
        loss = self.spoil(self.loss(self.generator(batch[0]).detach() + batch[0]), batch_idx)
        first.zero_grad()
        self.manual_backward(loss)
        first.step()
        self.toggle_optimizer(second)
        judged = self.head(self.bottleneck(self.encoder(self.generator(batch[0])), sample=False).z)
        second.zero_grad()
        self.manual_backward(judged.mean())
        second.step()
        self.untoggle_optimizer(second)

    def configure_optimizers(self) -> Any:
        own = [*self.encoder.parameters(), *self.head.parameters()]
        return [torch.optim.Adam(own, lr=0.02), torch.optim.Adam(self.generator.parameters(), lr=0.02)]


@pytest.mark.parametrize(
    ("kind", "settings", "updates"),
    [
        (Regressor, {}, 16),
        (Regressor, {"accumulate_grad_batches": 4}, 4),
        (Regressor, {"accumulate_grad_batches": 5}, 4),  # the last window is a single batch
        (Regressor, {"gradient_clip_val": 0.1}, 16),
        (Regressor, {"gradient_clip_val": 0.1, "accumulate_grad_batches": 4}, 4),
        (Regressor, {"precision": "bf16-mixed"}, 16),
        (Regressor, {"precision": "bf16-true"}, 16),
        (Regressor, {"log_every_n_steps": 1}, 16),
        (WithLBFGS, {}, 16),
        (WithOptimizerSubclass, {}, 16),
        (WithScheduler, {}, 16),
        (WithOwnHooks, {}, 16),
        (WithOwnHooks, {"accumulate_grad_batches": 4}, 4),
        (Adversarial, {}, 16),
    ],
)
def test_beta_moves_once_per_optimizer_step(kind: type[Regressor], settings: dict[str, Any], updates: int) -> None:
    module = kind(fast_dual())
    trainer(**settings).fit(module, loader())
    assert_follows(module, fast_dual(), updates)
    if kind is WithLBFGS:
        assert len(module.notes) > 16  # several closures a step, with one beta
    if kind is Adversarial:
        assert module.trainer.global_step == 32


def test_the_beta_of_a_deterministic_module_never_moves_under_a_trainer() -> None:
    module = Regressor(fast_dual(), deterministic=True)
    trainer().fit(module, loader())
    assert module.beta == fast_dual().beta
    assert torch.cat([rate for _, rate, _ in module.notes]).abs().max() == 0


def test_validation_does_not_move_beta() -> None:
    class Validated(Regressor):
        def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
            code = self.bottleneck(self.encoder(batch[0]))
            assert torch.equal(code.z, code.mean)
            self.rate_penalty(1000 * code.rate)

    module = Validated(fast_dual())
    trainer(val_check_interval=4).fit(module, loader(), loader())
    assert_follows(module, fast_dual(), 16)


@pytest.mark.parametrize("same_optimizer", [False, True])
def test_a_second_fit_continues_with_the_beta_of_the_first(same_optimizer: bool) -> None:
    class Again(Regressor):
        def configure_optimizers(self) -> Any:
            if not same_optimizer or not hasattr(self, "kept"):
                self.kept = torch.optim.Adam(self.parameters(), lr=0.02)
            return self.kept

    module = Again(fast_dual())
    trainer().fit(module, loader())
    trainer().fit(module, loader())
    assert_follows(module, fast_dual(), 32)


def test_a_module_can_be_trained_by_hand_after_a_trainer() -> None:
    module, reference = Regressor(fast_dual()), fast_dual()
    trainer().fit(module, loader())
    reference.set_extra_state(module.beta_controller.get_extra_state())
    for rate in (0.1, 9.0):
        module.rate_penalty(torch.tensor([rate], dtype=torch.float64))
        module.step_beta()
        reference.update(rate)
    assert module.beta == pytest.approx(reference.beta, rel=1e-12)


def test_modules_do_not_move_one_another() -> None:
    one, other = Regressor(fast_dual()), Regressor(fast_dual(capacity=50.0))
    trainer().fit(one, loader())
    settled = one.beta
    trainer().fit(other, loader())
    assert one.beta == settled
    assert_follows(one, fast_dual(), 16)
    assert_follows(other, fast_dual(capacity=50.0), 16)


class Pair(LightningModule):
    """Contains two bottlenecks, one of which is used in every other batch only."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = Regressor(fast_dual()), Regressor(fast_dual(capacity=50.0))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = self.one.loss(batch[0])
        return loss + self.other.loss(batch[0]) if batch_idx % 2 else loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.02)


def test_two_bottlenecks_inside_one_module_each_move_when_they_are_used() -> None:
    pair = Pair()
    trainer().fit(pair, loader())
    assert_follows(pair.one, fast_dual(), 16)
    assert_follows(pair.other, fast_dual(capacity=50.0), 8)


@pytest.mark.filterwarnings("error:.*beta has not moved")
@pytest.mark.parametrize("kind", [Regressor, WithLBFGS, Adversarial])
def test_the_trainer_never_warns_that_beta_does_not_move(kind: type[Regressor]) -> None:
    module = kind(fast_dual())
    if kind is WithLBFGS:  # one step may well compute more than a hundred penalties
        module.configure_optimizers = lambda: torch.optim.LBFGS(  # type: ignore[method-assign]
            module.parameters(), lr=1e-3, max_iter=150, tolerance_grad=0.0, tolerance_change=0.0
        )
    trainer().fit(module, loader(batches=2 if kind is WithLBFGS else 110, size=2))


def test_an_optimizer_that_the_trainer_does_not_know_is_a_warning() -> None:
    class Hidden(Regressor):
        def __init__(self, beta: BetaController) -> None:
            super().__init__(beta)
            self.automatic_optimization = False
            self.hidden = [torch.optim.Adam(self.parameters(), lr=0.02)]

        def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
            loss = self.loss(batch[0])
            self.manual_backward(loss)
            self.hidden[0].step()

        def configure_optimizers(self) -> None:
            return None

    with pytest.warns(UserWarning, match=r"call step_beta\(\) after each optimizer step"):
        trainer().fit(Hidden(fast_dual()), loader(batches=101, size=2))


# --- steps that do not happen -----------------------------------------------------------------------------------------


def scaled(**kwargs: Any) -> Trainer:
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    return trainer(plugins=[MixedPrecision("16-mixed", "cpu", scaler=scaler)], **kwargs)


@pytest.mark.parametrize("kind", [Regressor, WithScheduler, Adversarial])
def test_a_step_that_a_gradient_scaler_skips_does_not_move_beta_and_is_counted(kind: type[Regressor]) -> None:
    module = kind(fast_dual())
    module.spoiled = (2, 5, 6)
    scaled().fit(module, loader())
    assert all(parameter.isfinite().all() for parameter in module.parameters())  # they were skipped
    assert_follows(module, fast_dual(), updates=13, skip=(2, 5, 6))
    assert module.beta_controller.skipped_updates == 3


@pytest.mark.parametrize("kind", [Regressor, WithScheduler])
def test_a_skipped_window_of_accumulated_batches_is_forgotten_as_a_whole(kind: type[Regressor]) -> None:
    module = kind(fast_dual())
    module.spoiled = (2, 5, 6)
    scaled(accumulate_grad_batches=4).fit(module, loader())
    assert_follows(module, fast_dual(), updates=2, skip=(0, 1))
    assert module.beta_controller.skipped_updates == 2


@pytest.mark.parametrize("kind", [Regressor, WithScheduler])
@pytest.mark.parametrize("batches", [1, 4])
def test_a_skipped_last_step_does_not_leak_into_the_next_fit(kind: type[Regressor], batches: int) -> None:
    module, reference = kind(fast_dual()), fast_dual()
    module.spoiled = (batches - 1,)
    scaled().fit(module, loader(batches))
    settled, module.spoiled, module.notes = module.beta, (), []
    reference.set_extra_state({**module.beta_controller.get_extra_state(), "skipped_updates": 0})
    trainer().fit(module, loader(2))
    assert module.prices[0] == settled
    assert_follows(module, reference, updates=2)
    assert module.beta_controller.skipped_updates == 1


# --- logs -------------------------------------------------------------------------------------------------------------


class Notebook(Logger):
    """A logger that keeps its metrics."""

    name, version = "notebook", 0

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, float]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.lines.append(dict(metrics))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    def written(self, name: str) -> list[float]:
        return [metrics[name] for metrics in self.lines if name in metrics]


@pytest.mark.parametrize(
    ("kind", "beta", "every", "accumulate"),
    [(Regressor, fast_dual, *steps) for steps in ((1, 1), (5, 1), (100, 1), (2, 4))]
    + [(Adversarial, fast_dual, 1, 1), (Adversarial, fast_dual, 5, 1), (Regressor, lambda: 0.05, 5, 1)],
)
def test_rate_and_beta_are_logged_in_the_steps_that_the_logger_writes(
    kind: Any, beta: Any, every: int, accumulate: int
) -> None:
    """Under accumulation once a step, with the mean rate of its batches."""
    module, notebook = kind(beta()), Notebook()
    run = trainer(logger=notebook, log_every_n_steps=every, accumulate_grad_batches=accumulate)
    run.fit(module, loader())
    means = [torch.cat(rates).mean().item() for rates in module.windows()]
    prices = module.prices[::accumulate]
    steps = range(every - 1, len(means), every)
    assert notebook.written("train/rate") == pytest.approx([means[step] for step in steps], rel=1e-5)
    assert notebook.written("train/beta") == pytest.approx([prices[step] for step in steps], rel=1e-5)
    # Callbacks see the last batch of an epoch, with the beta that it was trained at.
    assert run.callback_metrics["train/rate"].item() == pytest.approx(means[-1], rel=1e-5)
    assert run.callback_metrics["train/beta"].item() == pytest.approx(prices[-1], rel=1e-5)


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "beta",
    [
        fast_dual,
        lambda: fast_dual(kp=0.3),
        lambda: DualBeta.paper(capacity=0.3, gain=0.01),
        lambda: ScheduledBeta(0.1, warmup_steps=24),
    ],
    ids=["log", "pi", "paper", "scheduled"],
)
def test_resuming_continues_the_trajectory_exactly(beta: Any, tmp_path: Path) -> None:
    straight = Regressor(beta())
    trainer(max_epochs=2).fit(straight, loader())
    half = Regressor(beta())
    run = trainer(max_epochs=1)
    run.fit(half, loader())
    run.save_checkpoint(tmp_path / "half.ckpt")
    resumed = Regressor(beta())
    trainer(max_epochs=2).fit(resumed, loader(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert half.prices + resumed.prices == straight.prices
    assert resumed.beta_controller.get_extra_state() == straight.beta_controller.get_extra_state()
    for one, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("stored", "loading"), [(fast_dual, lambda: 0.1), (lambda: 0.1, fast_dual)])
def test_a_checkpoint_of_another_controller_is_refused(stored: Any, loading: Any, tmp_path: Path) -> None:
    run = trainer(max_steps=1)
    run.fit(Regressor(stored()), loader())
    run.save_checkpoint(tmp_path / "one.ckpt")
    with pytest.raises(RuntimeError, match=r"beta_controller._extra_state"):
        trainer(max_epochs=2).fit(Regressor(loading()), loader(), ckpt_path=tmp_path / "one.ckpt", weights_only=True)


class KeepOwnHook(Regressor):
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["mine"] = 1


@pytest.mark.parametrize("kind", [Regressor, KeepOwnHook])
def test_weight_averaging_keeps_the_live_beta(kind: type[Regressor], tmp_path: Path) -> None:
    class Live(Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
            if trainer.global_step == 8:
                self.state = module.beta_controller.get_extra_state()
                self.weight = module.head.weight.detach().clone()

    module, live = kind(fast_dual()), Live()
    averaging = EMAWeightAveraging(use_buffers=False, decay=0.9)
    saving = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=8, save_top_k=-1, filename="{step}")
    trainer(callbacks=[averaging, live, saving], enable_checkpointing=True).fit(module, loader())
    checkpoint = torch.load(tmp_path / "step=8.ckpt", weights_only=True)
    assert checkpoint["state_dict"]["beta_controller._extra_state"] == live.state
    assert not torch.equal(checkpoint["state_dict"]["head.weight"], live.weight)  # these are averaged
    assert ("mine" in checkpoint) == (kind is KeepOwnHook)
    assert_follows(module, fast_dual(), 16)  # the end of training leaves beta alone


def test_a_constant_beta_is_not_in_the_state_dict() -> None:
    assert not [name for name in Regressor(0.1).state_dict() if "beta" in name]
    assert [name for name in Regressor(fast_dual()).state_dict() if "beta" in name] == ["beta_controller._extra_state"]


def test_training_forgets_the_rate_of_the_last_evaluation() -> None:
    layer = BottleneckLayer(3, 2).eval()
    layer(torch.randn(7, 3))
    layer.train()(torch.randn(3, 3))
    assert layer.take_rate().shape == (3,)
