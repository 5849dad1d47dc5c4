"""A multilayer perceptron."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn


class MLP(nn.Sequential):
    """Flatten, then linear layers with ReLU in between.

    Args:
        in_features: numbers per example, for images channels x height x width.
        hidden: widths of the hidden layers; empty for a linear map.
        out_features: numbers per example that come out; ``2 * latent_dim`` for an encoder.
        initialization: ``"torch"`` leaves torch's default; ``"xavier"`` draws weights from the Xavier uniform
            distribution and sets biases to 0, as TensorFlow-Slim does, with which the VIB paper's authors trained.

    Shape:
        ``(B, ...)`` with ``in_features`` numbers per example to ``(B, out_features)``.

    >>> import torch
    >>> MLP(64, [32], 10)(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        out_features: int,
        initialization: Literal["torch", "xavier"] = "torch",
    ) -> None:
        widths = [in_features, *hidden, out_features]
        layers: list[nn.Module] = [nn.Flatten()]
        for width, next_width in pairwise(widths):
            layers += [nn.Linear(width, next_width), nn.ReLU()]
        super().__init__(*layers[:-1])
        self.in_features, self.out_features = in_features, out_features
        if initialization == "xavier":
            for layer in self:
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
                    nn.init.zeros_(layer.bias)
        elif initialization != "torch":
            raise ValueError(f"initialization must be 'torch' or 'xavier'; got {initialization!r}")
