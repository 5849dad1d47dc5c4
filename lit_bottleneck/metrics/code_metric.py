"""What the metrics of Gaussian codes share: sums over codes, and their reduction."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from lit_bottleneck.metrics.base import Float64Metric
from lit_bottleneck.metrics.code_sums import CodeSums, checked_codes, common_origin, merged, no_sums, sums_of


class CodeMetric(Float64Metric):
    """A metric from sums over codes, however these are split into batches and processes.

    The sums have no width until codes have come. A process without any takes that of the others in the reduction.

    Args:
        joint: whether the covariance of the means is needed, or their variances only.
        groups: how many groups of codes are summed apart. None: they are one.
        kwargs: those of `torchmetrics.Metric`.
    """

    count: Tensor
    origin: Tensor
    offsets: Tensor
    squares: Tensor
    variances: Tensor
    log_vars: Tensor
    rates: Tensor

    def __init__(self, joint: bool, groups: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._joint = joint
        self._groups = () if groups is None else (groups,)
        for name, zeros in vars(no_sums(0, joint, self._groups)).items():
            # Origins are made equal before they are reduced, so that the largest is any of them.
            self.add_state(name, zeros, dist_reduce_fx="max" if name == "origin" else "sum")

    @property
    def sums(self) -> CodeSums:
        """The sums over the codes so far, on this process unless the metric is synchronised."""
        return CodeSums(**{field.name: getattr(self, field.name) for field in fields(CodeSums)})

    def update(self, mean: Tensor, log_var: Tensor) -> None:
        """Take in codes.

        Args:
            mean: ``(B, K, ...)``.
            log_var: the shape of ``mean``; ``-inf`` where a code has no noise.

        Raises:
            ValueError: for codes that are none, or of another width than earlier ones.
        """
        mean, log_var = checked_codes(mean, log_var)
        self._widen(mean.shape[1])
        self._set(merged(self.sums, sums_of(mean, log_var, self._joint)))

    def compute(self) -> dict[str, Tensor]:
        """Return the results in float32; see the class."""
        return {name: value.float() for name, value in self.in_float64().items()}

    @abstractmethod
    def in_float64(self) -> dict[str, Tensor]:
        """Return the results of the codes so far (on this process, unless the metric is synchronised), unrounded."""

    def _set(self, sums: CodeSums) -> None:
        for field in fields(sums):
            setattr(self, field.name, getattr(sums, field.name))

    def _widen(self, width: int) -> None:
        """Give sums without a width this one."""
        known = self.sums.width
        if known == 0:
            self._set(no_sums(width, self._joint, self._groups, self.count.device))
        elif known != width:
            raise ValueError(f"codes of {known} dimensions came before; got codes of {width}")

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        if all(name in incoming_state for name in self._defaults):  # otherwise torchmetrics says which is missing
            theirs = CodeSums(**{field.name: incoming_state[field.name] for field in fields(CodeSums)})
            if theirs.width:
                self._widen(theirs.width)
            elif self.sums.width:
                theirs = no_sums(self.sums.width, self._joint, self._groups, self.count.device)
            origin = common_origin([self.sums, theirs])
            self._set(self.sums.at(origin))
            incoming_state = incoming_state | vars(theirs.at(origin))
        super()._reduce_states(incoming_state)
        self._computed = None  # what was computed before is no longer the result

    def _sync_dist(
        self, dist_sync_fn: Callable[..., Any] = gather_all_tensors, process_group: Any | None = None
    ) -> None:
        group = process_group or self.process_group
        width = torch.tensor(self.sums.width, device=self.count.device)
        widths = {int(found) for found in dist_sync_fn(width, group=group)} - {0}
        if len(widths) > 1:
            raise ValueError(f"codes must have one width on all processes; got {sorted(widths)}")
        if not widths:
            return  # no process has any codes
        self._widen(widths.pop())
        counts, origins = (dist_sync_fn(state, group=group) for state in (self.count, self.origin))
        others = [replace(self.sums, count=count, origin=origin) for count, origin in zip(counts, origins, strict=True)]
        self._set(self.sums.at(common_origin(others)))
        super()._sync_dist(dist_sync_fn, process_group=process_group)
