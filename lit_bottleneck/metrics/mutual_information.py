"""What codes tell about their inputs: bounds of the mutual information."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from lit_bottleneck.arguments import whole_number
from lit_bottleneck.functional import pairwise_log_density
from lit_bottleneck.metrics._code_sums import checked_codes
from lit_bottleneck.metrics._codes import CodeMetric
from lit_bottleneck.metrics.contrastive_bounds import (
    leave_one_out_bound,
    minibatch_stratified,
    nce_bound,
    others_of,
    stratified,
)
from lit_bottleneck.metrics.marginal_moments import moments_of

__all__ = ["MutualInformation", "leave_one_out_bound", "minibatch_stratified", "nce_bound"]

_AT_ONCE = 2**24  # log-densities in memory: 128 MiB of them


class MutualInformation(CodeMetric):
    """Bounds of the mutual information of inputs and Gaussian codes, in nats.

    ``compute`` returns float32 scalars:

    - ``lower``: the mean of `nce_bound` over the codes that are kept. With M of them it is at most ``log M``;
    - ``upper``: the least of the mean of `leave_one_out_bound`, the rate, and the ``information_upper`` of
      `marginal_moments`. Where both are close, sampling errors may put it below ``lower``; it is returned as it is;
    - ``saturated``: 1 if ``lower`` is above ``0.9 log M``, so that the truth may be far above it; otherwise 0;
    - ``rate``: the mean KL from the standard normal;
    - ``marginal_kl_lower`` and ``marginal_kl_upper``: ``max(rate - upper, 0)`` and ``rate - lower``, between which lies
      the KL of the codes' marginal from the standard normal, since rate = information + that KL.

    Rate and moments are those of all codes, in float64 sums. For the rest, ``max_codes`` codes are kept, over all
    processes. Which ones, and the noise that each gets, is told by the codes' values alone: however they are split into
    batches and processes, the result is the same. The global random state is neither read nor changed.

    Args:
        max_codes: how many codes are kept at most. Time grows with its square.
        seed: of the choice of codes and of the noise.
        num_draws: how many codes are drawn for each input; the bounds are averaged over them.
        kwargs: those of `torchmetrics.Metric`.

    Raises:
        ValueError: for numbers out of range; by ``update`` for codes that are none, of another width than earlier ones,
            or without noise, since their information is infinite; by ``compute`` for less than 2 codes.

    >>> metric = MutualInformation()
    >>> metric.update(torch.tensor([[-100.0], [100.0]]), torch.zeros(2, 1))
    >>> metric.compute()["lower"].exp()  # two codes that are never confused: log 2
    tensor(2.)
    """

    keys: list[Tensor]
    codes: list[Tensor]

    def __init__(self, max_codes: int = 10_000, seed: int = 0, num_draws: int = 1, **kwargs: Any) -> None:
        super().__init__(joint=True, **kwargs)
        self.max_codes = whole_number("max_codes", max_codes, at_least=2)
        self.seed = seed
        self.num_draws = whole_number("num_draws", num_draws, at_least=1)
        # (m,), and (m, 2, K) means and log-variances.
        self.add_state("keys", [], dist_reduce_fx="cat")
        self.add_state("codes", [], dist_reduce_fx="cat")

    def update(self, mean: Tensor, log_var: Tensor) -> None:
        """Take in codes.

        Args:
            mean: ``(B, K, ...)``.
            log_var: the shape of ``mean``.

        Raises:
            ValueError: for codes that are none, of another width than earlier ones, or without noise.
        """
        mean, log_var = checked_codes(mean, log_var)
        noiseless = int((log_var == -torch.inf).any(1).sum())
        if noiseless:
            raise ValueError(
                f"log_var is -inf in {noiseless} of {len(mean)} rows: the information of codes without noise is "
                "infinite; MarginalMoments takes them"
            )
        super().update(mean, log_var)
        codes = torch.stack([mean, log_var], 1) + 0.0  # -0 is 0, and must have its key
        self._store(code_keys(codes, self.seed), codes)

    def in_float64(self) -> dict[str, Tensor]:
        """Return the results of the codes so far (on this process, unless the metric is synchronised), unrounded."""
        found = moments_of(self.sums)
        self._keep()  # noise is drawn in the order of the keys
        nce, leave_one_out = self._bounds()
        rate, lower = found["rate"], nce.to(self.count.device)
        upper = torch.stack([leave_one_out.to(lower.device), rate, found["information_upper"]]).min()
        return {
            "lower": lower,
            "upper": upper,
            "saturated": (lower > 0.9 * math.log(len(self.keys[0]))).double(),
            "rate": rate,
            "marginal_kl_lower": (rate - upper).clamp(min=0),
            "marginal_kl_upper": rate - lower,
        }

    def _bounds(self) -> tuple[Tensor, Tensor]:
        """The NCE and the leave-one-out bound, averaged over the codes that are kept and over the draws."""
        keys, (mean, log_var) = self.keys[0], self.codes[0].unbind(1)
        # Equal codes are neighbours, and share a column, so that rounding cannot tell them apart.
        column = keys.unique_consecutive(return_inverse=True)[1]
        distinct = torch.cat([column[:1] == 0, column.diff() > 0])
        generator = torch.Generator().manual_seed(self.seed)
        others = []
        for _ in range(self.num_draws):
            noise = torch.randn(mean.shape, dtype=mean.dtype, generator=generator).to(mean.device)
            z = mean + (0.5 * log_var).exp() * noise
            size = max(1, _AT_ONCE // len(z))
            for first in range(0, len(z), size):
                densities = pairwise_log_density(z[first : first + size], mean[distinct], log_var[distinct])
                others.append(others_of(densities[:, column], first))
        compared = torch.cat(others)
        return stratified(compared, len(keys)).mean(), -compared.mean()

    def _store(self, keys: Tensor, codes: Tensor) -> None:
        """Take in codes ``(B, 2, K)``, but keep no more than those with the smallest keys."""
        keys, codes = keys.to(self.keys[0].device), codes.to(self.codes[0].device)
        if len(self.keys[0]) < self.max_codes:
            self.keys.append(keys)
            self.codes.append(codes)
            if sum(map(len, self.keys)) >= self.max_codes:
                self._keep()
            return
        # Only those that come in are written, in the places of those that go: the others are not copied each time.
        kept, limit = self.keys[0], len(self.keys[0])
        order = torch.cat([kept, keys]).argsort(stable=True)[:limit]
        goes = torch.ones_like(kept, dtype=torch.bool)
        goes[order[order < limit]] = False
        comes = order[order >= limit] - limit
        kept[goes], self.codes[0][goes] = keys[comes], codes[comes]

    def _keep(self) -> None:
        """Put all codes into one tensor, in the order of their keys, without those that are too many."""
        # Lists, but one tensor each after the reduction over processes.
        keys, codes = dim_zero_cat(self.keys), dim_zero_cat(self.codes)
        order = keys.argsort(stable=True)[: self.max_codes]
        self.keys, self.codes = [keys[order]], [codes[order]]

    def _widen(self, width: int) -> None:
        super()._widen(width)
        if len(self.keys) == 0:
            self.keys = [torch.zeros(0, dtype=torch.int64, device=self.count.device)]
            self.codes = [self.count.new_zeros(0, 2, width)]

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        super()._reduce_states(incoming_state)
        if len(self.keys):
            self._keep()

    def _sync_dist(
        self, dist_sync_fn: Callable[..., Any] = gather_all_tensors, process_group: Any | None = None
    ) -> None:
        super()._sync_dist(dist_sync_fn, process_group)
        if len(self.keys):
            self._keep()


def code_keys(codes: Tensor, seed: int) -> Tensor:
    """Return a number for each code that looks random, but is told by the code's bits alone.

    Whole numbers that wrap around are exact in every order, so that batch, process and device make no difference.

    Args:
        codes: ``(B, ...)`` in float64.
        seed: other seeds give other numbers.

    Returns:
        ``(B,)``, int64. Equal codes have equal keys, others have other keys (but for about one in 2^63 pairs).

    >>> keys = code_keys(torch.tensor([[1.0], [2.0], [1.0]], dtype=torch.float64), seed=0)
    >>> (keys == keys[0]).tolist()
    [True, False, True]
    """
    bits = codes.flatten(1).view(torch.int64)
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randint(-(2**63), 2**63 - 1, (bits.shape[1],), generator=generator).to(bits.device) | 1
    # The low bits of a number that came in float32 are all 0, and products would leave them so.
    keys = (_xor_shifted(bits, 32) * factors).sum(1)
    # The finaliser of splitmix64; its factors as signed numbers.
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        keys = _xor_shifted(keys, shift) * factor
    return _xor_shifted(keys, 31)


def _xor_shifted(bits: Tensor, shift: int) -> Tensor:
    """``bits ^ (bits >> shift)`` of unsigned numbers."""
    return bits ^ ((bits >> shift) & ((1 << (64 - shift)) - 1))
