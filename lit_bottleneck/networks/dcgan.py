"""DCGAN generator and encoder: strided convolutions without residual connections (arXiv 1511.06434)."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

from torch import nn

from lit_bottleneck.checks import one_of, sizes
from lit_bottleneck.networks.layers import halvings, initialize, moments_layer

Normalization = Literal["none", "batch", "group"]

_draw_small = partial(nn.init.normal_, std=0.02)  # the paper's; it needs batch normalisation after the layer


class DCGANGenerator(nn.Sequential):
    """One linear layer, then 4 x 4 transposed convolutions that double the image and halve the width, then tanh.

    Batch normalisation and ReLU follow every layer but the last. Images of 8, 28, 32 and 64 pixels start from 4, 7, 4
    and 4 pixels.

    Args:
        noise_dim: width of the noise.
        dims: channels, height and width of the images.
        width: channels before the last layer.

    Shape:
        ``(B, noise_dim)`` to ``(B, C, H, W)`` in [-1, 1].

    Raises:
        ConfigurationError: for sizes below 1, or images that cannot be halved.

    >>> import torch
    >>> DCGANGenerator(16, (1, 28, 28), width=8)(torch.zeros(5, 16)).shape
    torch.Size([5, 1, 28, 28])
    """

    def __init__(self, noise_dim: int, dims: Sequence[int], width: int = 64) -> None:
        noise_dim, width = sizes(noise_dim=noise_dim, width=width)
        stages, height, base_width = halvings(dims)
        channels = width * 2 ** (stages - 1)
        layers: list[nn.Module] = [
            nn.Linear(noise_dim, channels * height * base_width, bias=False),
            nn.Unflatten(1, (channels, height, base_width)),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        ]
        for _ in range(stages - 1):
            layers += [nn.ConvTranspose2d(channels, channels // 2, 4, 2, 1, bias=False)]
            channels //= 2
            layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        super().__init__(*layers, nn.ConvTranspose2d(channels, dims[0], 4, 2, 1), nn.Tanh())
        self.noise_dim, self.dims, self.value_range = noise_dim, tuple(dims), (-1.0, 1.0)
        initialize(self, _draw_small)


class DCGANEncoder(nn.Sequential):
    """4 x 4 convolutions with LeakyReLU that halve the image and double the width, then the moments of a code.

    Args:
        dims: channels, height and width of the images.
        out_features: numbers per example or position: ``2 * latent_dim``.
        width: channels after the first layer.
        normalization: ``"batch"`` (after every layer but the first, as in the paper), ``"group"`` (one group per
            example) or ``"none"``. Gradient penalties, which are per example, need one of the last two.
        spatial: whether every position has a code, instead of the image.

    Shape:
        ``(B, C, H, W)`` to ``(B, out_features)``, or ``(B, out_features, h, w)`` if ``spatial``.

    Raises:
        ConfigurationError: for sizes below 1, images that cannot be halved, or an unknown normalisation.

    >>> import torch
    >>> DCGANEncoder((3, 32, 32), 16, width=8, spatial=True)(torch.zeros(5, 3, 32, 32)).shape
    torch.Size([5, 16, 4, 4])
    """

    def __init__(
        self,
        dims: Sequence[int],
        out_features: int,
        width: int = 64,
        normalization: Normalization = "none",
        spatial: bool = False,
    ) -> None:
        one_of("normalization", normalization, ("none", "batch", "group"))
        out_features, width = sizes(out_features=out_features, width=width)
        stages, height, last_width = halvings(dims)
        layers: list[nn.Module] = [nn.Conv2d(dims[0], width, 4, 2, 1), nn.LeakyReLU(0.2)]
        channels = width
        for _ in range(stages - 1):
            layers.append(nn.Conv2d(channels, 2 * channels, 4, 2, 1, bias=normalization == "none"))
            channels *= 2
            if normalization != "none":
                layers.append(nn.BatchNorm2d(channels) if normalization == "batch" else nn.GroupNorm(1, channels))
            layers.append(nn.LeakyReLU(0.2))
        super().__init__(*layers, moments_layer(channels, height, last_width, out_features, spatial))
        self.dims, self.out_features = tuple(dims), out_features
        self.out_dims = (out_features, height, last_width) if spatial else (out_features,)
        if normalization == "batch":
            initialize(self, _draw_small)
