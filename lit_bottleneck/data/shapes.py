"""Drawn shapes, of which every factor is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from lit_bottleneck.data.base import ExamplesDataModule, Part, check_integer
from lit_bottleneck.data.dataset import BatchedDataset, Examples
from lit_bottleneck.data.splits import validation_count

_RADIUS = 0.28  # of the largest shape, as a share of the image's side
# Pixels drawn at once: just below where torch shares an operation out to threads. They would wait for each other at
# every one of the many small operations, on a busy machine for most of a minute in all.
_AT_ONCE = 2**15 - 1


class Shapes(ExamplesDataModule):
    """Binary images of one white shape each, with the five factors it was drawn by; nothing is downloaded.

    A batch is `(images, factors)`: float32 `(B, 1, S, S)` of zeros and ones, and float32 `(B, 5)`, the values of

    - `shape`: 0 a triangle (isosceles), 1 a half disc, 2 a heart. None looks the same after a turn of less than a full
      one, so that an image determines its factors, as far as pixels go (with S = 64 no two of the 110592 images are
      the same; with S = 32 sixteen pairs of the smallest triangles are);
    - `scale`: 6 sizes, from 0.5 to 1 (of which the radius is 0.28 of the image's side);
    - `rotation`: 24 angles, from 0 to 2 pi, counter-clockwise;
    - `x` and `y`: 16 places each of the shape's centre, from 0 (left, top) to 1; every shape is wholly inside.

    `factor_names`, `factor_sizes` and `factor_values` are the grid, and `factor_indices` turns factors into classes.

    All combinations have the same probability. The test images are the same for every seed, and no combination is in
    two parts. The shapes are our own; the factors are those of dSprites (Matthey et al., 2017).

    >>> shapes = Shapes(image_size=32, num_examples=100, test_size=10)
    >>> images, factors = next(iter(shapes.test_dataloader()))
    >>> images.shape, factors.shape, shapes.factor_names
    (torch.Size([10, 1, 32, 32]), torch.Size([10, 5]), ('shape', 'scale', 'rotation', 'x', 'y'))

    Args:
        image_size: S, 64 or 32.
        batch_size: Examples per batch and process.
        num_workers: Loader processes; 0 loads in the main process, which is the fastest for data in memory.
        seed: Of which combinations are drawn, and of the split into training and validation.
        val_size: Held out of the training examples: a count (int) or a fraction (float). 0 trains on everything.
        num_examples: Images to train and validate on.
        test_size: Images to test on.
        root: Not used: the shapes need no folder. Here so that all data sets take the same arguments.

    Raises:
        ValueError: If an argument is out of its range, or there are not so many combinations (110592).
    """

    factor_names: ClassVar[tuple[str, ...]] = ("shape", "scale", "rotation", "x", "y")
    factor_sizes: ClassVar[tuple[int, ...]] = (3, 6, 24, 16, 16)
    value_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    TEST_SEED: ClassVar[int] = 0  # a constant: runs with different seeds are tested on the same images

    def __init__(
        self,
        image_size: int = 64,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
        val_size: int | float = 0.1,
        num_examples: int = 30_000,
        test_size: int = 5_000,
        root: str | Path | None = None,
    ) -> None:
        if not isinstance(image_size, int) or image_size not in (32, 64):
            raise ValueError(f"image_size={image_size!r} must be 32 or 64")
        super().__init__(root, (1, image_size, image_size), batch_size, num_workers, seed, val_size)
        check_integer("num_examples", num_examples, at_least=1)
        check_integer("test_size", test_size, at_least=1)
        combinations = math.prod(self.factor_sizes)
        if num_examples + test_size > combinations:
            raise ValueError(
                f"num_examples={num_examples} and test_size={test_size} are more than the {combinations} combinations"
            )
        validation_count(val_size, num_examples)
        self.image_size, self.num_examples, self.test_size = image_size, num_examples, test_size

    @property
    def factor_values(self) -> tuple[Tensor, ...]:
        """The values that each factor takes, float32 and ascending; the same to the last bit on every machine."""
        shapes, scales, angles, columns, rows = self.factor_sizes
        tables = (
            np.arange(shapes),
            np.linspace(0.5, 1, scales),
            np.linspace(0, 2 * math.pi, angles, endpoint=False),
            np.linspace(0, 1, columns),
            np.linspace(0, 1, rows),
        )
        return tuple(torch.from_numpy(table).float() for table in tables)

    def factor_indices(self, factors: Tensor) -> Tensor:
        """Return which of its values each factor has, also where half precision has rounded it.

        >>> Shapes().factor_indices(torch.tensor([[2.0, 0.5, 0.0, 1.0, 0.2]]))
        tensor([[ 2,  0,  0, 15,  3]])

        Args:
            factors: `(B, 5)`, as the batches have them.

        Returns:
            int64 `(B, 5)`, on the device of `factors`: row by row an index into each of `factor_values`.

        Raises:
            ValueError: If a value is more than a quarter of a step away from all the values of its factor.
        """
        if factors.ndim != 2 or factors.shape[1] != len(self.factor_names):
            raise ValueError(f"factors must be (B, {len(self.factor_names)}); got {tuple(factors.shape)}")
        indices = []
        for name, values, column in zip(self.factor_names, self.factor_values, factors.unbind(1), strict=True):
            distance, index = (column[:, None] - values.to(column.device)).abs().min(1)
            near = distance < (values[1] - values[0]).item() / 4  # false for NaN
            if not near.all():
                raise ValueError(f"{name}={column[~near][0].item():g} is none of its values {values.tolist()}")
            indices.append(index)
        return torch.stack(indices, 1)

    def load(self) -> tuple[Examples, Examples]:
        """Draw the images to train and validate on, and the test images."""
        test, rest = np.split(
            np.random.default_rng(self.TEST_SEED).permutation(math.prod(self.factor_sizes)), [self.test_size]
        )
        training = np.random.default_rng(self.seed).permutation(rest)[: self.num_examples]
        return self._examples(training), self._examples(test)

    def make_dataset(self, examples: Examples, part: Part) -> BatchedDataset:
        """Return the dataset of a part: images as float32."""
        return _Binary(examples)

    def _examples(self, combinations: np.ndarray) -> Examples:
        indices = np.unravel_index(combinations, self.factor_sizes)
        columns = zip(self.factor_values, indices, strict=True)
        factors = torch.stack([values[torch.from_numpy(index)] for values, index in columns], 1)
        return Examples.of(draw_shapes(factors, self.image_size), factors)


class _Binary(BatchedDataset):
    """Images held as uint8 and handed out as float32."""

    def transform(self, inputs: Tensor) -> Tensor:
        return inputs.float()


def draw_shapes(factors: Tensor, image_size: int) -> Tensor:
    """Draw one shape per row.

    Args:
        factors: float32 `(B, 5)`, as `Shapes` has them; values between those of its grid will do.
        image_size: S.

    Returns:
        uint8 `(B, 1, S, S)`: 1 where the centre of a pixel is in the shape.
    """
    drawn = torch.empty(len(factors), 1, image_size, image_size, dtype=torch.uint8)
    for shape, inside in enumerate((_triangle, _half_disc, _heart)):
        of_shape = (factors[:, 0] == shape).nonzero().squeeze(1)
        for rows in of_shape.split(max(1, _AT_ONCE // image_size**2)):
            drawn[rows, 0] = inside(*_axes(factors[rows], image_size)).to(torch.uint8)
    return drawn


def _axes(factors: Tensor, image_size: int) -> tuple[Tensor, Tensor]:
    """Where the pixels are in the shapes' own axes, `(B, S, S)` each; the shapes are within the unit disc."""
    _, scale, rotation, x, y = (column[:, None, None] for column in factors.unbind(1))
    pixels = (torch.arange(image_size) + 0.5) / image_size
    right = pixels[None, None, :] - (_RADIUS + (1 - 2 * _RADIUS) * x)
    up = (_RADIUS + (1 - 2 * _RADIUS) * y) - pixels[None, :, None]
    cosine, sine = rotation.cos() / (_RADIUS * scale), rotation.sin() / (_RADIUS * scale)
    return cosine * right + sine * up, cosine * up - sine * right


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    """Vertices (0, 1) and (+-0.6, -0.8)."""
    return (v >= -0.8) & (3 * u.abs() + v <= 1)


def _half_disc(u: Tensor, v: Tensor) -> Tensor:
    return (v >= -0.2) & (u.square() + (v + 0.2).square() <= 0.96)


def _heart(u: Tensor, v: Tensor) -> Tensor:
    """The curve (x^2 + y^2 - 1)^3 = x^2 y^3, within a radius of 1.35, moved into the unit disc."""
    x, y = 1.36 * u, 1.36 * v + 0.1
    square = x.square()
    return (square + y.square() - 1).pow(3) <= square * y.pow(3)
