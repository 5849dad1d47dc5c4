"""Splits of rows in two."""

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from lit_bottleneck.checks import ConfigurationError


def check_val_size(val_size: int | float, name: str = "val_size") -> int | float:
    """Return ``val_size``, if it is a count of rows (an int) or a fraction of them (a float in [0, 1))."""
    is_count = isinstance(val_size, int) and not isinstance(val_size, bool) and val_size >= 0
    if not is_count and not (isinstance(val_size, float) and 0.0 <= val_size < 1.0):
        raise ConfigurationError(f"{name} must be a count of rows (int) or a fraction in [0, 1); got {val_size!r}")
    return val_size


def validation_count(val_size: int | float, total: int, name: str = "val_size") -> int:
    """Return the number of rows to hold out for validation.

    >>> validation_count(0.1, 1437), validation_count(500, 1437), validation_count(0, 1437)
    (144, 500, 0)

    Args:
        val_size: a count of rows, or a fraction of them; a fraction above 0 is at least one row.
        total: the number of rows.
        name: the name of the argument.

    Raises:
        ConfigurationError: if no row is left to train on.
    """
    count = max(1, round(val_size * total)) if isinstance(val_size, float) and val_size > 0 else int(val_size)
    if count >= total:
        raise ConfigurationError(f"{name}={val_size!r} holds out {count} of {total} rows: none is left to train on")
    return count


def stratified_split(labels: Tensor, held_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """Split rows in two, stratified by label.

    Where a label occurs only once, or a part has fewer rows than there are labels, the split is simply random.

    Args:
        labels: int64 ``(N,)``, not negative.
        held_out: the number of rows in the second part, below N.
        seed: the same seed gives the same split, on every process.

    Returns:
        The rows kept and the rows held out, int64, each in ascending order.
    """
    rows = torch.arange(len(labels))
    if held_out == 0:
        return rows, rows[:0]
    label_counts = labels.unique(return_counts=True)[1]
    smaller_part = min(held_out, len(labels) - held_out)
    can_stratify = label_counts.min() >= 2 and smaller_part >= len(label_counts)
    strata = labels.numpy() if can_stratify else None
    kept, held = train_test_split(rows.numpy(), test_size=held_out, random_state=seed, stratify=strata)
    return torch.from_numpy(kept).sort().values, torch.from_numpy(held).sort().values


def random_split(total: int, held_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """Split rows in two at random.

    Args:
        total: the number of rows.
        held_out: the number of rows in the second part.
        seed: the same seed gives the same split, on every process.

    Returns:
        The rows kept and the rows held out, int64, each in ascending order.
    """
    rows = torch.from_numpy(np.random.default_rng(seed).permutation(total))
    return rows[held_out:].sort().values, rows[:held_out].sort().values
