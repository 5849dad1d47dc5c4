"""The value range of the examples of a run."""

from typing import Any

from lightning import LightningModule, Trainer


def value_range(trainer: Trainer, module: LightningModule) -> tuple[float, float] | None:
    """Return the pixels (black, white) of the datamodule's, or else the module's, ``value_range``."""
    data: Any = getattr(trainer, "datamodule", None)
    known = getattr(data, "value_range", None) or getattr(module, "value_range", None)
    return None if known is None else (float(known[0]), float(known[1]))
