"""Multilayer perceptrons."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn

from lit_bottleneck.checks import ConfigurationError, one_of, sizes, whole_numbers
from lit_bottleneck.networks.layers import Initialization, initialize

Activation = Literal["relu", "leaky_relu"]


class MLP(nn.Sequential):
    """Multilayer perceptron: flatten, then linear layers with an activation in between.

    Args:
        in_features: numbers per input example; for images channels x height x width.
        hidden: widths of the hidden layers; empty for a linear map.
        out_features: numbers per output example; ``2 * latent_dim`` for an encoder.
        initialization: ``"torch"`` keeps torch's default; ``"xavier"`` draws weights from the Xavier uniform
            distribution and sets biases to 0, as TensorFlow-Slim does, which the VIB paper's authors used.
        activation: ``"relu"``, or ``"leaky_relu"`` with a slope of .2, usual in discriminators.

    Shape:
        ``(B, ...)`` with ``in_features`` numbers per example to ``(B, out_features)``.

    Raises:
        ConfigurationError: for widths below 1, or an unknown initialization or activation.

    >>> import torch
    >>> MLP(64, [32], 10)(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        out_features: int,
        initialization: Initialization = "torch",
        activation: Activation = "relu",
    ) -> None:
        one_of("initialization", initialization, ("torch", "xavier"))
        one_of("activation", activation, ("relu", "leaky_relu"))
        in_features, out_features = sizes(in_features=in_features, out_features=out_features)
        widths = [in_features, *whole_numbers("hidden", hidden, at_least=1), out_features]
        layers: list[nn.Module] = [nn.Flatten()]
        for width, next_width in pairwise(widths):
            layers += [nn.Linear(width, next_width), nn.ReLU() if activation == "relu" else nn.LeakyReLU(0.2)]
        super().__init__(*layers[:-1])
        self.in_features, self.out_features = in_features, out_features
        if initialization == "xavier":
            initialize(self, nn.init.xavier_uniform_)


class MLPDecoder(nn.Sequential):
    """``MLP`` from codes to a likelihood's parameters in the shape of the data, or from noise to examples.

    Args:
        latent_dim: width of the code.
        hidden: widths of the hidden layers.
        dims: shape of an example, such as ``(1, 28, 28)``.
        numbers_per_output: numbers per output that the likelihood needs: 1 for ``"bernoulli"`` and most others, 2 for
            ``"gaussian_per_output"`` and ``"discretized_logistic"``, one per level for ``"categorical"``.
        initialization: see ``MLP``.
        activation: see ``MLP``.

    Shape:
        ``(B, latent_dim)`` to ``(B, numbers_per_output * dims[0], *dims[1:])``.

    Raises:
        ConfigurationError: for sizes below 1, or an unknown initialization or activation.

    >>> import torch
    >>> MLPDecoder(4, [32], (1, 8, 8), numbers_per_output=2)(torch.zeros(5, 4)).shape
    torch.Size([5, 2, 8, 8])
    """

    def __init__(
        self,
        latent_dim: int,
        hidden: Sequence[int],
        dims: Sequence[int],
        numbers_per_output: int = 1,
        initialization: Initialization = "torch",
        activation: Activation = "relu",
    ) -> None:
        latent_dim, numbers_per_output = sizes(latent_dim=latent_dim, numbers_per_output=numbers_per_output)
        dims = whole_numbers("dims", dims, at_least=1)
        if not dims:
            raise ConfigurationError("dims must be the shape of an example, such as (1, 28, 28); got ()")
        super().__init__(
            MLP(latent_dim, hidden, numbers_per_output * math.prod(dims), initialization, activation),
            nn.Unflatten(1, (numbers_per_output * dims[0], *dims[1:])),
        )
        self.latent_dim, self.dims, self.numbers_per_output = latent_dim, dims, numbers_per_output
