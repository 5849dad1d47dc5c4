"""A callback for trainers of modules that contain bottlenecks and have none themselves."""

import logging
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from lit_bottleneck.bottleneck.root import note_root, store_live_prices


class NestedPrices(Callback):
    """Log and store the prices of the bottlenecks inside a module that is no ``GaussianBottleneck`` itself.

    Their betas move without it. They are logged by their path in the module, as ``train/rate/encoder.code`` and
    ``train/beta/encoder.code``. Each new trainer has this callback by itself where lit_bottleneck is installed.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the bottlenecks find the module that is trained."""
        note_root(pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store live states of beta: a weight-averaging callback has put in those of its copy, which never move."""
        store_live_prices(pl_module, checkpoint)


def callbacks_of_trainers() -> list[Callback]:
    """Return the callbacks of each new trainer: the entry point ``lightning.pytorch.callbacks_factory``."""
    return [NestedPrices()]


def _is_not_ours(record: logging.LogRecord) -> bool:
    return "lit_bottleneck" not in record.getMessage()


# Lightning announces them at each trainer, whether or not it trains a bottleneck.
logging.getLogger("lightning.fabric.utilities.registry").addFilter(_is_not_ours)
