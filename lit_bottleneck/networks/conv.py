"""A small convolutional encoder."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ConvEncoder(nn.Module):
    """Stages of two 3 x 3 convolutions that halve the image and double the width, then one linear layer.

    Every convolution is followed by batch normalisation and ReLU.

    Args:
        dims: channels, height and width of the images.
        out_features: numbers per example that come out: ``2 * latent_dim``.
        width: channels of the first stage.
        stages: how often the image is halved.

    Shape:
        ``(B, C, H, W)`` to ``(B, out_features)``.

    Raises:
        ValueError: if the image cannot be halved so often.

    >>> ConvEncoder((1, 28, 28), out_features=64, width=8)(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 64])
    """

    def __init__(self, dims: Sequence[int], out_features: int, width: int = 32, stages: int = 2) -> None:
        super().__init__()
        channels, height, rows = dims
        if stages < 1 or height % 2**stages or rows % 2**stages:
            raise ValueError(f"stages={stages} needs images that can be halved so often; got dims={tuple(dims)}")
        self.dims, self.out_features = tuple(dims), out_features
        layers: list[nn.Module] = []
        for stage in range(stages):
            out_channels = width * 2**stage
            layers += [
                *_convolution(channels, out_channels),
                *_convolution(out_channels, out_channels),
                nn.MaxPool2d(2),
            ]
            channels = out_channels
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.moments = nn.Linear(channels * (height >> stages) * (rows >> stages), out_features)

    def forward(self, images: Tensor) -> Tensor:
        """Encode a batch of images."""
        features: Tensor = self.features(images)
        return torch.as_tensor(self.moments(features))


def _convolution(channels: int, out_channels: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()]
