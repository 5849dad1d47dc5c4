"""What an epoch's start sets, and what its end moves, is the same in an epoch that was resumed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BaseFinetuning,
    Callback,
    EarlyStopping,
    GradientAccumulationScheduler,
    StochasticWeightAveraging,
)
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torchmetrics.classification import MulticlassAccuracy

from lit_bottleneck.callbacks import RandomStates
from tests.cli.resume.trainings import CLASSES, FEATURES, Data, Keep, assert_same, state, train

Make = Callable[[], Callback]


class Classifier(LightningModule):
    """A module that knows nothing of this package."""

    def __init__(self, scheduled: dict[str, Any] | None = None, trains_backbone: bool = True) -> None:
        super().__init__()
        self.scheduled, self.trains_backbone = scheduled, trains_backbone
        self.backbone = nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.head = nn.Linear(8, CLASSES)

    def _loss(self, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(self.head(self.backbone(batch[0])), batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self._loss(batch)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", self._loss(batch))

    def configure_optimizers(self) -> Any:
        weights = (self if self.trains_backbone else self.head).parameters()
        optimizer = torch.optim.Adam(weights, 1e-2)
        if self.scheduled is None:
            return optimizer
        make = {"plateau": lambda: ReduceLROnPlateau(optimizer, patience=0), "steps": lambda: StepLR(optimizer, 2)}
        scheduled = {"scheduler": make[self.scheduled["kind"]](), **self.scheduled}
        return {"optimizer": optimizer, "lr_scheduler": {k: v for k, v in scheduled.items() if k != "kind"}}


class Averaging(Classifier):
    """Logs means, extremes and metrics of epochs."""

    def __init__(self) -> None:
        super().__init__({"kind": "plateau", "monitor": "train/mean"})
        self.accuracy = MulticlassAccuracy(CLASSES)

    def on_train_epoch_start(self) -> None:
        self.log("train/epochs", float(self.current_epoch), reduce_fx="sum")

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("train/mean", loss, on_step=False, on_epoch=True)
        self.log("train/max", loss, on_step=True, on_epoch=True, reduce_fx="max")
        if batch_idx % 3 == 2:
            self.log("train/third", loss, on_step=False, on_epoch=True)
        self.accuracy(self.head(self.backbone(batch[0])), batch[1])
        self.log("train/accuracy", self.accuracy, on_step=False, on_epoch=True)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.log("train/after", batch[0].mean(), on_step=False, on_epoch=True)


class Starting(Classifier):
    """Changes weights, draws random numbers and sets an attribute at the start of an epoch."""

    scale = 1.0

    def on_train_epoch_start(self) -> None:
        with torch.no_grad():
            self.head.bias.mul_(0.5)
        self.scale = 1 + torch.rand(()).item()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.scale * super().training_step(batch, batch_idx)


def unfreezing() -> BaseFinetuning:
    return BackboneFinetuning(1, lambda epoch: 1.5, backbone_initial_lr=1e-3)


def plateau(**kwargs: Any) -> Callable[[], Classifier]:
    return lambda: Classifier({"kind": "plateau", "monitor": "val/loss", **kwargs})


CASES: dict[str, tuple[Callable[[], LightningModule], list[Make], dict[str, Any], list[str]]] = {
    "plateau": (plateau(), [], {"max_epochs": 5}, ["0-4", "3-7"]),
    "plateau of every second epoch": (plateau(frequency=2), [], {"max_epochs": 5}, ["1-3", "2-0"]),
    "plateau of a step": (plateau(interval="step", monitor="train/loss"), [], {}, ["1-3"]),
    "plateau of every third step": (plateau(interval="step", frequency=3, strict=False), [], {}, ["1-5"]),
    "plateau of training": (plateau(monitor="train/loss"), [], {"check_val_every_n_epoch": 2}, ["1-3"]),
    "plateau and max_steps": (plateau(), [], {"max_epochs": -1, "max_steps": 40}, ["2-3"]),
    "steps": (lambda: Classifier({"kind": "steps", "interval": "step", "frequency": 2}), [], {}, ["1-3"]),
    "accumulation": (Classifier, [lambda: GradientAccumulationScheduler({1: 2, 2: 4})], {}, ["1-3", "2-3"]),
    "backbone": (lambda: Classifier(None, False), [unfreezing], {"max_epochs": 4}, ["0-3", "1-3", "2-3"]),
    "averaged": (
        Classifier,
        [lambda: StochasticWeightAveraging(1e-2, 2)],
        {"max_epochs": 5},
        ["0-3", "1-3", "3-3"],
    ),
    "early stopping": (Classifier, [lambda: EarlyStopping("val/loss", patience=1)], {"max_epochs": 9}, ["1-3"]),
    "means of epochs": (Averaging, [], {}, ["0-3", "1-6"]),
    "hook of the module": (Starting, [], {}, ["0-3", "1-3"]),
}


def end(model: LightningModule, trainer: Trainer) -> dict[str, Any]:
    schedulers = [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
    return (
        state(model, trainer)
        | {"schedulers": schedulers, "epoch": trainer.current_epoch}
        | dict(trainer.callback_metrics)
    )


QUICK = ["plateau", "plateau of every third step", "accumulation", "backbone", "means of epochs", "hook of the module"]


@pytest.mark.parametrize("case", [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in CASES])
def test_a_resumed_epoch(case: str, tmp_path: Path) -> None:
    model, makes, kwargs, stops = CASES[case]

    def run(*more: Callback, **resumed: Any) -> dict[str, Any]:
        return end(*train(model, Data(), [RandomStates(), *(make() for make in makes), *more], **kwargs, **resumed))

    expected = run(Keep(tmp_path))
    for stop in stops:
        assert_same(run(ckpt_path=tmp_path / f"batch-{stop}.ckpt", seed=9), expected)
