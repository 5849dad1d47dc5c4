"""What codes cost, and how many of their dimensions are in use."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from lit_bottleneck.checks import not_negative
from lit_bottleneck.metrics.code_metric import CodeMetric
from lit_bottleneck.metrics.code_sums import CodeSums, checked_codes, sums_of


class Rate(CodeMetric):
    """The mean rate of Gaussian codes, and the number of their active dimensions: see `rate`.

    Sums in float64 are kept, not codes: however they are split into batches and processes, the result is the same.

    Args:
        threshold: the variance of the mean from which on a dimension is active.
        bits: whether rates are in bits. Default: nats.
        per_dimension: whether the rate of each dimension is returned as well (torchmetrics makes a scalar of just one).
        kwargs: those of `torchmetrics.Metric`.

    Raises:
        ValueError: for a ``threshold`` that is negative, by ``update`` for codes that are none or of another width than
            earlier ones, by ``compute`` if there were none.

    >>> import torch
    >>> metric = Rate()
    >>> metric.update(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.zeros(2, 2))
    >>> metric.compute()
    {'rate': tensor(0.5000), 'active_units': tensor(1.)}
    """

    def __init__(self, threshold: float = 0.01, bits: bool = False, per_dimension: bool = False, **kwargs: Any) -> None:
        super().__init__(joint=False, **kwargs)
        self.threshold = not_negative("threshold", threshold)
        self.bits = bits
        self.per_dimension = per_dimension

    def in_float64(self) -> dict[str, Tensor]:
        """Return the results of the codes so far (on this process, unless the metric is synchronised), unrounded."""
        return _compute(self.sums, self.threshold, self.bits, self.per_dimension)


def rate(
    mean: Tensor, log_var: Tensor, threshold: float = 0.01, bits: bool = False, per_dimension: bool = False
) -> dict[str, Tensor]:
    """Measure what Gaussian codes cost.

    - ``rate``: KL of ``N(mean, exp(log_var))`` from the standard normal, summed over the dimensions, averaged over the
      codes. It is an upper bound of the information. Infinite for codes without noise.
    - ``active_units``: how many dimensions have a mean whose variance over the codes is above ``threshold`` (the
      measure of arXiv 1509.00519).
    - ``rate_per_dimension``, if asked for: ``(K,)``, whose sum is the rate.

    Args:
        mean: ``(B, K, ...)``.
        log_var: the shape of ``mean``; ``-inf`` where a code has no noise.
        threshold: the variance above which a dimension is active.
        bits: whether rates are in bits. Default: nats.
        per_dimension: whether the rate of each dimension is returned as well.

    Returns:
        The above, in float32. Dimensions after the second are flattened into it.

    Raises:
        ValueError: for codes that are none, or a ``threshold`` that is negative.

    >>> import torch
    >>> rate(torch.tensor([[1.0, -0.5, 0.0]]), torch.tensor([[0.25, 1.0, 4.0]]).log())["rate"]
    tensor(1.7500)
    """
    sums = sums_of(*checked_codes(mean, log_var), joint=False)
    found = _compute(sums, not_negative("threshold", threshold), bits, per_dimension)
    return {name: value.float() for name, value in found.items()}


def _compute(sums: CodeSums, threshold: float, bits: bool, per_dimension: bool) -> dict[str, Tensor]:
    if sums.count == 0:
        raise ValueError("the rate needs at least 1 code; got 0")
    rates = sums.rates / sums.count / (math.log(2) if bits else 1)
    variances = sums.squares / sums.count - (sums.offsets / sums.count).square()
    found = {"rate": rates.sum(), "active_units": (variances > threshold).sum()}
    return found | {"rate_per_dimension": rates} if per_dimension else found
