"""The Gaussian code of a batch, and its rate."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lit_bottleneck.functional import at_least_float32, bounded_log_var, exp_log_var, softplus_log_var
from lit_bottleneck.fused import add_noise, fused_code

Scale = Literal["bounded", "softplus", "exp"] | Callable[[Tensor], Tensor]

_SCALES: dict[str, Callable[[Tensor], Tensor]] = {
    "bounded": bounded_log_var,
    "softplus": softplus_log_var,
    "exp": exp_log_var,
}


@dataclass(frozen=True, eq=False, slots=True)
class Code:
    """A batch of Gaussian codes.

    Attributes:
        z: ``(B, K, ...)``, a draw from ``N(mean, exp(log_var))`` or the mean, in the dtype of the moments.
        mean: ``(B, K, ...)``, at least float32.
        log_var: ``(B, K, ...)``, at least float32; ``-inf`` for a deterministic code.
        kl: ``(B, K, ...)``, KL divergence from the standard normal per dimension, in nats.
        rate: ``(B,)``, the sum of ``kl``: nats per example.
    """

    z: Tensor
    mean: Tensor
    log_var: Tensor
    kl: Tensor
    rate: Tensor

    def sample(self, n: int) -> Tensor:
        """Draw ``n`` codes for every example: ``(n, B, K, ...)``.

        Raises:
            ValueError: if ``n`` is less than 1.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1; got {n}")
        noise = torch.randn(n, *self.mean.shape, dtype=self.mean.dtype, device=self.mean.device)
        return add_noise(self.mean, self.log_var, noise).to(self.z.dtype)


def gaussian_code(
    moments: Tensor, sample: bool, noise: Tensor | None = None, scale: Scale = "bounded", deterministic: bool = False
) -> Code:
    """Turn a network's output into a Gaussian code.

    Args:
        moments: ``(B, 2K, ...)``, means and raw scales along dimension 1.
        sample: whether ``z`` is a draw instead of the mean.
        noise: ``(B, K, ...)``, used in place of a standard normal draw.
        scale: the map from raw scale to log-variance: ``"bounded"`` (sigma = 1 at 0), ``"softplus"`` (the VIB paper's
            ``softplus(raw - 5)``), ``"exp"`` (unbounded, of the VDB authors), or a function.
        deterministic: whether the code is the mean, with a rate of 0.

    Raises:
        ValueError: if ``moments`` cannot be halved along dimension 1, or ``noise`` has not the shape of the mean.
    """
    if moments.dim() < 2 or moments.shape[1] % 2:
        raise ValueError(f"moments need the shape (batch, 2 * latent_dim, ...); got {tuple(moments.shape)}")
    wide = at_least_float32(moments)
    mean = wide.chunk(2, dim=1)[0]
    if deterministic:
        nothing = torch.zeros_like(mean)
        return Code(mean.to(moments.dtype), mean, nothing - torch.inf, nothing, nothing.flatten(1).sum(1))
    if not sample:
        noise = None
    elif noise is None:
        noise = torch.randn_like(mean)
    elif noise.shape != mean.shape:
        raise ValueError(f"noise needs the shape of the mean, {tuple(mean.shape)}; got {tuple(noise.shape)}")
    z, log_var, kl, rate = fused_code(wide, noise, scale if callable(scale) else _SCALES[scale])
    return Code((mean if z is None else z).to(moments.dtype), mean, log_var, kl, rate)


def check_scale(scale: Scale) -> Scale:
    """Return ``scale`` if it is a known name or a function.

    Raises:
        ValueError: for an unknown name, listing the known ones.
    """
    if not callable(scale) and scale not in _SCALES:
        raise ValueError(f"scale must be one of {', '.join(map(repr, _SCALES))} or a function; got {scale!r}")
    return scale
