"""What codes tell about their inputs: bounds of the mutual information."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from lit_bottleneck.checks import whole_number
from lit_bottleneck.functional import pairwise_log_density
from lit_bottleneck.metrics.code_metric import CodeMetric
from lit_bottleneck.metrics.code_sums import CodeSums, checked_codes, sums_of
from lit_bottleneck.metrics.contrastive_bounds import others_of, stratified
from lit_bottleneck.metrics.marginal_moments import moments_of

_AT_ONCE = 2**24  # log-densities in memory: 128 MiB of them


class MutualInformation(CodeMetric):
    """Bounds of the mutual information of inputs and Gaussian codes, in nats: see `mutual_information`.

    Rate and moments are those of all codes, in float64 sums. For the rest, ``max_codes`` different codes are kept, over
    all processes, with how often they came. Which ones, and the noise that each gets, is told by the codes' values
    alone: however they are split into batches and processes, the result is the same. The global random state is neither
    read nor changed.

    Args:
        max_codes: how many different codes are kept at most. Time grows with its square.
        seed: of the choice of codes and of the noise.
        num_draws: how many codes are drawn for each input. Default: as many as make ``max_codes`` in all.
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
    counts: list[Tensor]

    def __init__(self, max_codes: int = 10_000, seed: int = 0, num_draws: int | None = None, **kwargs: Any) -> None:
        super().__init__(joint=True, **kwargs)
        self.max_codes = whole_number("max_codes", max_codes, at_least=2)
        self.seed = seed
        self.num_draws = None if num_draws is None else whole_number("num_draws", num_draws, at_least=1)
        # (m,), (m, 2, K) means and log-variances, and (m,).
        for name in ("keys", "codes", "counts"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, mean: Tensor, log_var: Tensor) -> None:
        """Take in codes.

        Args:
            mean: ``(B, K, ...)``.
            log_var: the shape of ``mean``.

        Raises:
            ValueError: for codes that are none, of another width than earlier ones, or without noise.
        """
        mean, log_var = _noisy(mean, log_var)
        super().update(mean, log_var)
        codes = _stacked(mean, log_var)
        keys = code_keys(codes, self.seed).to(self.count.device)
        if len(self.keys[0]) == self.max_codes:  # the largest kept key, below which others may still come in
            near = keys <= self.keys[0][-1]
            keys, codes = keys[near], codes[near.to(codes.device)]
        self.keys.append(keys)
        self.codes.append(codes.to(self.count.device))
        self.counts.append(self.count.new_ones(len(keys)))
        if sum(map(len, self.keys)) >= 2 * self.max_codes:
            self._keep()

    def in_float64(self) -> dict[str, Tensor]:
        """Return the results of the codes so far (on this process, unless the metric is synchronised), unrounded."""
        moments_of(self.sums)  # refuses too few codes
        self._keep()  # noise is drawn in the order of the keys
        draws = self.num_draws or max(1, self.max_codes // len(self.keys[0]))
        return _bracket(self.sums, *_contrasted(self.codes[0], self.counts[0], self.seed, draws))

    def _keep(self) -> None:
        """Put all codes into one tensor, in the order of their keys, once each and without those that are too many."""
        # Lists, but one tensor each after the reduction over processes.
        keys, codes, counts = dim_zero_cat(self.keys), dim_zero_cat(self.codes), dim_zero_cat(self.counts)
        kept = _distinct(keys, codes, counts)
        self.keys, self.codes, self.counts = ([state[: self.max_codes]] for state in kept)

    def _widen(self, width: int) -> None:
        super()._widen(width)
        if len(self.keys) == 0:
            self.keys = [torch.zeros(0, dtype=torch.int64, device=self.count.device)]
            self.codes, self.counts = [self.count.new_zeros(0, 2, width)], [self.count.new_zeros(0)]

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


def mutual_information(mean: Tensor, log_var: Tensor, seed: int = 0, num_draws: int = 1) -> dict[str, Tensor]:
    """Bound the mutual information of inputs and Gaussian codes, in nats.

    Float32 scalars:

    - ``lower``: the mean of `contrastive_bounds.nce_bound`. With M codes it is at most ``log M``;
    - ``upper``: the least of the mean of `contrastive_bounds.leave_one_out_bound`, the rate, and the
      ``information_upper`` of `marginal_moments` plus its ``marginal_kl_bias``;
    - ``saturated``: 1 if ``lower`` is above ``0.9 log M``, so that the truth may be far above it; otherwise 0;
    - ``rate``: the mean KL from the standard normal;
    - ``marginal_kl_lower`` and ``marginal_kl_upper``: ``rate - upper`` and ``rate - lower`` (not below 0), between
      which lies the KL of the codes' marginal from the standard normal, since rate = information + that KL.

    All but the rate are estimates: where the bounds are close, sampling errors may put ``upper`` below ``lower``.
    They are returned as they are.

    Args:
        mean: ``(B, K, ...)``.
        log_var: the shape of ``mean``.
        seed: of the noise. The global random state is neither read nor changed.
        num_draws: how many codes are drawn for each input.

    Raises:
        ValueError: for less than 2 codes, codes that are none, or without noise, since their information is infinite.

    >>> mutual_information(torch.zeros(5, 3), torch.zeros(5, 3))["upper"]  # what tells nothing
    tensor(0.)
    """
    mean, log_var = _noisy(mean, log_var)
    sums = sums_of(mean, log_var, joint=True)
    moments_of(sums)
    codes = _stacked(mean, log_var)
    _, codes, counts = _distinct(code_keys(codes, seed), codes, mean.new_ones(len(mean)))
    found = _bracket(sums, *_contrasted(codes, counts, seed, whole_number("num_draws", num_draws, at_least=1)))
    return {name: value.float() for name, value in found.items()}


def _bracket(sums: CodeSums, nce: Tensor, leave_one_out: Tensor, codes: Tensor) -> dict[str, Tensor]:
    """The bracket that the bounds, the rate and the moments make together; ``codes`` is how many the bounds are of."""
    moments = moments_of(sums)
    rate = moments["rate"]
    of_moments = moments["information_upper"] + moments["marginal_kl_bias"]
    upper = torch.stack([leave_one_out, rate, of_moments]).min() + 0.0  # no negative zero
    return {
        "lower": nce,
        "upper": upper,
        "saturated": (nce > 0.9 * codes.log()).double(),
        "rate": rate,
        "marginal_kl_lower": (rate - upper).clamp(min=0),
        "marginal_kl_upper": (rate - nce).clamp(min=0),
    }


def _contrasted(codes: Tensor, counts: Tensor, seed: int, num_draws: int) -> tuple[Tensor, Tensor, Tensor]:
    """The NCE and the leave-one-out bound, averaged over codes and draws, and how many codes they are of.

    Args:
        codes: ``(m, 2, K)``, means and log-variances that are all different.
        counts: ``(m,)``, how often each came.
        seed: of the noise.
        num_draws: for each of them.
    """
    mean, log_var = codes.unbind(1)
    own = torch.arange(num_draws * len(mean), device=mean.device) % len(mean)
    noise = torch.randn(len(own), *mean.shape[1:], dtype=mean.dtype, generator=torch.Generator().manual_seed(seed))
    z = mean[own] + (0.5 * log_var[own]).exp() * noise.to(mean.device)
    others = []
    for rows in torch.arange(len(own), device=mean.device).split(max(1, _AT_ONCE // len(mean))):
        densities = pairwise_log_density(z[rows], mean, log_var).to(counts.device)
        others.append(others_of(densities, own[rows], counts))
    compared, total = torch.cat(others), counts.sum()
    weights = counts[own] / (num_draws * total)
    return (weights * stratified(compared, total)).sum(), -(weights * compared).sum(), total


def _distinct(keys: Tensor, codes: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The different codes in the order of their keys, and how often each came."""
    order = keys.argsort(stable=True)
    unique, place = keys[order].unique_consecutive(return_inverse=True)
    first = torch.cat([place[:1] == 0, place.diff() > 0])
    return unique, codes[order][first], counts.new_zeros(len(unique)).index_add_(0, place, counts[order])


def _noisy(mean: Tensor, log_var: Tensor) -> tuple[Tensor, Tensor]:
    """Checked codes, if all of them have noise."""
    mean, log_var = checked_codes(mean, log_var)
    noiseless = int((log_var == -torch.inf).any(1).sum())
    if noiseless:
        raise ValueError(
            f"log_var is -inf in {noiseless} of {len(mean)} rows: the information of codes without noise is "
            "infinite; MarginalMoments takes them"
        )
    return mean, log_var


def _stacked(mean: Tensor, log_var: Tensor) -> Tensor:
    return torch.stack([mean, log_var], 1) + 0.0  # -0 is 0, and must have its key


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
