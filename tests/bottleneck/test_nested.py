"""Bottlenecks inside other modules under a trainer: moved, logged by their path, stored live, warned of."""

import copy
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_bottleneck import BottleneckLayer, GaussianBottleneck
from lit_bottleneck.beta import BetaController, DualBeta
from lit_bottleneck.bottleneck.trainer import callbacks_of_trainers
from lit_bottleneck.callbacks import NestedPrices, WeightEMA
from tests.bottleneck.modules import Regressor, loader
from tests.distributed.pool import Pool
from tests.quiet import trainer


def dual(capacity: float = 0.3) -> DualBeta:
    return DualBeta(capacity, gain=0.05, ema=0.5, beta_init=0.01)


class Priced(GaussianBottleneck, nn.Module):
    def __init__(self, beta: BetaController) -> None:
        super().__init__(beta=beta)
        self.encoder = nn.Linear(4, 6)
        self.rates: list[Tensor] = []

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code = self.bottleneck(self.encoder(x), noise=torch.sin(9 * x[:, :3]))
        self.rates.append(code.rate.detach().double())
        return code.z, self.rate_penalty(code.rate)


class Around(LightningModule):
    """A plain module around a bottleneck."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.parts = nn.ModuleDict({"priced": Priced(dual())})
        self.head = nn.Linear(3, 1)

    @property
    def priced(self) -> Any:
        return self.parts["priced"]

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        z, penalty = self.priced(batch[0])
        return (self.head(z) - batch[0][:, :1]).square().mean() + penalty

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.02)


class Outer(Regressor):
    """A bottleneck around a bottleneck."""

    def __init__(self) -> None:
        super().__init__(dual(capacity=2.0))
        self.parts = nn.ModuleDict({"priced": Priced(dual())})

    @property
    def priced(self) -> Any:
        return self.parts["priced"]

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        z, penalty = self.priced(batch[0])
        return self.loss(batch[0]) + z.square().mean() + penalty


def expected_beta(module: Priced, window: int = 1) -> float:
    reference = dual()
    for index in range(0, len(module.rates), window):
        reference.update(torch.cat(module.rates[index : index + window]).mean().item())
    return reference.beta


class Part(Priced, LightningModule):  # type: ignore[misc]
    """A LightningModule itself, which Lightning tells nothing of its trainer inside a container."""


class Parts(Around):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"priced": Part(dual())})


@pytest.mark.parametrize("kind", [Around, Outer, Parts])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_bottleneck_inside_moves_and_is_logged_by_its_path(kind: Any, accumulate: int) -> None:
    module = kind()
    run = trainer(accumulate_grad_batches=accumulate)
    run.fit(module, loader())
    assert module.priced.beta == pytest.approx(expected_beta(module.priced, accumulate), rel=1e-9)
    assert module.priced.beta != dual().beta
    last = torch.cat(module.priced.rates[-accumulate:]).mean().item()
    assert run.callback_metrics["train/rate/parts.priced"].item() == pytest.approx(last)
    assert "train/beta/parts.priced" in run.callback_metrics
    assert ("train/beta" in run.callback_metrics) == (kind is Outer)


@pytest.mark.parametrize("kind", [Around, Outer, Parts])
@pytest.mark.parametrize("averaging", [lambda: WeightEMA(0.9), lambda: EMAWeightAveraging(use_buffers=True, decay=0.9)])
def test_a_checkpoint_under_weight_averaging_has_the_live_beta(kind: Any, averaging: Any, tmp_path: Path) -> None:
    class Live(Callback):
        def __init__(self) -> None:
            self.betas: dict[int, float] = {}

        def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
            self.betas[trainer.global_step] = module.priced.beta

    module, live = kind(), Live()
    saving = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=8, save_top_k=-1, filename="{step}")
    trainer(callbacks=[averaging(), live, saving], enable_checkpointing=True).fit(module, loader())
    loaded = kind.load_from_checkpoint(tmp_path / "step=8.ckpt", weights_only=True)
    assert loaded.priced.beta == live.betas[8] != dual().beta


def test_a_resumed_training_goes_on_with_the_beta_inside(tmp_path: Path) -> None:
    straight, half, resumed = Around(), Around(), Around()
    trainer(max_epochs=2).fit(straight, loader())
    run = trainer(max_epochs=1)
    run.fit(half, loader())
    run.save_checkpoint(tmp_path / "half.ckpt")
    trainer(max_epochs=2).fit(resumed, loader(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert resumed.priced.beta == straight.priced.beta != half.priced.beta


def test_each_new_trainer_has_the_callback_by_itself() -> None:
    [found] = entry_points(group="lightning.pytorch.callbacks_factory", name="lit_bottleneck")
    assert found.load() is callbacks_of_trainers
    assert [type(callback) for callback in callbacks_of_trainers()] == [NestedPrices]


@pytest.mark.parametrize("hook", ["on_train_end", "on_fit_end", "on_train_epoch_end"])
def test_a_step_outside_of_a_batch_moves_beta_and_logs_nothing(hook: str) -> None:
    class Late(Around):
        def late(self) -> None:
            before = self.priced.beta
            self.priced(torch.randn(5, 4))[1].backward()
            self.trainer.optimizers[0].step()
            assert self.priced.beta != before

    setattr(Late, hook, Late.late)
    trainer(log_every_n_steps=1).fit(Late(), loader())


# --- prices that nobody pays ------------------------------------------------------------------------------------------


class Free(Priced):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.bottleneck(self.encoder(x)).z, torch.zeros(())


def test_a_price_that_is_never_paid_is_a_warning_at_the_end_of_the_first_epoch() -> None:
    module = Around()
    module.parts["priced"] = Free(dual())
    with pytest.warns(UserWarning, match="Free has not called rate_penalty in the first epoch") as caught:
        trainer(max_epochs=3).fit(module, loader())
    assert len([warning for warning in caught if "has not called" in str(warning.message)]) == 1


def test_one_of_several_prices_that_is_never_paid_is_named() -> None:
    class Forgetful(GaussianBottleneck, LightningModule):
        def __init__(self) -> None:
            super().__init__(beta={"shared": 0.1, "private": dual()})
            self.encoder = nn.Linear(4, 6)

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            code = self.bottleneck(self.encoder(batch[0]))
            return code.z.square().mean() + self.rate_penalty(code.rate, name="shared")

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=0.02)

    with pytest.warns(UserWarning, match=r"has not called rate_penalty\(rate, name='private'\) in the first epoch"):
        trainer().fit(Forgetful(), loader())


def test_a_layer_inside_a_trained_module_is_named_by_its_path() -> None:
    class Silent(Around):
        def __init__(self) -> None:
            super().__init__()
            self.parts["net"] = nn.Sequential(nn.Linear(4, 4), BottleneckLayer(4, 3))

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return super().training_step(batch, batch_idx) + self.parts["net"](batch[0]).square().mean()

    with pytest.warns(UserWarning, match="BottleneckLayer parts.net.1 has a rate that nothing priced"):
        trainer().fit(Silent(), loader())


# --- two processes ----------------------------------------------------------------------------------------------------


class Several(Around):
    """A nested price, two named ones, of which one is paid in some batches only, and one of a price without weights."""

    def __init__(self) -> None:
        super().__init__()
        self.parts["two"] = Named(beta={"always": dual(7.0), "sometimes": dual(8.0)})
        self.parts["bare"] = Bare(beta=dual(9.0))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss, x = super().training_step(batch, batch_idx), batch[0]
        step = batch_idx // self.trainer.accumulate_grad_batches
        return loss + self.parts["two"](x, step) + self.parts["bare"](self.priced.encoder(x))

    def betas(self) -> list[float]:
        return [self.priced.beta, *self.parts["two"].beta.values(), self.parts["bare"].beta]


class Named(GaussianBottleneck, nn.Module):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.encoder = nn.Linear(4, 6)

    def forward(self, x: Tensor, index: int) -> Tensor:
        rate = self.bottleneck(self.encoder(x), noise=torch.sin(9 * x[:, :3])).rate
        pays = x[:, 0] > 0  # this process may have none
        penalty: Tensor = self.rate_penalty(rate, name="always")
        if index % 3 and pays.any():
            penalty = penalty + self.rate_penalty(rate[pays], name="sometimes")
        return penalty


class Bare(GaussianBottleneck, nn.Module):
    def forward(self, moments: Tensor) -> Tensor:
        penalty: Tensor = self.rate_penalty(self.bottleneck(moments).rate)
        return penalty


def betas_on(rank: int, processes: int, accumulate: int) -> list[float]:
    """Train without changing weights, so that rates are the same; return the betas."""
    torch.manual_seed(0)
    module = Several()
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.0)  # type: ignore[method-assign]
    x = 3 * torch.randn(16, 8, 4, generator=torch.Generator().manual_seed(1))
    x[5, :4, 0], x[5, 4:, 0] = 1.0, -1.0  # the second process pays nothing here ...
    x[7, :4, 0], x[7, 4:, 0] = -1.0, 1.0  # ... and here the first
    rows = x.view(16, processes, 8 // processes, 4)[:, rank].reshape(-1, 4)
    run = trainer(
        devices=processes,
        strategy="auto" if processes == 1 else "ddp_find_unused_parameters_true",
        use_distributed_sampler=False,
        accumulate_grad_batches=accumulate,
    )
    run.fit(module, DataLoader(TensorDataset(rows), batch_size=8 // processes // accumulate))
    return module.betas()


class Uneven(GaussianBottleneck, nn.Module):
    """Has an encoder, behind a backbone that another optimizer trains; only the first process pays."""

    def __init__(self) -> None:
        super().__init__(beta=dual())
        self.encoder = nn.Linear(4, 6)


def uneven_beta(rank: int) -> float:
    torch.manual_seed(0)
    module, backbone = Uneven(), nn.Linear(4, 4)
    copies = [copy.deepcopy(Bare(beta=dual())) for _ in range(2 - rank)]  # more of them here than there
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.01) for part in (backbone, module)]
    for index in range(4):
        code = module.bottleneck(module.encoder(backbone(torch.ones(3, 4))))
        penalty = module.rate_penalty(code.rate) if rank == 0 or index % 2 else 0.0
        (code.z.sum() + penalty).backward()
        for optimizer in optimizers:
            optimizer.step()
    assert len(copies) == 2 - rank
    return module.beta


def test_no_process_waits_for_a_price_that_it_did_not_pay(pool: Pool) -> None:
    first, second = pool(uneven_beta)
    assert first == second != dual().beta


def test_two_processes_and_accumulated_halves_move_all_prices_as_one_to_the_last_bit(pool: Pool) -> None:
    whole = betas_on(0, 1, 1)
    assert pool(betas_on, 2, 1) == [whole, whole]
    assert betas_on(0, 1, 2) == whole
    assert len({*whole, dual().beta}) == 5
