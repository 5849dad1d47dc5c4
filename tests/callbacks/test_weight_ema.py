"""The moving average of the weights: its formula, and that it is stored and tested."""

from pathlib import Path

import torch
from lightning import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn

from lit_bottleneck import VIBClassifier
from lit_bottleneck.beta import DualBeta
from lit_bottleneck.callbacks import WeightEMA
from lit_bottleneck.data import Digits
from lit_bottleneck.networks import MLP
from tests.quiet import trainer


class Average(Callback):
    """The average by its definition, and the weights in test."""

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.tested: dict[str, torch.Tensor] = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        weights = {name: weight.detach().double() for name, weight in pl_module.named_parameters()}
        if trainer.global_step == 1:
            self.total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
            self.shares = 0.0
        self.shares = self.decay * self.shares + 1
        for name, weight in weights.items():
            self.total[name] = self.decay * self.total[name] + weight

    @property
    def average(self) -> dict[str, torch.Tensor]:
        return {name: total / self.shares for name, total in self.total.items()}

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.tested = {name: weight.detach().clone() for name, weight in pl_module.named_parameters()}


def test_the_average_is_stored_and_tested_and_beta_is_the_live_one(tmp_path: Path) -> None:
    seed_everything(0, verbose=False)
    model = VIBClassifier(MLP(64, [16], 8), latent_dim=4, num_classes=10, beta=DualBeta(capacity=2.0))
    reference = Average(0.9)
    checkpoint = ModelCheckpoint(tmp_path, filename="last")
    data = Digits(val_size=0)
    run = trainer(max_epochs=2, enable_checkpointing=True, callbacks=[WeightEMA(0.9), reference, checkpoint])
    run.fit(model, data)
    live = model.beta
    run.test(model, data, ckpt_path=checkpoint.best_model_path, weights_only=True, verbose=False)

    stored = torch.load(checkpoint.best_model_path, weights_only=True)["state_dict"]
    for name, weight in reference.average.items():
        assert torch.allclose(stored[name].double(), weight, atol=1e-5)
        assert torch.equal(reference.tested[name], stored[name])
    assert model.beta == live != 1e-3


class Counting(LightningModule):
    """Replaces its buffer by another tensor in each step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 1)
        self.register_buffer("count", torch.zeros(()))

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.count = self.count + 1
        loss: torch.Tensor = self.layer(batch[0].flatten(1)).mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def test_a_buffer_that_is_replaced_is_that_of_the_last_step() -> None:
    model = Counting()
    trainer(callbacks=[WeightEMA(0.9)], limit_train_batches=3).fit(model, Digits(val_size=0))
    assert model.count == 3


def test_each_optimizer_step_counts_once_and_buffers_are_those_of_the_last(tmp_path: Path) -> None:
    seed_everything(0, verbose=False)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8))
    model, checkpoint = VIBClassifier(encoder, latent_dim=4, num_classes=10), ModelCheckpoint(tmp_path)
    callbacks = [WeightEMA(0.9), checkpoint]
    run = trainer(enable_checkpointing=True, callbacks=callbacks, accumulate_grad_batches=2, limit_train_batches=6)
    run.fit(model, Digits(val_size=0))
    stored = torch.load(checkpoint.best_model_path, weights_only=True)
    assert stored["averaging_state"]["n_averaged"] == run.global_step == 3
    name = "encoder.2.running_mean"
    assert torch.equal(stored["state_dict"][name], stored["current_model_state"][name])
    assert stored["state_dict"][name].any()


def test_the_steps_of_another_trainer_count_too() -> None:
    model, average = Counting(), WeightEMA(0.9)
    for steps in (3, 2):
        trainer(callbacks=[average], limit_train_batches=steps).fit(model, Digits(val_size=0))
    assert model.count == 5
