"""Small trainings whose every random draw matters, and an exact comparison of their ends."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lit_bottleneck import VAE, VDBGAN, VIBClassifier
from lit_bottleneck.beta import DualBeta
from lit_bottleneck.networks import MLP, MLPDecoder
from tests import quiet

ROWS, FEATURES, CLASSES = 44, 6, 3  # eleven batches of four


class Rows(Dataset[tuple[Tensor, Tensor]]):
    """Rows with noise from every global generator: torch, numpy and Python."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(FEATURES, generator=torch.Generator().manual_seed(row))
        noise = 0.1 * (torch.randn(FEATURES) + float(np.random.randn()) + random.gauss(0, 1))
        return (x + noise).sigmoid(), torch.tensor(row % CLASSES)


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """Rows without a length, so that Lightning reads one batch ahead."""

    def __iter__(self) -> Any:
        x = torch.rand(ROWS, FEATURES, generator=torch.Generator().manual_seed(0))
        return ((x[row], torch.tensor(row % CLASSES)) for row in torch.randperm(ROWS).tolist())


class Data(LightningDataModule):
    def __init__(self, workers: int = 0, stream: bool = False, own_generator: bool = False) -> None:
        super().__init__()
        self.workers, self.stream, self.own_generator = workers, stream, own_generator

    def train_dataloader(self) -> DataLoader[Any]:
        if self.stream:
            return DataLoader(Stream(), batch_size=4)
        generator = torch.Generator().manual_seed(3) if self.own_generator else None
        return DataLoader(Rows(), 4, shuffle=True, num_workers=self.workers, generator=generator)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Rows(), 22)


def vib(**kwargs: Any) -> VIBClassifier:
    beta = DualBeta(capacity=0.5, ema=0.5)
    return VIBClassifier(MLP(FEATURES, [8], 8), latent_dim=4, num_classes=CLASSES, beta=beta, **kwargs)


def vae() -> VAE:
    networks = nn.Sequential(MLP(FEATURES, [8], 8), nn.Dropout(0.0)), MLP(4, [8], FEATURES)
    return VAE(*networks, latent_dim=4, likelihood="gaussian", beta=DualBeta(capacity=0.5, ema=0.5))


def gan(**kwargs: Any) -> VDBGAN:
    networks = MLPDecoder(4, [8], [FEATURES]), MLP(FEATURES, [8], 8)
    kwargs = {"gradient_penalty": 0.5, "discriminator_steps": 2, "beta": DualBeta(capacity=0.05, ema=0.5)} | kwargs
    return VDBGAN(*networks, latent_dim=4, noise_dim=4, **kwargs)


class Keep(Callback):
    """Record the training batches and the logged metrics; with a folder, write a checkpoint after every batch."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.seen: list[float] = []
        self.logged: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, i: int) -> None:
        self.seen.append(float(batch[0].sum()))
        if self.folder is not None:
            trainer.save_checkpoint(self.folder / f"batch-{trainer.current_epoch}-{i}.ckpt")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            measured = trainer.callback_metrics.items()
            self.logged.append({name: float(value) for name, value in measured if name.startswith("val/")})


def train(
    model: Callable[[], LightningModule], data: LightningDataModule, callbacks: list[Callback], **kwargs: Any
) -> tuple[LightningModule, Trainer]:
    seed_everything(kwargs.pop("seed", 0), verbose=False)
    path = kwargs.pop("ckpt_path", None)
    kwargs = {"max_epochs": 3, "deterministic": True} | kwargs
    trainer = quiet.trainer(log_every_n_steps=1, **kwargs)
    trainer.callbacks.extend(callbacks)
    module = model()
    trainer.fit(module, data, ckpt_path=path, weights_only=True)
    return module, trainer


def assert_same(found: Any, expected: Any) -> None:
    """Compare nested collections of tensors and values bit by bit."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            assert_same(found[name], expected[name])
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, Tensor):
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    else:
        assert found == expected or (found != found and expected != expected)


def state(model: LightningModule, trainer: Trainer) -> dict[str, Any]:
    return {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "step": trainer.global_step,
        "random": torch.get_rng_state(),
    }
