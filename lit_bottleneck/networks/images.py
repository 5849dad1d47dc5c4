"""What convolutional networks here ask of an image, and how they end in a code."""

import math
from collections.abc import Sequence

from torch import nn

from lit_bottleneck.checks import image_dims

_SMALLEST = 4  # pixels: an image is halved as long as this much is left


def halvings(dims: Sequence[int]) -> int:
    """How often an image of ``(C, H, W)`` is halved: until a side is odd, or less than 8 pixels.

    >>> [halvings((1, side, side)) for side in (8, 28, 32, 64)]
    [1, 2, 3, 4]

    Raises:
        ValueError: if that is not possible even once.
    """
    _, height, width = image_dims(dims)
    side = math.gcd(height, width)
    count = 0
    while side % 2 == 0 and min(height, width) >> (count + 1) >= _SMALLEST:
        side, count = side // 2, count + 1
    if count == 0:
        raise ValueError(
            f"images need a height and a width that are even and at least {2 * _SMALLEST} (such as 8, 28, 32 or 64); "
            f"got dims={tuple(dims)}"
        )
    return count


def moments_layer(channels: int, height: int, width: int, out_features: int, spatial: bool) -> nn.Module:
    """From a feature map to the moments of a code: of the whole image, or of each position."""
    if spatial:
        return nn.Conv2d(channels, out_features, 1)
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, out_features))
