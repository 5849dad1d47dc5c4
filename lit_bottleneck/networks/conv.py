"""A small convolutional encoder and its mirror-image decoder."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_bottleneck.checks import ConfigurationError, image_dims, sizes
from lit_bottleneck.networks.layers import common_halvings


class ConvEncoder(nn.Module):
    """Stages of two 3 x 3 convolutions that halve the image and double the width, then one linear layer.

    Batch normalisation and ReLU follow every convolution.

    Args:
        dims: channels, height and width of the images.
        out_features: numbers per example: ``2 * latent_dim``.
        width: channels of the first stage.
        stages: how often the image is halved.

    Shape:
        ``(B, C, H, W)`` to ``(B, out_features)``.

    Raises:
        ConfigurationError: for sizes below 1, or if the image cannot be halved so often.

    >>> ConvEncoder((1, 28, 28), out_features=64, width=8)(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 64])
    """

    def __init__(self, dims: Sequence[int], out_features: int, width: int = 32, stages: int = 2) -> None:
        super().__init__()
        width, self.out_features = sizes(width=width, out_features=out_features)
        smallest = _smallest_image(dims, stages)
        self.dims, channels = tuple(dims), dims[0]
        layers: list[nn.Module] = []
        for stage in range(stages):
            out_channels = width * 2**stage
            layers += [*_convolution(channels, out_channels), *_convolution(out_channels, out_channels)]
            layers.append(nn.MaxPool2d(2))
            channels = out_channels
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.moments = nn.Linear(channels * smallest[0] * smallest[1], out_features)

    def forward(self, images: Tensor) -> Tensor:
        """Encode a batch of images."""
        features: Tensor = self.features(images)
        return torch.as_tensor(self.moments(features))


class ConvDecoder(nn.Sequential):
    """Mirror image of ``ConvEncoder``: one linear layer, then stages that double the image and halve the width.

    A stage repeats every pixel (unlike a strided convolution, this leaves no checkerboard) and has two 3 x 3
    convolutions with batch normalisation and ReLU. A last convolution returns the parameters of the likelihood.

    Args:
        dims: channels, height and width of the images.
        latent_dim: width of the code.
        width: channels of the last stage.
        stages: how often the image is doubled.
        numbers_per_output: numbers per output that the likelihood needs, see ``MLPDecoder``.

    Shape:
        ``(B, latent_dim)`` to ``(B, numbers_per_output * C, H, W)``.

    Raises:
        ConfigurationError: for sizes below 1, or if the image cannot be halved so often.

    >>> ConvDecoder((1, 28, 28), latent_dim=32, width=8)(torch.zeros(5, 32)).shape
    torch.Size([5, 1, 28, 28])
    """

    def __init__(
        self, dims: Sequence[int], latent_dim: int, width: int = 32, stages: int = 2, numbers_per_output: int = 1
    ) -> None:
        latent_dim, width, numbers_per_output = sizes(
            latent_dim=latent_dim, width=width, numbers_per_output=numbers_per_output
        )
        smallest = _smallest_image(dims, stages)
        channels = width * 2 ** (stages - 1)
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, channels * smallest[0] * smallest[1]),
            nn.Unflatten(1, (channels, *smallest)),
        ]
        for stage in reversed(range(stages)):
            out_channels = width * 2 ** max(stage - 1, 0)
            layers += [nn.Upsample(scale_factor=2), *_convolution(channels, channels)]
            layers += _convolution(channels, out_channels)
            channels = out_channels
        super().__init__(*layers, nn.Conv2d(channels, numbers_per_output * dims[0], 3, padding=1))
        self.latent_dim, self.dims, self.numbers_per_output = latent_dim, tuple(dims), numbers_per_output


def _smallest_image(dims: Sequence[int], stages: int) -> tuple[int, int]:
    """Return height and width of an image after it is halved ``stages`` times."""
    _, height, width = image_dims(dims)
    possible = common_halvings(height, width)
    if not 1 <= stages <= possible:
        often = f"how often dims={tuple(dims)} can be halved"
        raise ConfigurationError(f"stages must be at least 1 and at most {possible}, {often}; got {stages}")
    return height >> stages, width >> stages


def _convolution(channels: int, out_channels: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()]
