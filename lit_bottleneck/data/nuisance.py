"""What a loader does to an image that its label does not depend on, and tells: by how much."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_bottleneck.data.base import check_integer


class Nuisance(ABC):
    """A change of an image that leaves its label as it is, described by F numbers: its factors.

    A data module that is given one makes batches `(images, labels, factors)`. So one can ask how much of a factor a
    code still has: a bottleneck should forget what the task does not need (arXiv 1706.01350).
    """

    factor_names: tuple[str, ...]

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw the factors of `count` images.

        Args:
            count: B.
            generator: Of the draws. None: torch's global one.

        Returns:
            float32 `(B, F)`.
        """

    @abstractmethod
    def apply(self, images: Tensor, factors: Tensor) -> Tensor:
        """Change each image by its own factors.

        Args:
            images: float `(B, C, H, W)` in [0, 1]; 0 is the background.
            factors: float `(B, F)`.

        Returns:
            Images of the same shape and type.

        Raises:
            ValueError: If there is not one row of F factors per image.
        """

    def _check(self, images: Tensor, factors: Tensor) -> None:
        """Refuse images and factors that do not belong together."""
        needed = (len(images), len(self.factor_names))
        if images.ndim != 4 or tuple(factors.shape) != needed:
            raise ValueError(
                f"{type(self).__name__} needs images (B, C, H, W) and factors (B, {needed[1]}); "
                f"got {tuple(images.shape)} and {tuple(factors.shape)}"
            )


class Rotation(Nuisance):
    """Turns about the image's centre, by an angle in degrees that is uniform in [-max_degrees, max_degrees].

    Positive is counter-clockwise, as one sees the picture. Pixels are interpolated bilinearly, and what comes in from
    outside is background.

    >>> image = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    >>> Rotation(90).apply(image, torch.tensor([[90.0]])).round()
    tensor([[[[1., 3.],
              [0., 2.]]]])

    Args:
        max_degrees: Above 0, at most 180.

    Raises:
        ValueError: If it is out of this range.
    """

    factor_names: tuple[str, ...] = ("rotation",)

    def __init__(self, max_degrees: float = 45.0) -> None:
        if not isinstance(max_degrees, (int, float)) or isinstance(max_degrees, bool) or not 0 < max_degrees <= 180:
            raise ValueError(f"max_degrees={max_degrees!r} must be a number above 0 and at most 180")
        self.max_degrees = float(max_degrees)

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw `count` angles in degrees: float32 `(B, 1)`."""
        return torch.rand(count, 1, generator=generator).mul_(2).sub_(1).mul_(self.max_degrees)

    def apply(self, images: Tensor, factors: Tensor) -> Tensor:
        """Turn each image `(B, C, H, W)` by its own angle in degrees `(B, 1)`; also beyond `max_degrees`."""
        self._check(images, factors)
        height, width = images.shape[-2:]
        angle = factors[:, 0].to(images.dtype).deg2rad()
        cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        # Where each pixel of the result comes from. Both axes run from -1 to 1, whatever the sides are, and y down.
        source = torch.stack(
            [
                torch.stack([cosine, -sine * (height / width), zero], 1),
                torch.stack([sine * (width / height), cosine, zero], 1),
            ],
            1,
        )
        grid = F.affine_grid(source, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


class Translation(Nuisance):
    """Moves by whole pixels, `x` to the right and `y` down, each uniform among -max_pixels, ..., max_pixels.

    No pixel is interpolated. What comes in from outside is background, what goes out is lost.

    >>> image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> Translation(1).apply(image, torch.tensor([[1.0, -1.0]]))
    tensor([[[[0., 3.],
              [0., 0.]]]])

    Args:
        max_pixels: At least 1, and less than the smaller side of the images.

    Raises:
        ValueError: If it is below 1 or no integer.
    """

    factor_names: tuple[str, ...] = ("x", "y")

    def __init__(self, max_pixels: int = 4) -> None:
        check_integer("max_pixels", max_pixels, at_least=1)
        self.max_pixels = max_pixels

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw `count` moves in pixels: float32 `(B, 2)`, whole numbers."""
        return torch.randint(-self.max_pixels, self.max_pixels + 1, (count, 2), generator=generator).float()

    def apply(self, images: Tensor, factors: Tensor) -> Tensor:
        """Move each image `(B, C, H, W)` by its own whole numbers of pixels `(B, 2)`.

        Raises:
            ValueError: If a move is no whole number, or `max_pixels` would empty images of this size.
        """
        self._check(images, factors)
        height, width = images.shape[-2:]
        if self.max_pixels >= min(height, width):
            raise ValueError(
                f"max_pixels={self.max_pixels} moves images of {height} x {width} out of sight; "
                f"at most {min(height, width) - 1} will do"
            )
        moves = factors.long()
        broken = factors[moves != factors]
        if len(broken):
            raise ValueError(f"factors of a Translation must be whole numbers of pixels; got {broken[0].item():g}")
        return _moved(_moved(images, moves[:, 1], dim=2), moves[:, 0], dim=3)


def _moved(images: Tensor, moves: Tensor, dim: int) -> Tensor:
    """Move each image by its own entry of `moves` `(B,)` along `dim`, with zeros in what becomes free."""
    size = images.shape[dim]
    shape = [-1, 1, 1, 1]
    shape[dim] = size
    source = (torch.arange(size, device=moves.device) - moves[:, None]).reshape(shape)
    outside = (source < 0) | (source >= size)
    return images.gather(dim, source.clamp(0, size - 1).expand_as(images)).masked_fill_(outside, 0)
