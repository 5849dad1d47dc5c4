"""The seconds of an epoch's steps, as Lightning takes them."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from tests.benchmarks.timing import clock


class StepSeconds(Callback):
    """Notes in ``steps`` how long an epoch's steps took, from the start of the first to the end of the last."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.first = clock()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == trainer.num_training_batches - 1:
            self.steps = clock() - self.first
