"""Outputs of a decoder at many draws of a code."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_bottleneck.code import Code
from lit_bottleneck.training.compilation import uncompiled

_MANY = 4096  # random numbers for one example, which take a CPU 15 microseconds


def decode_draws(decoder: nn.Module, code: Code, n: int) -> Tensor:
    """Return the outputs of a decoder at ``n`` draws of codes ``(B, K)``: ``(n * B, ...)``.

    A CPU takes longer to draw a code than to put it through a linear layer. Where the decoder is one, with fewer
    outputs than K, thousands of numbers were needed for an example and no gradient is, the outputs themselves are
    drawn: they are Gaussian, and have the covariance of the layer's outputs (arXiv 1506.02557).
    """
    layer = _only_layer(decoder)
    if layer is not None and _is_cheaper(layer, code, n):
        mean = code.mean.to(code.z.dtype)
        output: Tensor = decoder(mean)
        if torch.equal(output, F.linear(mean, layer.weight, layer.bias)):  # not if a hook changes what it returns
            return _gaussian_outputs(output, layer.weight, code, n)
    outputs: Tensor = decoder(code.sample(n).flatten(0, 1))
    return outputs


def _only_layer(decoder: nn.Module) -> nn.Linear | None:
    """Return the linear layer that is all of a decoder, but for flattening, or None."""
    layers = [module for module in uncompiled(decoder).modules() if not isinstance(module, nn.Sequential | nn.Flatten)]
    return layers[0] if len(layers) == 1 and type(layers[0]) is nn.Linear else None


def _is_cheaper(layer: nn.Linear, code: Code, n: int) -> bool:
    """Return whether to draw outputs: the root of their covariance takes as long as about (outputs / 8)^2 draws."""
    few = layer.out_features < layer.in_features and layer.out_features**2 <= 64 * n
    many = n * layer.in_features >= _MANY and code.mean.device.type == "cpu" and code.mean.dim() == 2
    return few and many and not torch.is_grad_enabled()


def _gaussian_outputs(mean: Tensor, weight: Tensor, code: Code, n: int) -> Tensor:
    """Draw from ``N(mean, weight diag(exp(log_var)) weight^T)``: ``(n * B, M)`` for means ``(B, M)``."""
    spread = (0.5 * code.log_var).exp().unsqueeze(1) * weight  # (B, M, K); the covariance is spread spread^T
    root: Tensor = torch.linalg.qr(spread.mT, mode="r").R  # root^T root is the same, also where it is singular
    noise = torch.randn(len(root), n, root.shape[1], dtype=root.dtype)
    return (mean.unsqueeze(1) + noise @ root).transpose(0, 1).flatten(0, 1)
