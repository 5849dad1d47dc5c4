"""A bare loop's network, optimizer, batches and average of the weights in the smallest LightningModule.

Lightning trains them without a logger, checkpoints, a progress bar or validation: its time over the bare loop's is that
of Lightning's own loop, which every module in it pays.
"""

import sys
from collections.abc import Callable, Iterator
from typing import IO, Any, cast

from lightning import LightningModule, Trainer
from torch import Tensor

from lit_bottleneck.training.gpu_probe import stop_probing_without_gpu
from tests.benchmarks.bare import Loop, Task, end_epoch, from_options, training_batches
from tests.benchmarks.side import options
from tests.benchmarks.step_seconds import StepSeconds
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


class OnRequest(StepSeconds):
    """Wait for a request before each epoch, end the epoch as the bare loop does, and answer; see ``side.serve``."""

    def __init__(self, end: Callable[[], None], answers: IO[str]) -> None:
        self.end, self.answers = end, answers

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not sys.stdin.readline():
            sys.exit()
        self.start = clock()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.end()
        print(self.steps, clock() - self.start - self.steps, file=self.answers, flush=True)


if __name__ == "__main__":
    answers, sys.stdout = sys.stdout, sys.stderr
    stop_probing_without_gpu()  # as in the bare loop, where Lightning is not imported
    loop, task, data, file = from_options(options())
    callbacks = [OnRequest(lambda: end_epoch(loop, task, data, file), answers)]
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_epochs=-1, callbacks=callbacks, **quiet)
    trainer.fit(Plain(cast(Loop, loop)), Batches(task, data))
