"""The formulas of a code, plain and as one autograd function with a hand-written gradient.

At the size of a code a CPU spends its time launching operations: about forty for the plain formulas and their gradient,
half as many for ``fused_code``. Gradients of the gradient use the plain formulas.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function, forward_ad

from lit_bottleneck.functional import (
    HIGHEST_LOG_VAR,
    bounded_log_var,
    kl_per_dimension,
    softplus_log_var,
    with_one_bound,
)

ScaleMap = Callable[[Tensor], Tensor]
# z (None without noise), log_var and kl (B, K, ...), rate (B,)
Parts = tuple[Tensor | None, Tensor, Tensor, Tensor]


def plain_code(moments: Tensor, noise: Tensor | None, scale: ScaleMap, dim: int = 1) -> Parts:
    """Compute a code by the plain formulas.

    Args:
        moments: ``(B, 2K, ...)``, at least float32.
        noise: ``(B, K, ...)``, or None for no draw.
        scale: maps raw scales to log-variances.
        dim: dimension of the ``2K`` numbers.

    Returns:
        ``z = mean + sigma noise`` (None without noise), ``log_var``, ``kl`` and ``rate``.
    """
    mean, raw = moments.chunk(2, dim)
    log_var = scale(raw)
    kl = kl_per_dimension(mean, log_var)
    return None if noise is None else add_noise(mean, log_var, noise), log_var, kl, kl.flatten(1).sum(1)


def add_noise(mean: Tensor, log_var: Tensor, noise: Tensor) -> Tensor:
    """Return ``mean + sigma noise``."""
    return torch.addcmul(mean, torch.exp(0.5 * log_var), noise)


def fused_code(moments: Tensor, noise: Tensor | None, scale: ScaleMap, dim: int = 1) -> Parts:
    """Compute ``plain_code``, as one operation where that is possible and faster."""
    fusible = (
        scale in _WITH_SLOPE
        and moments.requires_grad
        and torch.is_grad_enabled()
        and not (noise is not None and noise.requires_grad)
        and not torch.compiler.is_compiling()  # the compiler fuses the plain formulas itself
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )
    parts: Parts = (FusedCode.apply if fusible else plain_code)(moments, noise, scale, dim)
    return parts


class FusedCode(Function):
    """``plain_code`` as one autograd function."""

    @staticmethod
    def forward(ctx: Any, moments: Tensor, noise: Tensor | None, scale: ScaleMap, dim: int) -> Parts:
        """Compute the code, and save what the gradient needs."""
        width = moments.shape[dim] // 2
        mean, raw = moments.narrow(dim, 0, width), moments.narrow(dim, width, width)
        log_var, slope = _WITH_SLOPE[scale](raw)
        half = 0.5 * log_var
        sigma = half.exp()
        variance = sigma.square()
        grown = half.tanh_().addcmul_(half, variance)  # expm1(log_var), which takes twice as long by itself
        kl = torch.sub(grown, log_var, out=variance).addcmul_(mean, mean).mul_(0.5)  # in the memory of the variance
        moved = None if noise is None else sigma.mul_(noise)
        ctx.save_for_backward(moments, noise, slope, grown, moved)
        ctx.scale, ctx.dim = scale, dim
        ctx.set_materialize_grads(False)
        return None if moved is None else mean + moved, log_var, kl, kl.flatten(1).sum(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, None, None, None]:
        """Return the gradient of the moments."""
        moments, noise, slope, grown, moved = ctx.saved_tensors
        again = torch.is_grad_enabled()  # the gradient itself will be differentiated
        if again or any(map(is_batch, gradients)):
            with torch.enable_grad():
                pairs = zip(plain_code(moments, noise, ctx.scale, ctx.dim), gradients, strict=True)
            parts, given = zip(*((part, gradient) for part, gradient in pairs if gradient is not None), strict=True)
            [of_moments] = torch.autograd.grad(parts, moments, given, create_graph=again)
            return of_moments, None, None, None
        of_z, of_log_var, of_kl, of_rate = gradients
        if of_rate is not None:
            of_rate = of_rate.reshape(-1, *[1] * (moments.dim() - 1))
            of_kl = of_rate if of_kl is None else of_kl + of_rate
        of_moments = torch.zeros_like(moments) if of_kl is None else torch.empty_like(moments)
        width = grown.shape[ctx.dim]
        mean, of_mean = (whole.narrow(ctx.dim, 0, width) for whole in (moments, of_moments))
        of_raw = of_moments.narrow(ctx.dim, width, width)
        if of_kl is not None:
            torch.mul(mean, of_kl, out=of_mean)
            torch.mul(grown, 0.5 * of_kl, out=of_raw)
        if of_z is not None:
            of_mean.add_(of_z)
            of_raw.addcmul_(of_z, moved, value=0.5)
        if of_log_var is not None:
            of_raw.add_(of_log_var)
        of_raw.mul_(slope)
        return of_moments, None, None, None


def is_batch(gradient: Tensor | None) -> bool:
    """Return whether ``gradient`` is a batch of gradients (``is_grads_batched``, ``torch.func.vmap``)."""
    of = torch._C._functorch
    return gradient is not None and (of.is_batchedtensor(gradient) or of.is_legacy_batchedtensor(gradient))


def _bounded(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``bounded_log_var`` and its slope, ``(1 + (raw / bound)^2)^(-3/2)``."""
    raw = raw.clamp(-1e12, 1e12)  # keeps the square finite; beyond, the log-variance is at its bound anyway
    scaled = with_one_bound(raw)
    root = torch.addcmul(raw.new_ones(()), scaled, scaled, value=HIGHEST_LOG_VAR**-2, out=scaled).rsqrt_()
    return raw.mul_(root), root.pow_(3)


def _softplus(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``softplus_log_var`` and its slope ``2 sigmoid(x) / softplus(x)``; ``softplus(x) = exp(x)`` below -80."""
    x = raw - 5.0
    within = x.clamp(min=-80)
    sigma = F.softplus(within)
    log_sigma = sigma.log().add_(x.sub_(within))  # the difference first: it is exactly 0 above -80
    return log_sigma.mul_(2), torch.sigmoid(within).div_(sigma).mul_(2)


_WITH_SLOPE: dict[ScaleMap, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    bounded_log_var: _bounded,
    softplus_log_var: _softplus,
}
