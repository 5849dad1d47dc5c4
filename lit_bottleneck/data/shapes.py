"""Drawn shapes with known generative factors."""

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lit_bottleneck.checks import ConfigurationError, sizes
from lit_bottleneck.data.base import ExamplesDataModule
from lit_bottleneck.data.dataset import Examples
from lit_bottleneck.data.splits import validation_count

_RADIUS = 0.28  # of the largest shape, as a share of the image's side
# Pixels drawn at once: just below torch's threshold for several threads. On a busy machine, threads that wait for each
# other at every one of the many small operations take most of a minute.
_AT_ONCE = 2**15 - 1


class Shapes(ExamplesDataModule):
    """Binary images of one white shape each, with the five factors that generated it; nothing is downloaded.

    A batch is ``(images, factors)``: float32 ``(B, 1, S, S)`` of zeros and ones, and float32 ``(B, 5)``, the values of

    - ``shape``: 0 a triangle (isosceles), 1 a half disc, 2 a heart. None has a rotational symmetry, so that an image
      determines its factors, within the resolution (with S = 64 the 110592 images all differ; with S = 32 sixteen
      pairs of the smallest triangles are equal);
    - ``scale``: 6 sizes, from 0.5 to 1 (a radius of 0.28 of the image's side);
    - ``rotation``: 24 angles, from 0 to 2 pi, counter-clockwise;
    - ``x`` and ``y``: 16 positions each of the shape's centre, from 0 (left, top) to 1; every shape is wholly inside.

    ``factor_names``, ``factor_sizes`` and ``factor_values`` describe the grid; ``factor_indices`` turns factors into
    classes.

    All combinations have the same probability. The test images are the same for every seed, and no combination is in
    two parts. The shapes are our own; the factors are those of dSprites (Matthey et al., 2017).

    >>> shapes = Shapes(image_size=32, num_examples=100, test_size=10)
    >>> images, factors = next(iter(shapes.test_dataloader()))
    >>> images.shape, factors.shape, shapes.factor_names
    (torch.Size([10, 1, 32, 32]), torch.Size([10, 5]), ('shape', 'scale', 'rotation', 'x', 'y'))

    Args:
        image_size: S, 64 or 32.
        batch_size: examples per batch and process.
        num_examples: images to train and validate on.
        test_size: images to test on.
        **kwargs: ``num_workers``, ``seed``, ``val_size`` and ``drop_last``, as for ``ExamplesDataModule``; ``root`` is
            not used.

    Raises:
        ConfigurationError: if an argument is out of its range, or there are fewer combinations (110592).
    """

    input_dtype: ClassVar[torch.dtype | None] = torch.float32  # held as uint8
    factor_names: ClassVar[tuple[str, ...]] = ("shape", "scale", "rotation", "x", "y")
    factor_sizes: ClassVar[tuple[int, ...]] = (3, 6, 24, 16, 16)
    value_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    TEST_SEED: ClassVar[int] = 0  # a constant: runs with different seeds are tested on the same images

    def __init__(
        self,
        image_size: int = 64,
        batch_size: int = 128,
        *,
        num_examples: int = 30_000,
        test_size: int = 5_000,
        **kwargs: Any,
    ) -> None:
        if image_size not in (32, 64):
            raise ConfigurationError(f"image_size must be 32 or 64; got {image_size!r}")
        super().__init__(dims=(1, image_size, image_size), batch_size=batch_size, **kwargs)
        self.image_size = image_size
        self.num_examples, self.test_size = sizes(num_examples=num_examples, test_size=test_size)
        combinations = math.prod(self.factor_sizes)
        if num_examples + test_size > combinations:
            wanted = f"num_examples={num_examples} and test_size={test_size}"
            raise ConfigurationError(f"{wanted} are more than the {combinations} combinations of factors")
        validation_count(self.val_size, self.num_examples)

    @property
    def factor_values(self) -> tuple[Tensor, ...]:
        """The values of each factor, float32 and ascending; bit-identical on every machine."""
        shapes, scales, angles, columns, rows = self.factor_sizes
        sizes = np.linspace(0.5, 1, scales)
        rotations = np.linspace(0, 2 * math.pi, angles, endpoint=False)
        tables = (np.arange(shapes), sizes, rotations, np.linspace(0, 1, columns), np.linspace(0, 1, rows))
        return tuple(torch.from_numpy(table).float() for table in tables)

    def factor_indices(self, factors: Tensor) -> Tensor:
        """Return the index of each factor's value, also of values that half precision has rounded.

        >>> Shapes().factor_indices(torch.tensor([[2.0, 0.5, 0.0, 1.0, 0.2]]))
        tensor([[ 2,  0,  0, 15,  3]])

        Args:
            factors: ``(B, 5)``, as in a batch.

        Returns:
            int64 ``(B, 5)``, on the device of ``factors``: column by column an index into ``factor_values``.

        Raises:
            ConfigurationError: if a number is more than a quarter of a step away from all values of its factor.
        """
        if factors.ndim != 2 or factors.shape[1] != len(self.factor_names):
            raise ConfigurationError(f"factors must be (B, {len(self.factor_names)}); got {tuple(factors.shape)}")
        indices = []
        for name, values, column in zip(self.factor_names, self.factor_values, factors.unbind(1), strict=True):
            distance, index = (column[:, None] - values.to(column.device)).abs().min(1)
            near = distance < (values[1] - values[0]).item() / 4  # false for NaN
            if not near.all():
                raise ConfigurationError(f"{name} must be one of {values.tolist()}; got {column[~near][0].item():g}")
            indices.append(index)
        return torch.stack(indices, 1)

    def load(self) -> tuple[Examples, Examples]:
        """Draw the images to train and validate on, and the test images."""
        everything = np.random.default_rng(self.TEST_SEED).permutation(math.prod(self.factor_sizes))
        test, rest = np.split(everything, [self.test_size])
        training = np.random.default_rng(self.seed).permutation(rest)[: self.num_examples]
        return self._examples(training), self._examples(test)

    def _examples(self, combinations: np.ndarray) -> Examples:
        indices = np.unravel_index(combinations, self.factor_sizes)
        columns = zip(self.factor_values, indices, strict=True)
        factors = torch.stack([values[torch.from_numpy(index)] for values, index in columns], 1)
        return Examples.of(draw_shapes(factors, self.image_size), factors)


def draw_shapes(factors: Tensor, image_size: int) -> Tensor:
    """Draw one shape per row.

    Args:
        factors: float32 ``(B, 5)``, as in ``Shapes``; values between those of its grid are allowed.
        image_size: S.

    Returns:
        uint8 ``(B, 1, S, S)``: 1 where the centre of a pixel is in the shape.
    """
    drawn = torch.empty(len(factors), 1, image_size, image_size, dtype=torch.uint8)
    for shape, inside in enumerate((_triangle, _half_disc, _heart)):
        of_shape = (factors[:, 0] == shape).nonzero().squeeze(1)
        for rows in of_shape.split(max(1, _AT_ONCE // image_size**2)):
            drawn[rows, 0] = inside(*_axes(factors[rows], image_size)).to(torch.uint8)
    return drawn


def _axes(factors: Tensor, image_size: int) -> tuple[Tensor, Tensor]:
    """Return the pixels' coordinates in the shapes' own axes, ``(B, S, S)`` each; a shape is in the unit disc."""
    _, scale, rotation, x, y = (column[:, None, None] for column in factors.unbind(1))
    pixels = (torch.arange(image_size) + 0.5) / image_size
    right = pixels[None, None, :] - (_RADIUS + (1 - 2 * _RADIUS) * x)
    up = (_RADIUS + (1 - 2 * _RADIUS) * y) - pixels[None, :, None]
    cosine, sine = rotation.cos() / (_RADIUS * scale), rotation.sin() / (_RADIUS * scale)
    return cosine * right + sine * up, cosine * up - sine * right


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    """Triangle with the vertices (0, 1) and (+-0.6, -0.8)."""
    return (v >= -0.8) & (3 * u.abs() + v <= 1)


def _half_disc(u: Tensor, v: Tensor) -> Tensor:
    return (v >= -0.2) & (u.square() + (v + 0.2).square() <= 0.96)


def _heart(u: Tensor, v: Tensor) -> Tensor:
    """Heart (x^2 + y^2 - 1)^3 <= x^2 y^3, of radius 1.35, moved into the unit disc."""
    x, y = 1.36 * u, 1.36 * v + 0.1
    square = x.square()
    return (square + y.square() - 1).pow(3) <= square * y.pow(3)
