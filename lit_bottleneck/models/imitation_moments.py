"""Running moments of observations, by which a discriminator normalises what it sees."""

from typing import Any

import torch
from torch import Tensor, nn

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.functional import at_least_float32
from lit_bottleneck.training.distributed import sum_over_processes

_CONSTANT = 1e-6  # of the mean: a smaller deviation is the rounding of float32


class RunningMoments(nn.Module):
    """Mean and standard deviation of all rows seen so far, those of every process.

    Count, means, and sums of squares about the means are kept in float64 whatever the module is cast to, and are in the
    state dict as one tensor ``(3, *dims)``. Until the first update the shape of a row is not known.

    >>> moments = RunningMoments()
    >>> moments.update(torch.tensor([[1.0], [2.0], [3.0]]))
    >>> moments.normalize(torch.tensor([[2.0]]))
    tensor([[0.]])
    """

    def __init__(self) -> None:
        super().__init__()
        self._state = torch.zeros(3, 0, dtype=torch.float64)

    @property
    def dims(self) -> tuple[int, ...] | None:
        """Shape of a row, or None before the first update."""
        return tuple(self._state.shape[1:]) if self._state.numel() else None

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Add rows ``(B, *dims)`` of this process and of all others, each of which must call it.

        Rows with a value that is not finite are left to the loss, which will not be finite either: nothing is added.
        """
        rows = _double(rows.detach())
        state = self._state.to(rows.device) if self._state.numel() else rows.new_zeros(3, *rows.shape[1:])
        totals = sum_over_processes(torch.cat([rows.sum(0).flatten(), rows.new_full((1,), len(rows))]))
        added = totals[-1].clamp(min=1)
        mean = (totals[:-1] / added).reshape(rows.shape[1:])
        squares = sum_over_processes((rows - mean).square().sum(0))
        count, old_mean, old_squares = state
        whole, distance = count + totals[-1], mean - old_mean
        share = totals[-1] / whole.clamp(min=1)
        merged = torch.stack(
            [whole, old_mean + share * distance, old_squares + squares + count * share * distance.square()]
        )
        self._state = torch.where(merged.isfinite().all(), merged, state)

    def normalize(self, rows: Tensor) -> Tensor:
        """Subtract the mean from rows ``(B, *dims)``, and divide by the deviation of what varies.

        Returns:
            ``(B, *dims)``, at least float32; before the first update, the rows as they are.
        """
        rows = at_least_float32(rows)
        if self.dims is None:
            return rows
        count, mean, squares = self._state
        deviation = (squares / count.clamp(min=1)).sqrt()
        scale = torch.where(deviation > _CONSTANT * mean.abs(), deviation, 1.0)
        normalized: Tensor = (rows - mean.to(rows.dtype).to(rows.device)) / scale.to(rows.dtype).to(rows.device)
        return normalized

    def get_extra_state(self) -> Tensor:
        """Return count, means and squares for the checkpoint."""
        return self._state.clone()

    def set_extra_state(self, state: Any) -> None:
        """Restore count, means and squares.

        Raises:
            ConfigurationError: for anything else.
        """
        if not isinstance(state, Tensor) or state.dim() < 2 or len(state) != 3:
            raise ConfigurationError("the checkpoint holds no running moments (3, *dims) of observations")
        self._state = _double(state.detach().clone())


def _double(tensor: Tensor) -> Tensor:
    """Return a tensor in float64, on the CPU where the device has none."""
    try:
        return tensor.double()
    except TypeError:  # raised by MPS
        return tensor.cpu().double()
