"""Mutual information of inputs and codes: lower and upper bounds."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_bottleneck.checks import whole_number
from lit_bottleneck.functional import pairwise_log_density
from lit_bottleneck.metrics.base import flat
from lit_bottleneck.metrics.code_metric import CodeMetric, CodeSums, checked_codes, in_float32, sums_of
from lit_bottleneck.metrics.contrastive_bounds import others_of, stratified
from lit_bottleneck.metrics.marginal_moments import moments_of

_AT_ONCE = 2**24  # log-densities in memory: 128 MiB


class MutualInformation(CodeMetric):
    """Bounds of the mutual information of inputs and Gaussian codes, in nats: see ``mutual_information``.

    Rate and moments are those of all codes, from float64 sums. For the rest, up to ``max_codes`` different codes over
    all processes are kept, with the number of times that each came. The values of the codes alone decide which are kept
    and which noise each gets: however codes are split into batches and processes, the result is the same. The global
    random state is neither read nor changed.

    Args:
        max_codes: the largest number of different codes to keep; a process holds fewer than twice as many. The time of
            ``compute`` grows with its square, that of ``update`` and memory linearly with it.
        seed: of the choice of codes and of the noise.
        num_draws: how many codes to draw for each input. Default: as many as make ``max_codes`` in all.
        kwargs: ``max_dimensions``, the largest K (default: 4096; memory grows with its square, the time of ``compute``
            with its cube), and those of ``torchmetrics.Metric``.

    Raises:
        ConfigurationError: for numbers out of range; by ``update`` for codes of more than ``max_dimensions``.
        ValueError: by ``update`` for invalid codes, codes of another width than earlier ones, or codes without noise,
            since their information is infinite; by ``compute`` for fewer than 2 codes.

    >>> metric = MutualInformation()
    >>> metric.update(torch.tensor([[-100.0], [100.0]]), torch.zeros(2, 1))
    >>> metric.compute()["lower"].exp()  # two codes that are never confused: log 2
    tensor(2.)
    """

    codes: list[Tensor]

    def __init__(self, max_codes: int = 10_000, seed: int = 0, num_draws: int | None = None, **kwargs: Any) -> None:
        super().__init__(joint=True, **kwargs)
        self.max_codes = whole_number("max_codes", max_codes, at_least=2)
        self.seed = seed
        self.num_draws = None if num_draws is None else whole_number("num_draws", num_draws, at_least=1)
        # Flat rows of counted codes (see ``_counted``). The first tensor holds different codes in the order of their
        # keys, at most max_codes; the others hold those of later batches.
        self.add_state("codes", [], dist_reduce_fx="cat")

    def update(self, mean: Tensor, log_var: Tensor, mask: Tensor | None = None, dim: int = 1) -> None:
        """Add codes, see ``CodeMetric.update``.

        Raises:
            ValueError: for invalid codes, codes of another width than earlier ones, codes without noise, or a mask of
                another shape.
        """
        mean, log_var = _noisy(*self.checked(mean, log_var, mask, dim))
        self.add_sums({0: sums_of(mean, log_var, joint=True)}, mean.shape[1])
        codes = _counted(mean, log_var).to(self.rows_device)
        if self.codes and len(kept := self.codes[0].view(-1, codes.shape[1])) == self.max_codes:
            codes = codes[code_keys(codes[:, 1:], self.seed) <= code_keys(kept[-1:, 1:], self.seed)]
        if len(codes):
            self.codes.append(codes.flatten())
            self.fold()
        else:  # as soon in most batches: a list of empty tensors would grow with all of them
            super().fold()

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add the codes of another metric of this class, or of its state."""
        super().merge_state(incoming_state)
        self._keep()

    def fold(self) -> None:
        """Keep one row of sums, and fewer than twice ``max_codes`` codes."""
        super().fold()
        if len(self.codes) == 1 or sum(map(len, self.codes)) >= 2 * self.max_codes * (1 + 2 * self.sums.width):
            self._keep()

    def in_float64(self) -> dict[str, Tensor]:
        """Return the unrounded results of the codes so far, on this process unless the metric is synchronised."""
        sums, codes = self.sums, self._kept()
        moments_of(sums)  # refuses too few codes
        draws = self.num_draws or max(1, self.max_codes // len(codes))
        return _bracket(sums, *_contrasted(codes, self.seed, draws))

    def _kept(self) -> Tensor:
        """The different codes so far, counted, in the order of their keys, without those that are too many."""
        return _distinct(flat(self.codes).view(-1, 1 + 2 * self.sums.width), self.seed)[: self.max_codes]

    def _keep(self) -> None:
        self.codes = [self._kept().flatten()] if self.codes else []


def mutual_information(
    mean: Tensor, log_var: Tensor, seed: int = 0, num_draws: int = 1, mask: Tensor | None = None, dim: int = 1
) -> dict[str, Tensor]:
    """Bound the mutual information of inputs and Gaussian codes, in nats; with a mask, that of a position's code.

    Returns float32 scalars by name:

    - ``lower``: the mean of ``contrastive_bounds.nce_bound``. With M codes it is at most ``log M``;
    - ``upper``: the least of the mean of ``contrastive_bounds.leave_one_out_bound``, the rate, and the
      ``information_upper`` of ``marginal_moments`` plus its ``marginal_kl_bias``;
    - ``saturated``: 1 if ``lower`` is above ``0.9 log M``, so that the truth may be far above it; otherwise 0;
    - ``rate``: the mean KL from the standard normal;
    - ``marginal_kl_lower`` and ``marginal_kl_upper``: ``rate - upper`` and ``rate - lower`` (not below 0), which bound
      the KL of the codes' marginal from the standard normal, since rate = information + that KL.

    All but the rate are estimates: where the bounds are close, sampling errors may put ``upper`` below ``lower``.

    Args:
        mean: ``(B, K, ...)``.
        log_var: the shape of ``mean``.
        seed: of the noise. The global random state is neither read nor changed.
        num_draws: how many codes to draw for each input.
        mask: ``(B, *positions)``, see ``MutualInformation.update``.
        dim: dimension of the K numbers, where there is a mask.

    Raises:
        ConfigurationError: for ``num_draws`` below 1, or a mask of another shape.
        ValueError: for fewer than 2 codes, invalid codes, or codes without noise, since their information is infinite.

    >>> mutual_information(torch.zeros(5, 3), torch.zeros(5, 3))["upper"]  # a collapsed code
    tensor(0.)
    """
    mean, log_var = _noisy(*checked_codes(mean, log_var, mask, dim))
    sums = sums_of(mean, log_var, joint=True)
    moments_of(sums)  # refuses too few codes
    codes = _distinct(_counted(mean, log_var), seed)
    return in_float32(_bracket(sums, *_contrasted(codes, seed, whole_number("num_draws", num_draws, at_least=1))))


def _bracket(sums: CodeSums, nce: Tensor, leave_one_out: Tensor, total: Tensor) -> dict[str, Tensor]:
    """Return the results of ``mutual_information``, from sums over all codes and the bounds of ``total`` codes."""
    moments = moments_of(sums)
    rate = moments["rate"]
    of_moments = moments["information_upper"] + moments["marginal_kl_bias"]
    upper = torch.stack([leave_one_out, rate, of_moments]).min() + 0.0  # no negative zero
    return {
        "lower": nce,
        "upper": upper,
        "saturated": (nce > 0.9 * total.log()).double(),
        "rate": rate,
        "marginal_kl_lower": (rate - upper).clamp(min=0),
        "marginal_kl_upper": (rate - nce).clamp(min=0),
    }


def _contrasted(codes: Tensor, seed: int, num_draws: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the NCE bound and the leave-one-out bound, averaged over codes and draws, and the number of codes.

    Args:
        codes: different codes ``(m, 1 + 2 K)``, counted.
        seed: of the noise.
        num_draws: for each of the codes.
    """
    counts, (mean, log_var) = codes[:, 0], codes[:, 1:].chunk(2, 1)
    own = torch.arange(num_draws * len(mean), device=mean.device) % len(mean)
    noise = torch.randn(len(own), *mean.shape[1:], dtype=mean.dtype, generator=torch.Generator().manual_seed(seed))
    z = mean[own] + (0.5 * log_var[own]).exp() * noise.to(mean.device)
    parts = [part.split(max(1, _AT_ONCE // len(mean))) for part in (z, own)]
    others = [others_of(pairwise_log_density(z, mean, log_var), own, counts) for z, own in zip(*parts, strict=True)]
    compared, total = torch.cat(others), counts.sum()
    weights = counts[own] / (num_draws * total)
    return (weights * stratified(compared, total)).sum(), -(weights * compared).sum(), total


def _counted(mean: Tensor, log_var: Tensor) -> Tensor:
    """Return codes as rows ``(B, 1 + 2 K)``: the number of times that each came, its means and its log-variances."""
    return torch.cat([mean.new_ones(len(mean), 1), mean, log_var], 1) + 0.0  # -0 becomes 0, to have the key of 0


def _distinct(codes: Tensor, seed: int) -> Tensor:
    """Merge duplicate codes and add their counts ``(m, 1 + 2 K)``, in the order of their keys, with added counts."""
    keys, place = code_keys(codes[:, 1:], seed).unique(return_inverse=True)
    distinct = codes.new_zeros(len(keys), codes.shape[1])
    distinct[place, 1:] = codes[:, 1:]
    distinct[:, 0].index_add_(0, place, codes[:, 0])
    return distinct


def _noisy(mean: Tensor, log_var: Tensor) -> tuple[Tensor, Tensor]:
    """Return checked codes, if all of them have noise."""
    noiseless = int((log_var == -torch.inf).any(1).sum())
    if noiseless:
        words = "the information of codes without noise is infinite; MarginalMoments takes them"
        raise ValueError(f"log_var is -inf in {noiseless} of {len(mean)} rows: {words}")
    return mean, log_var


def code_keys(codes: Tensor, seed: int) -> Tensor:
    """Return a pseudo-random number for each code, a hash of the code's bits alone.

    Integer arithmetic that wraps around is exact in every order, so that batch, process and device make no difference.

    Args:
        codes: ``(B, ...)`` in float64.
        seed: of the hash.

    Returns:
        ``(B,)``, int64. Equal codes have equal keys, different codes different ones (but for one in 2^63 pairs or so).

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
    """Return ``bits ^ (bits >> shift)`` of unsigned numbers."""
    return bits ^ ((bits >> shift) & ((1 << (64 - shift)) - 1))
