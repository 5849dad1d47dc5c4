"""A bare loop's network, optimizer, batches and average of the weights in the smallest LightningModule.

Lightning trains them without a logger, checkpoints, a progress bar or validation: its time over the bare loop's is that
of Lightning's own loop, which every module in it pays.
"""

import sys
from collections.abc import Callable, Iterator
from typing import IO, Any, cast

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lit_bottleneck.training.gpu_probe import stop_probing_without_gpu
from tests.benchmarks.bare import Loop, Task, end_epoch, prepared, training_batches
from tests.benchmarks.side import options
from tests.benchmarks.timing import clock


class Plain(LightningModule):
    """The network of a loop."""

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self.loop, self.model = loop, loop.model

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss: Tensor = self.model(*batch)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.loop.average is not None:
            self.loop.average.update_parameters(self.model)

    def configure_optimizers(self) -> Any:
        return self.loop.optimizer


class Batches:
    """The batches of each epoch."""

    def __init__(self, task: Task, data: dict[str, Any]) -> None:
        self.task, self.data = task, data

    def __len__(self) -> int:
        return int(self.data["batches"])

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return training_batches(self.task, self.data)


class Answers(Callback):
    """Train for an epoch on each request, end it as the bare loop does, and answer; see ``side.serve``."""

    def __init__(self, end: Callable[[], None], answers: IO[str]) -> None:
        self.end, self.answers = end, answers

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not sys.stdin.readline():
            sys.exit()
        self.start = clock()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trained = clock()
        self.end()
        print(trained - self.start, clock() - trained, file=self.answers, flush=True)


if __name__ == "__main__":
    answers, sys.stdout = sys.stdout, sys.stderr
    stop_probing_without_gpu()  # as in the bare loop, where Lightning is not imported
    loop, task, data, file = prepared(options())
    callback = Answers(lambda: end_epoch(loop, task, data, file), answers)
    trainer = Trainer(
        max_epochs=-1, logger=False, enable_checkpointing=False, enable_progress_bar=False, callbacks=[callback]
    )
    trainer.fit(Plain(cast(Loop, loop)), Batches(task, data))
