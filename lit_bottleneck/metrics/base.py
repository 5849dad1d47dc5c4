"""What a cast of the module around it must not round."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric

from lit_bottleneck.training.precision import without_casts


class Float64Metric(Metric):
    """A metric whose float64 states a cast of the module around it does not round."""

    full_state_update = False
    is_differentiable = False

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot a result, or a list of results over time, as every metric of torchmetrics does.

        Args:
            val: what ``compute`` or ``forward`` returned, or a list of it. None computes.
            ax: the axis to draw on. None makes a figure.

        Returns:
            The figure and its axis.
        """
        return self._plot(val, ax)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> nn.Module:
        return super()._apply(fn if self._dtype_convert else without_casts(fn), exclude_state)
