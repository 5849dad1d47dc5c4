"""Small residual generator and encoder without normalisation (arXiv 1801.04406, adopted by the VDB paper)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from lit_bottleneck.checks import sizes
from lit_bottleneck.networks.layers import halvings, moments_layer

_SLOPE = 0.2
_WIDEST = 16  # in multiples of the first width


class ResidualBlock(nn.Module):
    """``x + 0.1 * f(x)`` with two 3 x 3 convolutions ``f``, each after a LeakyReLU.

    Args:
        channels: input channels.
        out_channels: output channels; if they differ, a 1 x 1 convolution replaces the identity ``x``.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        hidden = min(channels, out_channels)
        self.first = nn.Conv2d(channels, hidden, 3, padding=1)
        self.second = nn.Conv2d(hidden, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, channels, H, W)`` to ``(B, out_channels, H, W)``."""
        change = self.second(F.leaky_relu(self.first(F.leaky_relu(x, _SLOPE)), _SLOPE))
        added: Tensor = self.shortcut(x) + 0.1 * change
        return added


class ResNetGenerator(nn.Sequential):
    """One linear layer, then residual blocks that double the image and halve the width, then tanh.

    Args:
        noise_dim: width of the noise.
        dims: channels, height and width of the images.
        width: channels of the last block.

    Shape:
        ``(B, noise_dim)`` to ``(B, C, H, W)`` in [-1, 1].

    Raises:
        ConfigurationError: for sizes below 1, or images that cannot be halved.

    >>> import torch
    >>> ResNetGenerator(16, (3, 32, 32), width=8)(torch.zeros(5, 16)).shape
    torch.Size([5, 3, 32, 32])
    """

    def __init__(self, noise_dim: int, dims: Sequence[int], width: int = 64) -> None:
        noise_dim, width = sizes(noise_dim=noise_dim, width=width)
        stages, height, base_width = halvings(dims)
        channels = width * min(2**stages, _WIDEST)
        layers: list[nn.Module] = [
            nn.Linear(noise_dim, channels * height * base_width),
            nn.Unflatten(1, (channels, height, base_width)),
        ]
        for stage in reversed(range(stages)):
            out_channels = width * min(2**stage, _WIDEST)
            layers += [ResidualBlock(channels, out_channels), nn.Upsample(scale_factor=2)]
            channels = out_channels
        layers += [ResidualBlock(channels, width), nn.LeakyReLU(_SLOPE), nn.Conv2d(width, dims[0], 3, padding=1)]
        super().__init__(*layers, nn.Tanh())
        self.noise_dim, self.dims, self.value_range = noise_dim, tuple(dims), (-1.0, 1.0)


class ResNetEncoder(nn.Sequential):
    """A convolution, then residual blocks that halve the image and double the width, then the moments of a code.

    Args:
        dims: channels, height and width of the images.
        out_features: numbers per example or position: ``2 * latent_dim``.
        width: channels of the first block.
        spatial: whether every position has a code, instead of the image; images of 32 pixels have 4 x 4 positions.
        last_activation: whether a LeakyReLU precedes the moments. That of the VDB authors' code has none.

    Shape:
        ``(B, C, H, W)`` to ``(B, out_features)``, or ``(B, out_features, h, w)`` if ``spatial``.

    Raises:
        ConfigurationError: for sizes below 1, or images that cannot be halved.

    >>> import torch
    >>> ResNetEncoder((3, 32, 32), 16, width=8, spatial=True)(torch.zeros(5, 3, 32, 32)).shape
    torch.Size([5, 16, 4, 4])
    """

    def __init__(
        self,
        dims: Sequence[int],
        out_features: int,
        width: int = 64,
        spatial: bool = False,
        last_activation: bool = True,
    ) -> None:
        out_features, width = sizes(out_features=out_features, width=width)
        stages, height, last_width = halvings(dims)
        layers: list[nn.Module] = [nn.Conv2d(dims[0], width, 3, padding=1), ResidualBlock(width, width)]
        channels = width
        for stage in range(stages):
            out_channels = width * min(2 ** (stage + 1), _WIDEST)
            layers += [nn.AvgPool2d(3, 2, 1), ResidualBlock(channels, out_channels)]
            channels = out_channels
        layers += [nn.LeakyReLU(_SLOPE)] if last_activation else []
        super().__init__(*layers, moments_layer(channels, height, last_width, out_features, spatial))
        self.dims, self.out_features = tuple(dims), out_features
        self.out_dims = (out_features, height, last_width) if spatial else (out_features,)


class LogitHead(nn.Sequential):
    """Flatten, LeakyReLU, and one linear layer from a code to a logit: the head of the VDB authors' code.

    Args:
        in_features: numbers per code, all positions together.

    Shape:
        ``(B, ...)`` to ``(B, 1)``.

    Raises:
        ConfigurationError: for an ``in_features`` below 1.
    """

    def __init__(self, in_features: int) -> None:
        [in_features] = sizes(in_features=in_features)
        super().__init__(nn.Flatten(), nn.LeakyReLU(_SLOPE), nn.Linear(in_features, 1))
