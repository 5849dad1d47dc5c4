"""Base classes of all metrics, and checks of values.

States keep their dtype whatever is cast; rows have the width that the first batch sets.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lit_bottleneck.training.precision import without_casts


class Float64Metric(Metric):
    """Base of metrics whose states keep their dtype, float64 for sums, whatever is cast.

    Neither ``to``, ``half`` nor ``set_dtype`` of the metric or of a module around it changes a dtype. Nor does torch's
    default dtype, which is bfloat16 while Lightning moves and updates metrics with ``precision="bf16-true"``.
    """

    full_state_update = False
    is_differentiable = False

    @property
    def dtype(self) -> torch.dtype:
        """Float64: the dtype of the empty tensor that torchmetrics gathers from a process without any rows."""
        return torch.float64

    def add_sum(self, name: str, *shape: int) -> None:
        """Add a state of float64 sums, 0 at the start."""
        self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot a result, or a list of results over time, as every metric of torchmetrics does.

        Args:
            val: what ``compute`` or ``forward`` returned, or a list of it. Default: ``compute()``.
            ax: the axis to draw on. Default: that of a new figure.

        Returns:
            The figure and its axis.
        """
        return self._plot(val, ax)

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add the state of another metric of this class, and forget a result that was computed before."""
        super().merge_state(incoming_state)
        self._computed = None  # the cache of ``compute``, which torchmetrics 1.9 keeps here and offers no way to clear

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> nn.Module:
        return super()._apply(without_casts(fn), exclude_state)


class RowMetric(Float64Metric):
    """Base of metrics that keep rows of float64 numbers, whose layout (such as the code's width) the first batch sets.

    Both states are lists of flat tensors, so that a process without any rows takes part when they are gathered.
    """

    layout_size: ClassVar[int] = 1  # how many numbers make a layout

    rows: list[Tensor]
    layouts: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("rows", [], dist_reduce_fx="cat")
        self.add_state("layouts", [], dist_reduce_fx="cat")

    @abstractmethod
    def describe(self, *layout: int) -> str:
        """Return a layout in words, for errors."""

    @property
    def layout(self) -> tuple[int, ...] | None:
        """The layout of the rows so far; None without any."""
        return self._common(self.layouts)

    @property
    def rows_device(self) -> torch.device:
        """The device of the rows: the metric's, or with ``compute_on_cpu=True`` the CPU."""
        return self.rows[0].device if len(self.rows) else self.device

    def add_rows(self, rows: Tensor, *layout: int) -> None:
        """Append rows.

        Args:
            rows: ``(N, W)``.
            layout: ``layout_size`` whole numbers, from which W follows.

        Raises:
            ValueError: if earlier rows have another layout.
        """
        new = torch.tensor(layout, dtype=torch.float64, device=self.rows_device)
        self._common([*self.layouts, new])
        self.layouts = self.layouts or [new]
        self.rows.append(rows.flatten().to(self.rows_device))

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add the rows of another metric of this class, or of its state.

        Raises:
            ValueError: if its rows have another layout.
        """
        if isinstance(incoming_state, (dict, type(self))):
            state = incoming_state if isinstance(incoming_state, dict) else incoming_state.metric_state
            self._common([*self.layouts, *state.get("layouts", [])])
        super().merge_state(incoming_state)

    def _common(self, layouts: Sequence[Tensor] | Tensor) -> tuple[int, ...] | None:
        found = flat(layouts).view(-1, self.layout_size).unique(dim=0).long().tolist()
        if len(found) > 1:
            described = " and ".join(self.describe(*layout) for layout in found)
            raise ValueError(f"all batches, on all processes, must be alike; got {described}")
        return tuple(found[0]) if found else None


def flat(state: Sequence[Tensor] | Tensor) -> Tensor:
    """Return all numbers of a flat state: a list of tensors, or one tensor once those of all processes are gathered."""
    if isinstance(state, Tensor):
        return state
    return torch.cat([*state]) if state else torch.zeros(0, dtype=torch.float64)


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
