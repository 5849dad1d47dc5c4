"""The mixin under a trainer: updates, skipped steps, logs, checkpoints."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn

from lit_bottleneck.beta import BetaController, DualBeta, ScheduledBeta
from tests.bottleneck.modules import Regressor, assert_follows, fast_dual, loader
from tests.quiet import trainer

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


def test_an_optimizer_that_the_trainer_does_not_know_moves_beta_too() -> None:
    class Hidden(Regressor):
        def __init__(self, beta: BetaController) -> None:
            super().__init__(beta)
            self.automatic_optimization = False
            self.hidden = [torch.optim.Adam(self.parameters(), lr=0.02)]
            self.steps = 0

        def loss(self, x: Tensor) -> Tensor:
            loss = super().loss(x)
            self.notes[-1] = (self.steps, *self.notes[-1][1:])
            return loss

        def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
            self.manual_backward(self.loss(batch[0]))
            self.hidden[0].step()
            self.steps += 1

        def configure_optimizers(self) -> None:
            return None

    module = Hidden(fast_dual())
    trainer().fit(module, loader())
    assert_follows(module, fast_dual(), 16)


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
    reference.set_extra_state(module.beta_controller.get_extra_state())
    reference.skipped_updates = 0
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
    assert torch.equal(resumed.beta_controller.get_extra_state(), straight.beta_controller.get_extra_state())
    for one, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("stored", "loading"), [(fast_dual, lambda: 0.1), (lambda: 0.1, fast_dual)])
def test_a_checkpoint_of_another_controller_is_a_warning(stored: Any, loading: Any, tmp_path: Path) -> None:
    run = trainer(max_steps=1)
    run.fit(Regressor(stored()), loader())
    run.save_checkpoint(tmp_path / "one.ckpt")
    module = Regressor(loading())
    with pytest.warns(UserWarning, match="the checkpoint holds"):
        trainer(max_epochs=2).fit(module, loader(), ckpt_path=tmp_path / "one.ckpt", weights_only=True)
    assert module.prices[0] == Regressor(loading()).beta


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
    assert torch.equal(checkpoint["state_dict"]["beta_controller._extra_state"], live.state)
    assert not torch.equal(checkpoint["state_dict"]["head.weight"], live.weight)  # these are averaged
    assert ("mine" in checkpoint) == (kind is KeepOwnHook)
    assert_follows(module, fast_dual(), 16)  # the end of training leaves beta alone


def test_a_constant_beta_is_not_in_the_state_dict() -> None:
    assert not [name for name in Regressor(0.1).state_dict() if "beta" in name]
    assert [name for name in Regressor(fast_dual()).state_dict() if "beta" in name] == ["beta_controller._extra_state"]
