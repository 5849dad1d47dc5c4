"""First two moments of all codes together: their distance from N(0, I), and how dimensions correlate."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lit_bottleneck.metrics.code_metric import CodeMetric, CodeSums, checked_codes, in_float32, sums_of
from lit_bottleneck.metrics.scatter import scatter_root

_PER_DIMENSION, _PER_TRACE = 3, 10  # codes that the bias needs


class MarginalMoments(CodeMetric):
    """Gaussian with the moments of the codes, compared with the standard normal: see ``marginal_moments``.

    Keeps sums in float64 (``K^2`` numbers), not codes: however these are split into batches and processes, the result
    is the same. The time of ``compute`` grows with ``K^3``.

    Args:
        per_dimension: whether to return ``predictability_per_dimension``, ``(K,)``, too.
        kwargs: ``max_dimensions``, the largest K (default: 4096), and those of ``torchmetrics.Metric``.

    Raises:
        ConfigurationError: by ``update`` for codes of more than ``max_dimensions``.
        ValueError: by ``update`` for invalid codes or codes of another width than earlier ones; by ``compute`` for
            fewer than 2 codes, or no more codes than dimensions without noise.

    >>> metric = MarginalMoments()
    >>> metric.update(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]), torch.zeros(2, 2))
    >>> {name: round(value.item(), 4) for name, value in metric.compute().items() if "correlation" in name}
    {'total_correlation': 0.1438, 'largest_correlation': 0.5}
    """

    def __init__(self, per_dimension: bool = False, **kwargs: Any) -> None:
        super().__init__(joint=True, **kwargs)
        self.per_dimension = per_dimension

    def in_float64(self) -> dict[str, Tensor]:
        """Return the unrounded results of the codes so far, on this process unless the metric is synchronised."""
        return moments_of(self.sums, self.per_dimension)


def marginal_moments(
    mean: Tensor, log_var: Tensor, per_dimension: bool = False, mask: Tensor | None = None, dim: int = 1
) -> dict[str, Tensor]:
    """Measure Gaussian codes by the first two moments of their marginal; with a mask, those of its positions.

    With ``m`` the mean of the codes, ``C = Cov(mean) + diag E exp(log_var)`` their covariance (divided by N) and
    ``P = C^-1 Cov(mean)``, in nats:

    - ``rate``: the mean KL from the standard normal, summed over dimensions;
    - ``marginal_kl``: KL of N(m, C) from the standard normal, ``1/2 (tr C + |m|^2 - K - log det C)``: but for its bias,
      a lower bound of the KL of the codes' marginal;
    - ``marginal_kl_bias``: ``(tr(P)^2 + tr(P^2) + 2 tr P) / (4 N)``, about the amount by which ``marginal_kl`` is too
      large (by .85 to 1 of it). Infinite for fewer codes than both ``3 tr(P)^2 / tr(P^2)``, three per dimension in use,
      and ``10 tr P``: the formula, which assumes many codes, would be too small by any factor;
    - ``information_upper``: ``rate - marginal_kl``, an upper bound of I(z; x) that the number of codes does not limit;
      too small by the same bias;
    - ``total_correlation``: that of N(m, C), ``-1/2 log det Corr(C)``;
    - ``dimension_wise_kl``: ``1/2 sum_j (C_jj + m_j^2 - 1 - log C_jj)``, the rest of ``marginal_kl``;
    - ``predictability``: the share of a dimension's variance that a linear function of the others predicts,
      ``1 - 1 / (C_jj (C^-1)_jj)``, averaged over dimensions;
    - ``predictability_max``: the largest of these shares;
    - ``largest_correlation``: the largest ``|Corr(C)_ij|`` of two dimensions; 0 if there is only one.

    These are second moments only: codes with another kind of dependence look independent, and the Gaussian total
    correlation bounds the true one neither from below nor from above.

    Codes without noise have an infinite rate, and the rest follows from ``Cov(mean)``. A constant dimension without
    noise counts as uncorrelated with all others, and makes ``marginal_kl`` infinite; so does a dimension that is a
    linear function of others (to the seven digits of float32), with an infinite total correlation.

    Args:
        mean: ``(B, K, ...)``; without a mask, dimensions after the second are flattened into it.
        log_var: the shape of ``mean``; ``-inf`` where a code has no noise.
        per_dimension: whether to return ``predictability_per_dimension``, ``(K,)``, too.
        mask: ``(B, *positions)``, see ``MarginalMoments.update``.
        dim: dimension of the K numbers, where there is a mask.

    Returns:
        Nine float32 scalars by name.

    Raises:
        ValueError: for invalid codes, fewer than 2, or no more codes than dimensions without noise.

    >>> codes = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).repeat(2, 1), torch.zeros(4, 2)
    >>> {name: round(value.item(), 4) for name, value in list(marginal_moments(*codes).items())[:4]}
    {'rate': 0.5, 'marginal_kl': 0.1534, 'marginal_kl_bias': 0.0938, 'information_upper': 0.3466}
    """
    return in_float32(moments_of(sums_of(*checked_codes(mean, log_var, mask, dim), joint=True), per_dimension))


@dataclass(frozen=True, eq=False)
class Correlations:
    """Correlation matrix of codes and its eigenvectors, free of scales, so that no small dimension drowns in rounding.

    Attributes:
        variances: ``(K,)``, the diagonal of C.
        matrix: ``(K, K)``, with a row of the identity for a constant dimension.
        values: ``(K,)``, eigenvalues, clamped to the size of a rounding error from below.
        vectors: ``(K, K)``, eigenvectors.
        signal: ``(K, K)``, similar to ``P = C^-1 Cov(mean)``, and symmetric.
        singular: ``()``, whether a dimension is a linear function of others.
    """

    variances: Tensor
    matrix: Tensor
    values: Tensor
    vectors: Tensor
    signal: Tensor
    singular: Tensor

    @property
    def half_log_det(self) -> Tensor:
        """``-1/2 log det`` of the matrix; a finite number below the truth where the matrix is singular."""
        return -0.5 * self.values.log().sum() + 0.0  # no negative zero

    @property
    def total_correlation(self) -> Tensor:
        """``-1/2 log det`` of the matrix."""
        return torch.where(self.singular, torch.inf, self.half_log_det.clamp(min=0))


def correlations_of(sums: CodeSums, who: str = "the moments of codes") -> Correlations:
    """Return the correlations of codes.

    Raises:
        ValueError: for fewer than 2 codes, or no more codes than dimensions without noise.
    """
    count = int(sums.count)
    if count < 2:
        raise ValueError(f"{who} need at least 2 codes; got {count}")
    noiseless = int((sums.variances == 0).sum())
    if count < noiseless + 1:
        raise ValueError(f"{who} without noise in {noiseless} dimensions need at least {noiseless + 1}; got {count}")
    # C = rows^T rows. Singular values of rows resolve 1 beside 1e9; eigenvalues of C, beside 1e18, do not.
    noise = (sums.variances / sums.count).sqrt()
    rows = torch.cat([scatter_root(sums.scatter) / sums.count.sqrt(), noise.diag()])
    variances = rows.square().sum(0)
    rows = rows / torch.where(variances > 0, variances, 1).sqrt()
    rows[len(noise) :] += (variances == 0).to(rows).diag()
    left, sizes, vectors = torch.linalg.svd(rows, full_matrices=False)
    matrix = (rows.T @ rows).clamp(-1, 1).fill_diagonal_(1)
    # Noise in all dimensions leaves none a function of others, and the eigenvalues then are as exact as the sizes.
    rounding = 16 * len(sizes) * torch.finfo(sizes.dtype).eps
    smallest = rounding if noiseless else rounding**2
    values, signal = sizes.square(), left[: len(noise)]
    singular = (values.min() <= rounding) & (noiseless > 0)
    return Correlations(variances, matrix, values.clamp(min=smallest), vectors.T, signal.T @ signal, singular)


def moments_of(sums: CodeSums, per_dimension: bool = False) -> dict[str, Tensor]:
    """Return the results of ``marginal_moments`` in float64, from sums with outer products."""
    correlations = correlations_of(sums)
    mean = sums.origin + sums.offsets / sums.count
    rate = sums.rates.sum() / sums.count
    excess = correlations.variances - 1
    dimension_wise = 0.5 * (excess - excess.log1p() + mean.square()).sum()
    predictability = _predictability(correlations)
    off_diagonal = correlations.matrix - torch.eye(sums.width, dtype=rate.dtype, device=rate.device)
    found = {
        "rate": rate,
        "marginal_kl": dimension_wise + correlations.total_correlation,
        "marginal_kl_bias": _bias(sums, correlations),
        "information_upper": _information_upper(sums, correlations),
        "total_correlation": correlations.total_correlation,
        "dimension_wise_kl": dimension_wise,
        "predictability": predictability.mean(),
        "predictability_max": predictability.max(),
        "largest_correlation": off_diagonal.abs().max(),
    }
    return found | {"predictability_per_dimension": predictability} if per_dimension else found


def _information_upper(sums: CodeSums, correlations: Correlations) -> Tensor:
    """Return ``rate - marginal_kl``, without the large terms that cancel: ``1/2 (log det C - E sum log_var)``."""
    log_vars = sums.log_vars / sums.count
    log_ratios = torch.where(log_vars == -torch.inf, torch.inf, correlations.variances.log() - log_vars)
    return (0.5 * log_ratios.sum() - correlations.half_log_det).clamp(min=0)  # negative by rounding only


def _bias(sums: CodeSums, correlations: Correlations) -> Tensor:
    """Return about how much the plug-in KL is too large; infinity for too few codes to tell."""
    trace, squares = correlations.signal.trace(), correlations.signal.square().sum()
    bias = (trace.square() + squares + 2 * trace) / (4 * sums.count)
    dimensions = trace.square() / squares.clamp(min=torch.finfo(squares.dtype).tiny)
    needed = torch.minimum(_PER_DIMENSION * dimensions, _PER_TRACE * trace) * (1 - 1e-9)  # 3 K counts as enough
    return torch.where(sums.count < needed, torch.inf, bias)


def _predictability(correlations: Correlations) -> Tensor:
    """Return ``R^2`` of each dimension given the others, ``(K,)``."""
    inverse = (correlations.vectors.square() / correlations.values).sum(1)
    return (1 - 1 / inverse).clamp(min=0)
