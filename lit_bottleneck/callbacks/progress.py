"""Progress bar that writes one line per epoch where there is no terminal."""

import math
import sys
from contextlib import suppress
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

_MOST_LINES = 100


class ProgressBar(TQDMProgressBar):
    """Lightning's bar on a terminal; elsewhere (a file, a pipe, a batch job) one line at the end of each epoch.

    Of more than a hundred epochs only each second, third, ... has its line, and the last, so that there are at most a
    hundred lines in all.

    Args:
        refresh_rate: batches between two updates of the bar.
    """

    def __init__(self, refresh_rate: int = 20) -> None:
        self.on_terminal = sys.stdout.isatty()
        super().__init__(refresh_rate=refresh_rate if self.on_terminal else 0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the epoch's line, if there is no terminal."""
        super().on_train_epoch_end(trainer, pl_module)
        if not self.on_terminal and trainer.is_global_zero and _has_line(trainer):
            metrics = self.get_metrics(trainer, pl_module)
            values = "  ".join(f"{name} {_short(value)}" for name, value in metrics.items() if name != "v_num")
            of_epochs = f"/{trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
            line = f"epoch {trainer.current_epoch + 1}{of_epochs}  step {trainer.global_step}  {values}"
            with suppress(OSError):  # nobody may read it: a pipe that broke, a full disk
                print(line, file=sys.stderr, flush=True)


def _has_line(trainer: Trainer) -> bool:
    """Return whether this epoch is among the hundred, or fewer, that have a line."""
    epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs or -1
    if epochs <= 0 and trainer.max_steps > 0:
        steps = max(1, trainer.global_step // epoch)  # of an epoch
        epochs = math.ceil(trainer.max_steps / steps)
    return epoch % max(1, math.ceil(epochs / _MOST_LINES)) == 0 or epoch == epochs or trainer.should_stop


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else str(value)
