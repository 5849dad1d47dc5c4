"""Rate of codes, and the number of their active dimensions."""

import math
from typing import Any

from torch import Tensor

from lit_bottleneck.checks import not_negative
from lit_bottleneck.metrics.code_metric import CodeMetric, CodeSums, checked_codes, in_float32, sums_of


class Rate(CodeMetric):
    """Mean rate of Gaussian codes and number of their active dimensions: see ``rate``.

    With a mask the rate is that of an example, the sum over its positions, and active are dimensions of the positions'
    codes. Keeps sums in float64, not codes: however these are split into batches and processes, the result is the same.

    Args:
        threshold: the variance of the mean above which a dimension is active.
        bits: whether rates are in bits. Default: nats.
        per_dimension: whether to return the rate of each dimension too (torchmetrics makes a scalar of just one).
        kwargs: those of ``torchmetrics.Metric``.

    Raises:
        ConfigurationError: for a negative ``threshold``.
        ValueError: by ``update`` for invalid codes or codes of another width than earlier ones, by ``compute`` without
            any codes.

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
        """Return the unrounded results of the codes so far, on this process unless the metric is synchronised."""
        return _compute(self.sums, self.threshold, self.bits, self.per_dimension)


def rate(
    mean: Tensor,
    log_var: Tensor,
    threshold: float = 0.01,
    bits: bool = False,
    per_dimension: bool = False,
    mask: Tensor | None = None,
    dim: int = 1,
) -> dict[str, Tensor]:
    """Return the mean rate of Gaussian codes and the number of their active dimensions, float32 scalars by name.

    - ``rate``: KL of ``N(mean, exp(log_var))`` from the standard normal, summed over dimensions (and the positions of a
      mask), averaged over examples: an upper bound of the information. Infinite for codes without noise.
    - ``active_units``: the number of dimensions whose mean has a variance over the codes above ``threshold``
      (arXiv 1509.00519).
    - ``rate_per_dimension``, with ``per_dimension=True``: ``(K,)``, of which the rate is the sum.

    Args:
        mean: ``(B, K, ...)``; without a mask, dimensions after the second are flattened into it.
        log_var: the shape of ``mean``; ``-inf`` where a code has no noise.
        threshold: the variance above which a dimension is active.
        bits: whether rates are in bits. Default: nats.
        per_dimension: whether to return the rate of each dimension too.
        mask: ``(B, *positions)``, see ``Rate.update``.
        dim: dimension of the K numbers, where there is a mask.

    Raises:
        ConfigurationError: for a negative ``threshold``, or a mask of another shape.
        ValueError: for invalid codes, or none.

    >>> import torch
    >>> rate(torch.tensor([[1.0, -0.5, 0.0]]), torch.tensor([[0.25, 1.0, 4.0]]).log())["rate"]
    tensor(1.7500)
    """
    sums = sums_of(*checked_codes(mean, log_var, mask, dim), joint=False, examples=len(mean))
    return in_float32(_compute(sums, not_negative("threshold", threshold), bits, per_dimension))


def _compute(sums: CodeSums, threshold: float, bits: bool, per_dimension: bool) -> dict[str, Tensor]:
    if sums.count == 0:
        raise ValueError("the rate needs at least 1 code; got 0")
    rates = sums.rates / sums.examples / (math.log(2) if bits else 1)
    variances = sums.scatter / sums.count
    found = {"rate": rates.sum(), "active_units": (variances > threshold).sum()}
    return found | {"rate_per_dimension": rates} if per_dimension else found
