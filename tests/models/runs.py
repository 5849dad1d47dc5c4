"""Batches, trainings and logs of the models' tests."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.quiet import trainer


def batches(*tensors: Tensor, size: int) -> DataLoader:
    """Return a loader of batches of ``size`` rows, in order."""
    return DataLoader(TensorDataset(*tensors), batch_size=size)


def fit(model: LightningModule, data: Any, **kwargs: Any) -> Trainer:
    """Train a model and return its trainer."""
    run = trainer(**kwargs)
    run.fit(model, data)
    return run


def checkpoint_of(model: LightningModule, data: Any, folder: Path) -> Path:
    """Train a model and return the path of its checkpoint."""
    fit(model, data).save_checkpoint(folder / "model.ckpt")
    return folder / "model.ckpt"


def logged(folder: Path) -> list[dict[str, str]]:
    """Return the rows that a ``CSVLogger`` wrote anywhere in a folder."""
    [path] = folder.rglob("metrics.csv")
    with path.open() as file:
        return list(csv.DictReader(file))


def flat(module: nn.Module) -> Tensor:
    """Return a copy of all weights as one vector."""
    return torch.cat([weight.detach().flatten() for weight in module.parameters()]).clone()


class Record(Callback):
    """Record a value of the model after each batch."""

    def __init__(self, value: Callable[[Any], Any]) -> None:
        self.value, self.seen = value, []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.seen.append(self.value(pl_module))


def average(values: list[Tensor], decay: float) -> Tensor:
    """Return the bias-corrected exponential moving average of values, in closed form."""
    shares = [decay**age for age in reversed(range(len(values)))]
    return sum(share * value for share, value in zip(shares, values, strict=True)) / sum(shares)
