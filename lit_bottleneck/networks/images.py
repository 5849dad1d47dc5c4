"""Sizes of the images in convolutional networks, and their last layer."""

import math
from collections.abc import Sequence

from torch import nn

from lit_bottleneck.checks import ConfigurationError, image_dims

_SMALLEST = 4  # pixels of a side that halving leaves at least


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
    side = math.gcd(height, width)
    count = 0
    while side % 2 == 0 and min(height, width) >> (count + 1) >= _SMALLEST:
        side, count = side // 2, count + 1
    if count == 0:
        least = 2 * _SMALLEST
        raise ConfigurationError(f"dims must have sides that are even and at least {least}; got {tuple(dims)}")
    return count, height >> count, width >> count


def moments_layer(channels: int, height: int, width: int, out_features: int, spatial: bool) -> nn.Module:
    """Return the layer from a feature map to the moments of one code per image, or per position if ``spatial``."""
    if spatial:
        return nn.Conv2d(channels, out_features, 1)
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, out_features))
