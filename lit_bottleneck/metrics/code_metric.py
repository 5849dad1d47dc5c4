"""Base class of the metrics of Gaussian codes: sums over codes."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_bottleneck.metrics.base import RowMetric, flat
from lit_bottleneck.metrics.code_sums import CodeSums, checked_codes, merged, row_size, sums_of


class CodeMetric(RowMetric):
    """Base of metrics that follow from sums over codes, however these are split into batches and processes.

    Each process keeps one row for each group of codes: the group's number and its sums.

    Args:
        joint: whether the covariance of the means is needed, or their variances only.
        kwargs: those of ``torchmetrics.Metric``.
    """

    def __init__(self, joint: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._joint = joint

    def describe(self, *layout: int) -> str:
        """Return the width of codes in words."""
        return f"codes of {layout[0]} dimensions"

    @property
    def groups(self) -> dict[int, CodeSums]:
        """The sums over the codes of each group so far, on this process unless the metric is synchronised."""
        found: dict[int, CodeSums] = {}
        if self.layout is None:
            return found
        [width] = self.layout
        rows = flat(self.rows).view(-1, 1 + row_size(width, self._joint))
        for group, row in zip(rows[:, 0].long().tolist(), rows[:, 1:], strict=True):
            sums = CodeSums.from_row(row, width, self._joint)
            found[group] = merged(found[group], sums) if group in found else sums
        return dict(sorted(found.items()))

    @property
    def sums(self) -> CodeSums:
        """The sums over the codes so far, where all are one group."""
        return self.groups.get(0) or CodeSums.from_row(torch.zeros(1, dtype=torch.float64), 0, self._joint)

    def update(self, mean: Tensor, log_var: Tensor) -> None:
        """Add codes.

        Args:
            mean: ``(B, K, ...)``.
            log_var: the shape of ``mean``; ``-inf`` where a code has no noise.

        Raises:
            ValueError: for invalid codes, or codes of another width than earlier ones.
        """
        mean, log_var = checked_codes(mean, log_var)
        self.add_sums({0: sums_of(mean, log_var, self._joint)}, mean.shape[1])
        self.fold()

    def compute(self) -> dict[str, Tensor]:
        """Return the results in float32; see the class."""
        return in_float32(self.in_float64())

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Add codes, and return the results of these codes alone."""
        results: dict[str, Tensor] = super().forward(*args, **kwargs)
        self.fold()
        return results

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add the codes of another metric of this class, or of its state."""
        super().merge_state(incoming_state)
        self.fold()

    @abstractmethod
    def in_float64(self) -> dict[str, Tensor]:
        """Return the unrounded results of the codes so far, on this process unless the metric is synchronised."""

    def add_sums(self, groups: dict[int, CodeSums], width: int) -> None:
        """Add sums over codes of this width, by the number of their group."""
        if groups:
            self.add_rows(_rows(groups), width)

    def fold(self) -> None:
        """Keep one row for each group."""
        if len(self.rows):
            self.rows, self.layouts = [_rows(self.groups).flatten()], self.layouts[:1]


def _rows(groups: dict[int, CodeSums]) -> Tensor:
    return torch.stack([torch.cat([sums.count.new_tensor([group]), sums.row()]) for group, sums in groups.items()])


def in_float32(results: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return results rounded to float32."""
    return {name: value.float() for name, value in results.items()}
