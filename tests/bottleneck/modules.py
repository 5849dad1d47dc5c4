"""Small modules with a bottleneck, in loops by hand and under a trainer, and a check of their betas."""

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_bottleneck import GaussianBottleneck
from lit_bottleneck.beta import BetaController, DualBeta


def fast_dual(**kwargs: Any) -> DualBeta:
    return DualBeta(**{"capacity": 0.3, "gain": 0.05, "ema": 0.5, "beta_init": 0.01, "max_error": 100.0} | kwargs)


class Noted(BetaController):
    """A controller that notes the mean rates of its updates."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []

    @property
    def beta(self) -> float:
        return 0.1

    def advance(self, mean_rate: float, mean_distortion: float | None) -> None:
        self.rates.append(mean_rate)


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
