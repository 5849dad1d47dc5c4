"""Checks of the values that metrics receive."""

import torch
from torch import Tensor


def check_finite(demand: str, rows: Tensor) -> None:
    """Raise an error that begins with ``demand``, if any of the rows ``(B, ...)`` has an infinity or NaN."""
    bad = len(rows) - int(rows.flatten(1).isfinite().all(1).sum())
    if bad:
        raise ValueError(f"{demand}; {bad} of {len(rows)} rows have an infinity or NaN")


def check_labels(labels: Tensor, shape: tuple[int, ...], num_classes: int) -> None:
    """Raise an error if labels are not integers of this shape in [0, ``num_classes``)."""
    if labels.is_floating_point() or labels.dtype == torch.bool or labels.shape != shape:
        raise ValueError(f"labels must be integers {shape}; got {labels.dtype} {tuple(labels.shape)}")
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(f"labels must be in [0, {num_classes}); got {int(labels.min())} to {int(labels.max())}")
