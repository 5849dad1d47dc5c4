"""Denormal numbers taken for 0 from the start of a trainer on."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from lit_bottleneck.training.denormals import flush_denormals


class FlushDenormals(Callback):
    """Call ``flush_denormals`` in each process of a trainer as it starts, also in those of ``ddp_spawn``.

    The processes keep the setting, for all that they compute. So no trainer does this unless asked.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take denormal numbers for 0 from now on."""
        flush_denormals()
