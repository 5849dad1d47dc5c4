"""Sums that a module has accumulated over an epoch so far, which no checkpoint of Lightning holds.

Means of an epoch (``self.log(..., on_epoch=True)``) and the states of torchmetrics in the module. The collection of
what was logged is private in Lightning, the number of updates of a metric in torchmetrics; there is no public access.
"""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.fabric.utilities import move_data_to_device
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torchmetrics import Metric

Saved = dict[str, Any]
_SUMS = ("value", "cumulated_batch_size")


def so_far(trainer: Trainer, module: LightningModule, is_within: bool) -> Saved:
    """Return the metrics that callbacks and schedulers follow, and within an epoch what it has accumulated."""
    followed = {name: value.detach().cpu().clone() for name, value in trainer.callback_metrics.items()}
    if not is_within:
        return {"followed": followed}
    results = {key: one for key, one in trainer.fit_loop.epoch_loop._results.items() if not one.has_reset}
    metrics = {name: one for name, one in module.named_modules() if isinstance(one, Metric) and one.update_called}
    state = {
        "logged": {
            key: {name: getattr(one, name) for name in _SUMS if hasattr(one, name)}
            for key, one in results.items()
            if one.is_tensor and one.meta.on_epoch
        },
        "metrics": {name: (one.update_count, one.metric_state) for name, one in metrics.items()},
    }
    return {"followed": followed, **apply_to_collection(state, Tensor, lambda tensor: tensor.detach().cpu().clone())}


def follow(trainer: Trainer, saved: Saved) -> None:
    """Restore the metrics that callbacks and schedulers follow."""
    trainer.callback_metrics.update(move_data_to_device(saved.get("followed", {}), trainer.strategy.root_device))


def set_metrics(module: LightningModule, saved: Saved) -> None:
    """Restore the states of the module's metrics."""
    metrics = {name: one for name, one in module.named_modules() if isinstance(one, Metric)}
    for name, (updates, states) in saved.get("metrics", {}).items():
        if name in metrics:
            vars(metrics[name]).update(move_data_to_device(states, metrics[name].device))
            metrics[name]._update_count, metrics[name]._computed = updates, None


def add_logged(trainer: Trainer, earlier: Saved, is_new: bool = True) -> None:
    """Add what was logged earlier in this epoch to what is logged again, and drop it from ``earlier``.

    Args:
        trainer: the trainer.
        earlier: the sums by key.
        is_new: whether what is logged again comes in addition, and is not the same once more.
    """
    for key, one in trainer.fit_loop.epoch_loop._results.items() if earlier else ():
        if key not in earlier or one.has_reset:
            continue
        before = move_data_to_device(earlier.pop(key), one.value.device)
        if is_new and (one.meta.is_max_reduction or one.meta.is_min_reduction):
            before = {"value": one.meta.reduce_fx(before["value"], one.value)}
        elif is_new:
            before = {name: value + getattr(one, name) for name, value in before.items()}
        vars(one).update(before)
