"""Label-preserving image transforms that also return their parameters."""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_bottleneck.checks import ConfigurationError, is_number, whole_number


class Nuisance(ABC):
    """Image transform with F random parameters, its factors, on which the label does not depend.

    A data module with a nuisance makes batches ``(images, labels, factors)``, so that one can measure how much
    information about a factor a code keeps: a bottleneck should discard what the task does not need (arXiv 1706.01350).
    """

    factor_names: tuple[str, ...]

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw the factors of ``count`` images.

        Args:
            count: B.
            generator: source of the random numbers. None: torch's global generator.

        Returns:
            float32 ``(B, F)``.
        """

    @abstractmethod
    def apply(self, images: Tensor, factors: Tensor) -> Tensor:
        """Transform each image by its own factors.

        Args:
            images: floating ``(B, C, H, W)`` in [0, 1]; 0 is the background.
            factors: floating ``(B, F)``.

        Returns:
            Images of the same shape and type.

        Raises:
            ConfigurationError: if there is not one row of F factors per image.
        """

    def _check(self, images: Tensor, factors: Tensor) -> None:
        columns = len(self.factor_names)
        if images.ndim != 4 or factors.shape != (len(images), columns):
            needed = f"{type(self).__name__} needs images (B, C, H, W) and factors (B, {columns})"
            raise ConfigurationError(f"{needed}; got {tuple(images.shape)} and {tuple(factors.shape)}")


class Rotation(Nuisance):
    """Rotation about the image's centre by an angle in degrees, uniform in [-``max_degrees``, ``max_degrees``].

    Positive angles are counter-clockwise, as seen in the picture. Pixels are interpolated bilinearly; pixels from
    outside the image are background.

    >>> image = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    >>> Rotation(90).apply(image, torch.tensor([[90.0]])).round()
    tensor([[[[1., 3.],
              [0., 2.]]]])

    Args:
        max_degrees: above 0, at most 180.

    Raises:
        ConfigurationError: if ``max_degrees`` is out of this range.
    """

    factor_names: tuple[str, ...] = ("rotation",)

    def __init__(self, max_degrees: float = 45.0) -> None:
        if not is_number(max_degrees) or not 0 < max_degrees <= 180:
            raise ConfigurationError(f"max_degrees must be a number above 0 and at most 180; got {max_degrees!r}")
        self.max_degrees = float(max_degrees)

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``count`` angles in degrees: float32 ``(B, 1)``."""
        return torch.rand(count, 1, generator=generator).mul_(2).sub_(1).mul_(self.max_degrees)

    def apply(self, images: Tensor, factors: Tensor) -> Tensor:
        """Rotate each image ``(B, C, H, W)`` by its own angle in degrees ``(B, 1)``, which may exceed the maximum."""
        self._check(images, factors)
        height, width = images.shape[-2:]
        angle = factors[:, 0].to(images.dtype).deg2rad()
        cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        # Each pixel's source. Both axes run from -1 to 1, whatever the sides are, and y points down.
        rows = [cosine, -sine * (height / width), zero, sine * (width / height), cosine, zero]
        grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


class Translation(Nuisance):
    """Shift by whole pixels, ``x`` to the right and ``y`` down, each uniform in {-``max_pixels``, ..., ``max_pixels``}.

    No pixel is interpolated. Pixels from outside the image are background; those shifted out of it are lost.

    >>> image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> Translation(1).apply(image, torch.tensor([[1.0, -1.0]]))
    tensor([[[[0., 3.],
              [0., 0.]]]])

    Args:
        max_pixels: at least 1, and less than the smaller side of the images.

    Raises:
        ConfigurationError: if ``max_pixels`` is not a whole number of at least 1.
    """

    factor_names: tuple[str, ...] = ("x", "y")

    def __init__(self, max_pixels: int = 4) -> None:
        self.max_pixels = whole_number("max_pixels", max_pixels, at_least=1)

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``count`` shifts in pixels: float32 ``(B, 2)``, whole numbers."""
        return torch.randint(-self.max_pixels, self.max_pixels + 1, (count, 2), generator=generator).float()

    def apply(self, images: Tensor, factors: Tensor) -> Tensor:
        """Shift each image ``(B, C, H, W)`` by its own whole numbers of pixels ``(B, 2)``.

        Raises:
            ConfigurationError: if a shift is not a whole number, or ``max_pixels`` is as large as a side of the images.
        """
        self._check(images, factors)
        most = min(images.shape[-2:]) - 1
        if self.max_pixels > most:
            raise ConfigurationError(f"max_pixels={self.max_pixels} moves images out of sight; at most {most} will do")
        shifts = factors.long()
        broken = factors[shifts != factors]
        if len(broken):
            raise ConfigurationError(f"factors of a Translation must be whole numbers of pixels; got {broken[0]:g}")
        return _shifted(_shifted(images, shifts[:, 1], dim=2), shifts[:, 0], dim=3)


def _shifted(images: Tensor, shifts: Tensor, dim: int) -> Tensor:
    """Shift each image along ``dim`` by its own entry of ``shifts`` ``(B,)``, and fill with zeros."""
    size = images.shape[dim]
    source = (torch.arange(size, device=shifts.device) - shifts[:, None])[:, None, None].movedim(-1, dim)
    outside = (source < 0) | (source >= size)
    return images.gather(dim, source.clamp(0, size - 1).expand_as(images)).masked_fill_(outside, 0)
