"""The Gaussian code of a batch, and its rate."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

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


class Code(NamedTuple):
    """A batch of Gaussian codes.

    An index selects examples, as that of a tensor does: ``code[:8]`` is the code of the first eight.

    Attributes:
        z: ``(B, K, ...)``, a draw from ``N(mean, exp(log_var))`` or the mean, in the dtype of the moments.
        mean: ``(B, K, ...)``, at least float32.
        log_var: ``(B, K, ...)``, at least float32; ``-inf`` for a deterministic code.
        kl: ``(B, K, ...)``, KL divergence from the standard normal per dimension, in nats.
        rate: ``(B,)``, the sum of ``kl``: nats per example.

    >>> code = gaussian_code(torch.zeros(5, 6), sample=False)
    >>> code[:2].rate, code.sample(3).shape
    (tensor([0., 0.]), torch.Size([3, 5, 3]))
    """

    z: Tensor
    mean: Tensor
    log_var: Tensor
    kl: Tensor
    rate: Tensor

    def __getitem__(self, rows: Any) -> "Code":  # type: ignore[override]  # of the batch, not of the tuple
        """Return the codes of some examples."""
        return Code(*(field[rows] for field in self))

    def to(self, *args: Any, **kwargs: Any) -> "Code":
        """Move or cast all tensors; the arguments are those of ``Tensor.to``."""
        return Code(*(field.to(*args, **kwargs) for field in self))

    def detach(self) -> "Code":
        """Return the code without its graph."""
        return Code(*(field.detach() for field in self))

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
    moments: Tensor,
    sample: bool,
    noise: Tensor | None = None,
    scale: Scale = "bounded",
    deterministic: bool = False,
    dim: int = 1,
    mask: Tensor | None = None,
) -> Code:
    """Turn a network's output into a Gaussian code.

    Args:
        moments: ``(B, 2K, ...)``, means and raw scales along dimension 1, or along ``dim``.
        sample: whether ``z`` is a draw instead of the mean.
        noise: ``(B, K, ...)``, used in place of a standard normal draw.
        scale: the map from raw scale to log-variance: ``"bounded"`` (sigma = 1 at 0), ``"softplus"`` (the VIB paper's
            ``softplus(raw - 5)``), ``"exp"`` (unbounded, of the VDB authors), or a function.
        deterministic: whether the code is the mean, with a rate of 0.
        dim: dimension of the ``2K`` numbers, such as -1 for ``(B, T, 2K)``.
        mask: ``(B, *positions)``, the shape of ``moments`` without ``dim``. Positions where it is false, such as
            padding, cost nothing: their ``kl`` is 0.

    Raises:
        ValueError: if ``moments`` cannot be halved along ``dim`` or are of whole numbers, ``noise`` has not the shape
            of the mean, or ``mask`` has another shape or type or leaves no position.
    """
    dim = _code_dim(moments, dim)
    if not moments.is_floating_point():
        raise ValueError(f"moments must be of floats; got {moments.dtype}")
    wide = at_least_float32(moments)
    if mask is not None:
        mask = _whole_mask(mask, moments, dim)
        wide = wide.where(mask | wide.isfinite(), 0)  # NaN at padding would be NaN in each gradient
    mean = wide.narrow(dim, 0, wide.shape[dim] // 2)
    if deterministic:
        nothing = torch.zeros_like(mean)
        return Code(mean.to(moments.dtype), mean, nothing - torch.inf, nothing, nothing.flatten(1).sum(1))
    if not sample:
        noise = None
    elif noise is None:
        noise = torch.randn_like(mean)
    elif noise.shape != mean.shape:
        raise ValueError(f"noise needs the shape of the mean, {tuple(mean.shape)}; got {tuple(noise.shape)}")
    z, log_var, kl, rate = fused_code(wide, noise, scale if callable(scale) else _SCALES[scale], dim)
    if mask is not None:
        kl = kl.masked_fill(~mask, 0)
        rate = kl.flatten(1).sum(1)
    return Code((mean if z is None else z).to(moments.dtype), mean, log_var, kl, rate)


def check_scale(scale: Scale) -> Scale:
    """Return ``scale`` if it is a known name or a function.

    Raises:
        ValueError: for an unknown name, listing the known ones.
    """
    if not callable(scale) and scale not in _SCALES:
        raise ValueError(f"scale must be one of {', '.join(map(repr, _SCALES))} or a function; got {scale!r}")
    return scale


def check_width(moments: Tensor, dim: int, latent_dim: int) -> None:
    """Check that moments have ``2 * latent_dim`` numbers along ``dim``.

    Raises:
        ValueError: if they have not.
    """
    width = moments.shape[_dim_of_width(moments, dim)]
    if width != 2 * latent_dim:
        needs = f"latent_dim={latent_dim} needs moments of {2 * latent_dim} numbers along dimension {dim}"
        raise ValueError(f"{needs}; got {width}, of {_shape_of(moments, dim)}")


def _dim_of_width(moments: Tensor, dim: int) -> int:
    """Return the dimension of the ``2K`` numbers, counted from the front."""
    dims = moments.dim()
    if not (0 < dim < dims or -dims < dim < 0):
        needed = "moments need 2 * latent_dim numbers along a dimension after the batch, which is dim"
        raise ValueError(f"{needed}; got dim={dim} and {_shape_of(moments, dim)}")
    return dim % dims


def _code_dim(moments: Tensor, dim: int) -> int:
    """Return the dimension of the ``2K`` numbers, counted from the front, of moments that can be halved along it."""
    place = _dim_of_width(moments, dim)
    if moments.shape[place] % 2:
        raise ValueError(f"moments need 2 * latent_dim numbers along dimension {dim}; got {_shape_of(moments, dim)}")
    return place


def _shape_of(moments: Tensor, dim: int) -> str:
    way_out = " (sequences (B, T, 2K) need dim=-1)" if moments.dim() == 3 and dim == 1 else ""
    return f"the shape {tuple(moments.shape)}{way_out}"


def _whole_mask(mask: Tensor, moments: Tensor, dim: int) -> Tensor:
    """Return a checked mask, ``(B, 1, *positions)`` with the 1 at ``dim``."""
    needed = (*moments.shape[:dim], *moments.shape[dim + 1 :])
    if mask.shape != needed:
        raise ValueError(f"mask needs the shape (batch, *positions), {needed}; got {tuple(mask.shape)}")
    if mask.is_floating_point():
        raise ValueError(f"mask must be of bool or whole numbers, true or 1 where a position counts; got {mask.dtype}")
    # On an accelerator a look at the mask would wait for the device.
    if len(mask) and mask.device.type == "cpu" and not mask.any():
        raise ValueError(f"mask of the shape {tuple(mask.shape)} leaves no position")
    return mask.bool().unsqueeze(dim)
