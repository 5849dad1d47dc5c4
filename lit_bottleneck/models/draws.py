"""Outputs of a decoder at many draws of a code."""

import torch
from torch import Tensor, nn

from lit_bottleneck.code import Code
from lit_bottleneck.training.compilation import uncompiled

_MANY = 4096  # random numbers for one example, which take a CPU 15 microseconds
_FORWARDS = (nn.Linear.forward, nn.Sequential.forward, nn.Flatten.forward)


def decode_draws(decoder: nn.Module, code: Code, n: int) -> Tensor:
    """Return the outputs of a decoder at ``n`` draws of each code.

    A CPU takes longer to draw codes than to put them through a linear layer. Where the decoder is one linear layer, its
    outputs are drawn in their place: they are Gaussian, too (arXiv 1506.02557). So it is if thousands of numbers were
    needed for an example, the layer has at most ``K / 2`` and ``sqrt(n)`` outputs, no hook is called with what it
    computes, and no gradient is taken.

    Args:
        decoder: takes codes ``(B, K, ...)``.
        code: the codes ``(B, K, ...)``.
        n: number of draws.

    Returns:
        ``(n * B, ...)``, the first draw of all codes first.
    """
    layer = _linear_layer(decoder)
    if layer is not None and _saves_numbers(layer, code, n) and not _is_recorded():
        return _gaussian_outputs(decoder(code.mean.to(code.z.dtype)), layer.weight, code, n)
    outputs: Tensor = decoder(code.sample(n).flatten(0, 1))
    return outputs


def _linear_layer(decoder: nn.Module) -> nn.Linear | None:
    """Return the linear layer that is all of a decoder, but for flattening and hooks, or None."""
    modules = list(uncompiled(decoder).modules())
    layers = [module for module in modules if isinstance(module, nn.Linear)]
    known = all(type(module).forward in _FORWARDS for module in modules)
    hooked = any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    return layers[0] if len(layers) == 1 and known and not hooked else None


def _saves_numbers(layer: nn.Linear, code: Code, n: int) -> bool:
    """Return whether to draw outputs takes a CPU less time; their covariance takes as much as M^2 draws at most."""
    width, outputs = layer.in_features, layer.out_features
    fewer = 2 * outputs <= width and outputs**2 <= n and n * width >= _MANY
    return fewer and code.mean.shape[1:] == (width,) and code.mean.device.type == "cpu"


def _is_recorded() -> bool:
    """Return whether gradients, a compiler or an exporter follow the computation."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling()


def _gaussian_outputs(mean: Tensor, weight: Tensor, code: Code, n: int) -> Tensor:
    """Draw from ``N(mean, weight diag(exp(log_var)) weight^T)``: ``(n * B, M)`` for means ``(B, M)``."""
    spread = (0.5 * code.log_var).exp().unsqueeze(1) * weight  # (B, M, K); the covariance is spread spread^T
    root: Tensor = torch.linalg.qr(spread.mT, mode="r").R  # root^T root is the same, also where it is singular
    noise = torch.randn(len(root), n, root.shape[1], dtype=root.dtype, device=root.device)
    return (mean.unsqueeze(1) + noise @ root).transpose(0, 1).flatten(0, 1)
