"""Black and white of the examples of a run."""

from typing import Any

from lightning import LightningModule, Trainer


def value_range(trainer: Trainer, module: LightningModule) -> tuple[float, float] | None:
    """What the datamodule, or else the module, tells of the range of its pixels."""
    data: Any = getattr(trainer, "datamodule", None)
    told = getattr(data, "value_range", None) or getattr(module, "value_range", None)
    return None if told is None else (float(told[0]), float(told[1]))
