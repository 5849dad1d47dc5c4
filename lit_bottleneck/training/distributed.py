"""Sums, means and gathers over the processes of one training; without other processes they use local values."""

import torch
import torch.distributed.nn.functional
import torch.nn.functional as F
from torch import Tensor, distributed


def are_several_processes() -> bool:
    """Return whether more than one process trains."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def rank_and_world_size() -> tuple[int, int]:
    """Return the number of this process, and how many there are."""
    return (distributed.get_rank(), distributed.get_world_size()) if are_several_processes() else (0, 1)


def sum_over_processes(values: Tensor) -> Tensor:
    """Sum a tensor over all processes, without a graph; every process must call it."""
    values = values.detach()
    if are_several_processes():
        values = values.clone()
        distributed.all_reduce(values)
    return values


def mean_over_processes(rows: Tensor) -> Tensor:
    """Return the mean over the rows of all processes, ``(B, ...)`` to ``(...)``, without a graph; 0 if none."""
    totals = sum_over_processes(torch.cat([rows.sum(0).flatten(), rows.new_full((1,), len(rows))]))
    return (totals[:-1] / totals[-1].clamp(min=1)).reshape(rows.shape[1:])


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """Concatenate the rows of all processes, differentiably on every process.

    The gradient of a process's rows is the sum of the gradients of all processes' losses. With weight gradients
    averaged over processes, this gives the gradient of the mean of the losses.

    Args:
        rows: ``(B, ...)``; B may differ between processes.

    Returns:
        ``(sum of all B, ...)``, and the index of this process's first row.
    """
    if not are_several_processes():
        return rows, 0
    rank = distributed.get_rank()
    numbers = torch.zeros(distributed.get_world_size(), dtype=torch.int64, device=rows.device)
    numbers[rank] = len(rows)
    counts = sum_over_processes(numbers).tolist()
    padded = F.pad(rows, [0, 0] * (rows.dim() - 1) + [0, max(counts) - len(rows)])
    gathered = torch.distributed.nn.functional.all_gather(padded)
    return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)]), sum(counts[:rank])
