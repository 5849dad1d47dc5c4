"""Scatter of rows about their mean, ``sum_i (x_i - m)(x_i - m)^T``, over batches that come one by one.

Rows are centred before anything is squared (Chan, Golub and LeVeque, 1979): a large mean cancels nowhere, and the order
of batches does not matter. Where rows of 1e9 and of 1 meet, a sum of products keeps the former alone; a triangular root
of the scatter has their sizes instead of the squares, and keeps both.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_WIDEST_ROOT = 128  # columns; beyond, a root in every batch would take longer than all else


def scatter_of(rows: Tensor, joint: bool) -> Tensor:
    """Return the scatter of rows ``(N, K)``.

    Returns:
        ``(K,)``, its diagonal; or if ``joint``, ``(K, K)``: an upper triangular R with ``R^T R`` the scatter, or for
        more than 128 columns the scatter itself.
    """
    centred = rows - rows.mean(0) if len(rows) else rows
    if not joint:
        return centred.square().sum(0)
    return _root(centred) if rows.shape[1] <= _WIDEST_ROOT else centred.T @ centred


def merged_scatter(first: Tensor, second: Tensor, counts: tuple[Tensor, Tensor], apart: Tensor) -> Tensor:
    """Return the scatter of all rows, from those of two parts.

    Args:
        first: of ``scatter_of``.
        second: of ``scatter_of``.
        counts: the number of rows of both parts.
        apart: ``(K,)``, the difference of the parts' means; anything finite if one of them has no rows.
    """
    step = apart * (counts[0] * counts[1] / (counts[0] + counts[1]).clamp(min=1)).sqrt()
    if first.dim() == 1:
        return first + second + step.square()
    if len(first) <= _WIDEST_ROOT:
        return _root(torch.cat([first, second, step[None]]))
    return first + second + step[:, None] * step


def scatter_root(scatter: Tensor) -> Tensor:
    """Return ``(K, K)`` R with ``R^T R`` the joint scatter."""
    if len(scatter) <= _WIDEST_ROOT:
        return scatter
    values, vectors = torch.linalg.eigh(scatter)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()).T
    return root


def _root(rows: Tensor) -> Tensor:
    root: Tensor = torch.linalg.qr(rows, mode="r").R
    return F.pad(root, (0, 0, 0, rows.shape[1] - len(root)))
