"""Estimates of the mutual information of inputs and codes, from densities of codes under the inputs' posteriors."""

import torch
from torch import Tensor

from lit_bottleneck.checks import whole_number
from lit_bottleneck.functional import at_least_float32


def nce_bound(log_densities: Tensor) -> Tensor:
    """Bound the information from below: ``L_ii - logsumexp_j L_ij + log M`` (InfoNCE, arXiv 1807.03748, 1905.06922).

    At most ``log M``. Over all inputs of a data set, its mean is the information about the index of the input.

    Args:
        log_densities: ``(M, M)``, ``L_ij = log p(z_i|x_j)`` in nats, such as ``functional.pairwise_log_density`` of one
            draw for each of M inputs.

    Returns:
        ``(M,)`` in nats, at least float32; the bound is the mean. Exactly 0 if all columns are equal.

    Raises:
        ValueError: for another shape, or fewer than 2 codes.

    >>> nce_bound(torch.tensor([[0.0, -1000.0], [-1000.0, 0.0]])).exp()
    tensor([2., 2.])
    """
    return stratified(_others(log_densities), len(log_densities))


def leave_one_out_bound(log_densities: Tensor) -> Tensor:
    """Bound the information from above: ``L_ii - logsumexp_{j != i} L_ij + log(M - 1)`` (arXiv 1905.06922).

    Unlimited, and far too large if codes are seldom confused: the rate is then the better bound.

    Args:
        log_densities: ``(M, M)``; see ``nce_bound``.

    Returns:
        ``(M,)`` in nats, at least float32; the bound is the mean. Exactly 0 if all columns are equal.

    Raises:
        ValueError: for another shape, or fewer than 2 codes.

    >>> leave_one_out_bound(torch.tensor([[0.0, -3.0], [-1.0, 0.0]]))
    tensor([3., 1.])
    """
    return -_others(log_densities)


def minibatch_stratified(log_densities: Tensor, dataset_size: int) -> Tensor:
    """Estimate the information from a part of the data, by minibatch stratified sampling (arXiv 1802.04942).

    ``L_ii - logsumexp_j (L_ij + log w_ij)`` with ``w_ii = 1 / N`` and ``w_ij = (N - 1) / (N (M - 1))``, which makes the
    density of the marginal unbiased. (The weights in much copied code fill the first column in place of the diagonal.)

    Args:
        log_densities: ``(M, M)``; see ``nce_bound``.
        dataset_size: N, of which the M codes are a part.

    Returns:
        ``(M,)`` in nats, at least float32; the estimate is the mean. ``nce_bound`` for ``N = M``; exactly 0 if all
        columns are equal.

    Raises:
        ValueError: for another shape, fewer than 2 codes, or a data set smaller than the number of codes.

    >>> minibatch_stratified(torch.tensor([[0.0, -1000.0], [-1000.0, 0.0]]), dataset_size=100).exp().round()
    tensor([100., 100.])
    """
    others = _others(log_densities)
    if whole_number("dataset_size", dataset_size, at_least=1) < len(log_densities):
        raise ValueError(f"dataset_size={dataset_size} is less than the {len(log_densities)} codes of log_densities")
    return stratified(others, dataset_size)


def others_of(log_densities: Tensor, own: Tensor, counts: Tensor) -> Tensor:
    """Return the log of the ratio of each code's mean density under the other inputs to that under its own.

    Args:
        log_densities: ``(n, M)``, of n codes under M different inputs.
        own: ``(n,)``, the column of each code's own input.
        counts: ``(M,)``, the number of inputs that each column stands for.

    Returns:
        ``(n,)``, ``log mean_{j != i} exp(L_ij - L_ii)``. The difference comes first: equal columns give exactly 0.
    """
    own = own[:, None]
    relative = log_densities - log_densities.gather(1, own)
    others = counts.expand_as(relative).scatter_add(1, own, -torch.ones_like(relative[:, :1]))
    relative = relative.masked_fill(others == 0, -torch.inf)
    largest = relative.detach().amax(1, keepdim=True)
    largest = torch.where(largest.isfinite(), largest, 0)
    mean = (others * (relative - largest).exp()).sum(1) / (counts.sum() - 1)
    return mean.log() + largest[:, 0]


def stratified(others: Tensor, size: int | Tensor) -> Tensor:
    """Return ``-log((1 + (size - 1) exp(others)) / size)``, without an overflow, and exactly 0 at 0."""
    largest = others.detach().clamp(min=0)
    return -(((-largest).exp() + (size - 1) * (others - largest).exp()) / size).log() - largest


def _others(log_densities: Tensor) -> Tensor:
    """Return ``others_of`` for one code per input, if the log-densities are valid."""
    if log_densities.dim() != 2 or len(log_densities) != log_densities.shape[1] or len(log_densities) < 2:
        raise ValueError(f"log_densities must be (M, M), with M at least 2; got {tuple(log_densities.shape)}")
    log_densities = at_least_float32(log_densities)
    own = torch.arange(len(log_densities), device=log_densities.device)
    return others_of(log_densities, own, log_densities.new_ones(len(own)))
