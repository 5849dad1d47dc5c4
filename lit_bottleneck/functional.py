"""Pure functions of Gaussian codes: scale maps, KL, free bits, log-densities and interpolation.

They compute in at least float32 under any autocast or precision setting (float64 stays float64): a rate in half
precision is inaccurate long before it overflows.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

InterpolationMode = Literal["linear", "slerp", "variance_preserving"]

LOWEST_LOG_VAR, HIGHEST_LOG_VAR = -14.0, 8.0  # of bounded_log_var
_CANCELLED = 1e-4
_AT_ONCE = 2**22  # numbers in memory: 32 MiB


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return ``tensor`` in float32, or in float64 if it is float64 already."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def bounded_log_var(raw: Tensor) -> Tensor:
    """Map a network's raw output smoothly to a log-variance in (-14, 8).

    ``log_var = raw / sqrt(1 + (raw / bound)^2)`` with a bound of 14 below zero and 8 above. At 0 the value is 0
    (sigma = 1) and the slope 1; the first two derivatives are continuous, and the gradient never vanishes. (A clamp has
    no gradient outside its interval; a sigmoid or tanh underflows.)

    Args:
        raw: a tensor of any shape.

    Returns:
        The log-variance, in the shape of ``raw``.

    >>> bounded_log_var(torch.tensor([-1e4, 0.0, 1e4])).round().tolist()
    [-14.0, 0.0, 8.0]
    """
    raw = at_least_float32(raw)
    if torch.onnx.is_in_onnx_export():  # ONNX has no hypot; the clamp, far beyond the bounds, keeps the square finite
        raw = raw.clamp(-1e12, 1e12)
        return raw * (with_one_bound(raw) / HIGHEST_LOG_VAR).square().add(1).rsqrt()
    return raw / torch.hypot(raw.new_ones(()), with_one_bound(raw) / HIGHEST_LOG_VAR)


def with_one_bound(raw: Tensor) -> Tensor:
    """Return ``raw``, smaller below zero, so that the bound of ``bounded_log_var`` on both sides is the highest."""
    return F.leaky_relu(raw, -HIGHEST_LOG_VAR / LOWEST_LOG_VAR)  # faster than where


def exp_log_var(raw: Tensor) -> Tensor:
    """Map a network's raw output to the log-variance of ``sigma = exp(raw)``: ``2 raw``, unbounded.

    This is the map of the VDB authors' code.

    >>> exp_log_var(torch.tensor([-1.0, 0.0])).tolist()
    [-2.0, 0.0]
    """
    return 2 * at_least_float32(raw)


def softplus_log_var(raw: Tensor, shift: float = -5.0) -> Tensor:
    """Map a network's raw output to the log-variance of ``sigma = softplus(raw + shift)``.

    This is the map of the VIB paper (arXiv 1612.00410). At ``raw = 0`` sigma is .0067 and the rate 4.5 nats per
    dimension.

    Args:
        raw: a tensor of any shape.
        shift: added to ``raw`` first.

    Returns:
        ``2 log(softplus(raw + shift))``, in the shape of ``raw``: finite for every finite ``raw``, but unbounded.

    >>> softplus_log_var(torch.tensor([0.0])).exp().sqrt()
    tensor([0.0067])
    """
    x = at_least_float32(raw) + shift
    # softplus(x) underflows far below zero, where log(softplus(x)) = x - exp(x) / 2 + O(exp(2 x)).
    tail = x <= -10
    log_sigma = torch.where(tail, x - x.clamp(max=0).exp() / 2, F.softplus(x.clamp(min=-10)).log())
    return 2 * log_sigma


def kl_per_dimension(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL divergence of ``N(mean, exp(log_var))`` from ``N(0, 1)`` in every dimension, in nats.

    ``1/2 (mean^2 + expm1(log_var) - log_var)``, with ``expm1`` because ``exp(v) - 1 - v`` cancels for small ``v``.

    Args:
        mean: a tensor of any shape.
        log_var: the shape of ``mean``.

    Returns:
        The KL in the shape of ``mean``, at least float32.

    >>> kl_per_dimension(torch.tensor([1.0, -0.5]), torch.tensor([0.0, 0.0])).tolist()
    [0.5, 0.125]
    """
    mean, log_var = at_least_float32(mean), at_least_float32(log_var)
    return 0.5 * torch.addcmul(torch.expm1(log_var) - log_var, mean, mean)


def gaussian_kl(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL divergence of ``N(mean, diag exp(log_var))`` from the standard normal, in nats per example.

    Args:
        mean: ``(B, ...)``.
        log_var: the shape of ``mean``.

    Returns:
        ``(B,)``: summed over all but the first dimension, at least float32.

    >>> mean, variance = torch.tensor([[1.0, -0.5, 0.0]]), torch.tensor([[0.25, 1.0, 4.0]])
    >>> round(gaussian_kl(mean, variance.log()).item(), 6)
    1.75
    """
    return kl_per_dimension(mean, log_var).flatten(1).sum(1)


def free_bits_rate(kl: Tensor, free_bits: float, mean_kl: Tensor | None = None) -> Tensor:
    """Rate in which the first nats of every dimension are free (arXiv 1606.04934).

    Its mean over the batch is ``sum_j max(free_bits, mean_B KL_j)``: a dimension below the threshold has no gradient,
    so nothing pushes it to carry less.

    Args:
        kl: ``(B, ...)``, nats per dimension, such as ``code.kl``.
        free_bits: the threshold, in nats per dimension.
        mean_kl: ``(...)``, compared with the threshold. Default: the mean of ``kl`` over the batch.

    Returns:
        ``(B,)``, the ``priced_rate`` of ``GaussianBottleneck.rate_penalty``.

    >>> free_bits_rate(torch.tensor([[0.1, 2.0], [0.3, 4.0]]), 0.5).tolist()
    [2.5, 4.5]
    """
    kl = at_least_float32(kl)
    mean_kl = kl.detach().mean(0) if mean_kl is None else mean_kl
    return torch.where(mean_kl < free_bits, free_bits, kl).flatten(1).sum(1)


def log_density(z: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Log-density of ``N(mean, exp(log_var))`` at ``z`` in every dimension, in nats, in the broadcast shape.

    >>> log_density(torch.tensor([0.0, 1.0]), torch.tensor(0.0), torch.tensor(0.0))
    tensor([-0.9189, -1.4189])
    """
    z, mean, log_var = at_least_float32(z), at_least_float32(mean), at_least_float32(log_var)
    return -0.5 * ((z - mean).square() * torch.exp(-log_var) + log_var + math.log(2 * math.pi))


def log_ratio(z: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Log-ratio of posterior and prior density, ``log p(z|x) - log q(z)``, in nats.

    Its mean over draws from the posterior is the rate.

    Args:
        z: ``(..., K)``, codes.
        mean: ``(..., K)``, broadcast against ``z``.
        log_var: the shape of ``mean``.

    Returns:
        ``(...)``: summed over the last dimension, at least float32.

    >>> log_ratio(torch.tensor([[0.0, 2.0]]), torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2))
    tensor([1.5000])
    """
    z = at_least_float32(z)
    return (log_density(z, mean, log_var) - log_density(z, z.new_zeros(()), z.new_zeros(()))).sum(-1)


def pairwise_log_density(z: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Log-density of every code under every posterior, ``log p(z_i | x_j)``, in nats.

    Computed by ``square_distances`` in float64: in float32 they would be off by nats where sigma is small.

    Args:
        z: ``(N, ...)``, codes.
        mean: ``(M, ...)``, posterior means.
        log_var: the shape of ``mean``.

    Returns:
        ``(N, M)`` in float64 (on the CPU if the device has no float64).

    Raises:
        ValueError: if the codes and the posteriors differ in width.

    >>> pairwise_log_density(torch.zeros(1, 2), torch.zeros(3, 2), torch.zeros(3, 2)).round(decimals=4).tolist()
    [[-1.8379, -1.8379, -1.8379]]
    """
    if z.shape[1:] != mean.shape[1:] or mean.shape != log_var.shape:
        got = f"{tuple(z.shape)}, {tuple(mean.shape)} and {tuple(log_var.shape)}"
        raise ValueError(f"z, mean and log_var need the shapes (N, ...), (M, ...) and (M, ...); got {got}")
    z, mean, log_var = (_float64(tensor.flatten(1)) for tensor in (z, mean, log_var))
    distances = square_distances(z, mean, torch.exp(-log_var))
    return -0.5 * (distances + log_var.sum(1) + z.shape[1] * math.log(2 * math.pi))


def square_distances(x: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return ``sum_k w_jk (x_ik - y_jk)^2`` for all pairs of rows, to a relative error of some 1e-11 in float64.

    By matrix products, and again from the differences where ``x^2 + y^2 - 2 x y`` cancels to less than 1e-4.

    Args:
        x: ``(N, K)``, float64.
        y: ``(M, K)``, float64.
        weights: ``(M, K)``, not negative. Default: 1.

    Returns:
        ``(N, M)``.

    >>> points = torch.tensor([[1e9], [1e9 + 0.5], [0.0]], dtype=torch.float64)
    >>> square_distances(points, points)[:, 0].tolist()
    [0.0, 0.25, 1e+18]
    """
    weights = y.new_ones(1, y.shape[1]) if weights is None else weights
    some = y[:: 1 + len(y) // 1000].sort(0).values
    centre = some[len(some) // 2]  # about the median, since one far row would move the mean
    a, b = x - centre, y - centre
    squares = a.square() @ weights.T + (b.square() * weights).sum(1)
    distances = squares - 2 * a @ (b * weights).T
    for pairs in (distances < _CANCELLED * squares).nonzero().split(1 + _AT_ONCE // (1 + x.shape[1])):
        i, j = pairs.unbind(1)
        distances[i, j] = ((x[i] - y[j]).square() * weights.expand_as(y)[j]).sum(1)
    return distances


def interpolate(z1: Tensor, z2: Tensor, t: float | Tensor, mode: InterpolationMode = "linear") -> Tensor:
    """Interpolate between two codes.

    - ``linear``: ``(1 - t) z1 + t z2``. Halfway between two draws from the prior the variance is 1/2.
    - ``slerp``: along the great circle through both, ``sin((1-t) w) / sin(w) z1 + sin(t w) / sin(w) z2`` for the angle
      ``w`` between them (linear where ``sin(w)`` vanishes). In float64.
    - ``variance_preserving``: ``cos(pi t / 2) z1 + sin(pi t / 2) z2``, which is N(0, I) for every ``t`` if both ends
      are.

    Args:
        z1: ``(B, ...)``, the codes at ``t = 0``; or one code ``(K,)``.
        z2: the shape of ``z1``, the codes at ``t = 1``.
        t: the position, usually in [0, 1]; a number, or a tensor that broadcasts against the codes, such as
            ``t[:, None]`` with one position per row.
        mode: one of the three above.

    Returns:
        The interpolated codes, in the dtype of ``z1``.

    Raises:
        ValueError: for codes of different shapes, or an unknown mode.

    >>> z1, z2 = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> interpolate(z1, z2, 0.5)
    tensor([[0.5000, 0.5000]])
    >>> interpolate(z1, z2, 0.5, "variance_preserving")
    tensor([[0.7071, 0.7071]])
    """
    if z1.shape != z2.shape:
        raise ValueError(f"z1 and z2 need the same shape; got {tuple(z1.shape)} and {tuple(z2.shape)}")
    start, end = at_least_float32(z1), at_least_float32(z2)
    at = torch.as_tensor(t, dtype=start.dtype, device=start.device)
    if mode == "linear":
        between = (1 - at) * start + at * end
    elif mode == "variance_preserving":
        # sin for both weights: cos(pi / 2) is not exactly 0 in floating point, sin(0) is.
        between = torch.sin(math.pi / 2 * (1 - at)) * start + torch.sin(math.pi / 2 * at) * end
    elif mode == "slerp":
        between = _slerp(start, end, at)
    else:
        raise ValueError(f"mode must be 'linear', 'slerp' or 'variance_preserving'; got {mode!r}")
    return between.to(z1)


def _slerp(z1: Tensor, z2: Tensor, t: Tensor) -> Tensor:
    """Return codes on the great circle in float64, since both weights are large and cancel near opposite codes."""
    rounding = 16 * torch.finfo(z1.dtype).eps  # below it the codes' own rounding leaves the circle open
    start, end, at = (_float64(tensor) for tensor in (z1, z2, t))
    angle = _angle(start, end)
    parallel = angle.sin() < rounding
    safe = torch.where(parallel, 1, angle.sin())
    first = torch.where(parallel, 1 - at, ((1 - at) * angle).sin() / safe)
    second = torch.where(parallel, at, (at * angle).sin() / safe)
    return first * start + second * end


def _angle(z1: Tensor, z2: Tensor) -> Tensor:
    """Return the angle between the codes of each row, in a shape that broadcasts against them."""
    dims = tuple(range(1, z1.dim())) if z1.dim() > 1 else (0,)
    tiny = torch.finfo(z1.dtype).tiny
    unit1, unit2 = (z / torch.linalg.vector_norm(z, dim=dims, keepdim=True).clamp(min=tiny) for z in (z1, z2))
    apart = torch.linalg.vector_norm(unit1 - unit2, dim=dims, keepdim=True)
    together = torch.linalg.vector_norm(unit1 + unit2, dim=dims, keepdim=True)
    return 2 * torch.atan2(apart, together)  # accurate for small angles, unlike acos of a dot product


def _float64(tensor: Tensor) -> Tensor:
    return tensor.cpu().double() if tensor.device.type == "mps" else tensor.double()
