"""A recurrent net on sequences of unequal length, and the same bottleneck inside a module without the mixin."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import LightningModule
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_bottleneck import BottleneckLayer, GaussianBottleneck
from lit_bottleneck.beta import BetaController
from lit_bottleneck.callbacks import WeightEMA
from tests.projects.checks import Trace, assert_logged, assert_resumes, fit, kl_by_hand, quick_dual, traced
from tests.quiet import trainer


class Forecaster(GaussianBottleneck, LightningModule):
    """Forecast the next value of a sequence from a code of each step; batches are of different lengths T."""

    def __init__(self, beta: float | BetaController, width: int = 8, latent_dim: int = 3) -> None:
        super().__init__(beta=beta)
        self.memory = nn.GRU(1, width, batch_first=True)
        self.code, self.head = BottleneckLayer(width, latent_dim), nn.Linear(latent_dim, 1)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        sequences, mask = batch  # (B, T, 1), (B, T)
        states, _ = self.memory(sequences[:, :-1])
        forecasts = self.head(self.code(states, mask[:, 1:]))
        return F.mse_loss(forecasts[mask[:, 1:]], sequences[:, 1:][mask[:, 1:]]) + self.rate_penalty()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.02)


class PricedMemory(GaussianBottleneck, nn.Module):
    """A part of other people's models: a recurrent net with a code of each step, and its price."""

    def __init__(self, beta: float | BetaController, width: int = 8, latent_dim: int = 3) -> None:
        super().__init__(beta=beta, latent_dim=latent_dim)
        self.memory, self.moments = nn.GRU(1, width, batch_first=True), nn.Linear(width, 2 * latent_dim)

    def forward(self, sequences: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        code = self.bottleneck(self.moments(self.memory(sequences)[0]), dim=-1, mask=mask)
        return code.z, self.rate_penalty(code.rate)


class Around(LightningModule):
    """A module without the mixin around a part that has it."""

    def __init__(self, beta: BetaController) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"memory": PricedMemory(beta)})
        self.head = nn.Linear(3, 1)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        sequences, mask = batch
        z, penalty = self.parts["memory"](sequences[:, :-1], mask[:, 1:])
        return F.mse_loss(self.head(z)[mask[:, 1:]], sequences[:, 1:][mask[:, 1:]]) + penalty

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.02)


def collate(sequences: list[Tensor]) -> tuple[Tensor, Tensor]:
    masks = [torch.ones(len(sequence), dtype=torch.bool) for sequence in sequences]
    pad = nn.utils.rnn.pad_sequence
    return pad(sequences, batch_first=True), pad(masks, batch_first=True)


def data() -> DataLoader[Any]:
    """Return sines of 3 to 12 steps; T varies from batch to batch, odd and even."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.arange(40) // 4 + 3
    starts = 6 * torch.rand(40, generator=generator)
    sines = [(start + torch.arange(length)).sin()[:, None] for start, length in zip(starts, lengths, strict=True)]
    return DataLoader(sines, batch_size=5, collate_fn=collate)  # type: ignore[arg-type]


class Masks:
    """The rate of a code of each step, where the mask is known to an outer module only."""

    def __init__(self, module: nn.Module) -> None:
        self.mask = torch.ones(0)
        module.register_forward_pre_hook(self.note)

    def note(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.mask = inputs[1]

    def rate(self, moments: Tensor, *_: Tensor) -> Tensor:
        return (kl_by_hand(moments, -1).sum(-1) * self.mask).sum(1)


def test_a_layer_codes_each_step_and_beta_follows_the_sum(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Forecaster(quick_dual())

    def rate(z: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        moments = F.linear(states, module.code.moments.weight, module.code.moments.bias)
        return (kl_by_hand(moments, -1).sum(-1) * mask).sum(1)

    with traced(module.code, module, rate) as trace:
        run, logged = fit(module, data(), tmp_path, max_epochs=3)
    trace.assert_follows(quick_dual(), updates=24)
    assert run.global_step == 24
    assert_logged(logged, trace, beta=0.01)


def trained_around(folder: Path, **kwargs: Any) -> tuple[Around, Trace, Any]:
    torch.manual_seed(0)
    module = Around(quick_dual())
    part = module.parts["memory"]
    with traced(part.moments, part, Masks(part).rate) as trace:
        _, logged = fit(module, data(), folder, **kwargs)
    return module, trace, logged


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_nested_price_moves_and_is_logged_by_its_path(accumulate: int, tmp_path: Path) -> None:
    _, trace, logged = trained_around(tmp_path, max_epochs=3, accumulate_grad_batches=accumulate)
    updates = 3 * (8 if accumulate == 1 else 3)  # of eight batches the last two are a step, too
    trace.assert_follows(quick_dual(), updates)
    assert_logged(logged, trace, beta=0.01, suffix="/parts.memory")
    assert "train/beta" not in logged


@pytest.mark.parametrize("averaging", [WeightEMA(0.5), EMAWeightAveraging(decay=0.5)], ids=["WeightEMA", "Lightning's"])
def test_a_checkpoint_of_averaged_weights_holds_the_live_nested_beta(averaging: Callback, tmp_path: Path) -> None:
    callbacks = [averaging, ModelCheckpoint(tmp_path, filename="last")]
    module, trace, _ = trained_around(tmp_path, enable_checkpointing=True, callbacks=callbacks)
    loaded = Around(quick_dual())
    loaded.load_state_dict(torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"])
    assert loaded.parts["memory"].beta == module.parts["memory"].beta == trace.betas[-1] != 0.01


def test_resuming_continues_to_the_last_bit(tmp_path: Path) -> None:
    assert_resumes(lambda: Forecaster(quick_dual()), data(), tmp_path, "beta_controller._extra_state")
    nested = "parts.memory.beta_controller._extra_state"
    assert_resumes(lambda: Around(quick_dual()), data(), tmp_path, nested)


def test_evaluation_of_a_module_around_moves_no_beta() -> None:
    class Tested(Around):
        def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
            self.log("test/loss", self.training_step(batch, batch_idx))

    module = Tested(quick_dual())
    trainer().test(module, data(), verbose=False)
    assert module.parts["memory"].beta == quick_dual().beta
