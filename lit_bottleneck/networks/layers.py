"""Layers of several networks: how far images are halved, the last layer, initial weights, spectral normalisation."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from lit_bottleneck.checks import ConfigurationError, image_dims

Initialization = Literal["torch", "xavier"]

_SMALLEST = 4  # pixels of a side that halving leaves at least
_INITIALIZED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)
_NORMALISED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def common_halvings(height: int, width: int) -> int:
    """Return how often both sides of an image can be halved.

    >>> common_halvings(28, 8)
    2
    """
    even = math.gcd(height, width)
    return (even & -even).bit_length() - 1


def halvings(dims: Sequence[int]) -> tuple[int, int, int]:
    """Halve an image ``(C, H, W)`` until a side is odd or below 8 pixels.

    Returns:
        How often it was halved, and the height and width that are left.

    Raises:
        ConfigurationError: if the image cannot be halved once.

    >>> [halvings((1, side, side)) for side in (8, 28, 32, 64)]
    [(1, 4, 4), (2, 7, 7), (3, 4, 4), (4, 4, 4)]
    """
    _, height, width = image_dims(dims)
    count = min(common_halvings(height, width), (min(height, width) // _SMALLEST).bit_length() - 1)
    if count < 1:
        least = 2 * _SMALLEST
        raise ConfigurationError(f"dims must have sides that are even and at least {least}; got {tuple(dims)}")
    return count, height >> count, width >> count


def moments_layer(channels: int, height: int, width: int, out_features: int, spatial: bool) -> nn.Module:
    """Return the layer from a feature map to the moments of one code per image, or per position if ``spatial``."""
    if spatial:
        return nn.Conv2d(channels, out_features, 1)
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, out_features))


def initialize(network: nn.Module, draw: Callable[[Tensor], Any]) -> None:
    """Draw the weights of all linear and convolutional layers in place by ``draw``, and set their biases to 0."""
    for layer in network.modules():
        if isinstance(layer, _INITIALIZED):
            draw(layer.weight)
            if isinstance(layer.bias, Tensor):
                nn.init.zeros_(layer.bias)


def add_spectral_norm(*networks: nn.Module) -> None:
    """Add spectral normalisation to all linear and convolutional layers, in place (arXiv 1802.05957).

    Layers whose weight is already parametrized stay as they are.

    >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> add_spectral_norm(network)
    >>> sorted(name for name, _ in network.named_parameters())
    ['0.bias', '0.parametrizations.weight.original']
    """
    for layer in [layer for network in networks for layer in network.modules()]:
        if isinstance(layer, _NORMALISED) and "weight" in layer._parameters:
            spectral_norm(layer)
