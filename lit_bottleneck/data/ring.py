"""Points from a ring or a grid of Gaussians: the toy that shows which modes a generator has lost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from lit_bottleneck.data.base import LabelledDataModule, check_integer
from lit_bottleneck.data.dataset import Examples
from lit_bottleneck.data.splits import validation_count

Layout = Literal["ring", "grid"]
_TRAINING, _TEST = 1, 2  # streams of random numbers: without them, a seed equal to TEST_SEED would train on test points


class Ring(LabelledDataModule):
    """Points in the plane from a mixture of K equal, isotropic Gaussians; nothing is downloaded.

    A batch is `(points, modes)`: float32 `(B, 2)`, x = m_k + std * e with e ~ N(0, I), and int64 `(B,)`, the k of each.

    The centres m_k are, for

    - a ring: radius * (cos(2 pi k / K), sin(2 pi k / K));
    - a grid: the K crossings of sqrt(K) equally spaced columns and rows, from -radius to radius, row by row from the
      lower left (a grid of one mode is the origin).

    Every mode has the same number of points; where that does not work out, the first modes have one more. The test
    points are the same for every seed, and all training and validation points are drawn independently of them. Rings
    and grids as tests of mode collapse: Metz et al. (arXiv 1611.02163), Srivastava et al. (arXiv 1705.07761).

    >>> ring = Ring(num_modes=4, num_examples=100, test_size=8)
    >>> points, modes = next(iter(ring.test_dataloader()))
    >>> points.shape, modes.bincount().tolist()
    (torch.Size([8, 2]), [2, 2, 2, 2])
    >>> Ring("grid", num_modes=4, radius=1.0).modes.tolist()
    [[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]

    Args:
        layout: "ring" or "grid".
        num_modes: K; of a grid, a square number.
        radius: Of the ring; half the side of the grid.
        std: The standard deviation of each mode, along both axes.
        batch_size: Examples per batch and process.
        num_workers: Loader processes; 0 loads in the main process, which is the fastest for data in memory.
        seed: Of the points to train and validate on, and of the split in these two; not of the test points.
        val_size: Held out of the training examples: a count (int) or a fraction (float). 0 trains on everything.
        num_examples: Points to train and validate on.
        test_size: Points to test on.
        root: Not used: the points need no folder. Here so that all data sets take the same arguments.

    Raises:
        ValueError: If an argument is out of its range; see the message.
    """

    TEST_SEED: ClassVar[int] = 0  # a constant: runs with different seeds are tested on the same points

    def __init__(
        self,
        layout: Layout = "ring",
        num_modes: int = 8,
        radius: float = 2.0,
        std: float = 0.1,
        batch_size: int = 256,
        num_workers: int = 0,
        seed: int = 0,
        val_size: int | float = 0.1,
        num_examples: int = 25_600,
        test_size: int = 5_000,
        root: str | Path | None = None,
    ) -> None:
        if layout not in get_args(Layout):
            raise ValueError(f"layout={layout!r} must be one of {', '.join(map(repr, get_args(Layout)))}")
        check_integer("num_modes", num_modes, at_least=1)
        side = math.isqrt(num_modes)
        if layout == "grid" and side**2 != num_modes:
            raise ValueError(
                f"num_modes={num_modes} is not a square number, which a grid needs; "
                f"give {' or '.join(str(number**2) for number in (side, side + 1))}"
            )
        _check_length("radius", radius)
        _check_length("std", std)
        super().__init__(root, (2,), num_modes, batch_size, num_workers, seed, val_size)
        check_integer("num_examples", num_examples, at_least=1)
        check_integer("test_size", test_size, at_least=1)
        validation_count(val_size, num_examples)
        self.layout, self.num_modes, self.radius, self.std = layout, num_modes, float(radius), float(std)
        self.num_examples, self.test_size = num_examples, test_size

    @property
    def modes(self) -> Tensor:
        """The centres of the Gaussians, float32 `(num_modes, 2)`."""
        return torch.from_numpy(self._centres()).float()

    def load(self) -> tuple[Examples, Examples]:
        """Draw the points to train and validate on, and the test points."""
        return (
            self._draw(self.num_examples, np.random.default_rng([self.seed, _TRAINING])),
            self._draw(self.test_size, np.random.default_rng([self.TEST_SEED, _TEST])),
        )

    def _centres(self) -> np.ndarray:
        """Where the modes are, float64 `(num_modes, 2)`."""
        if self.layout == "ring":
            angles = 2 * math.pi * np.arange(self.num_modes) / self.num_modes
            return self.radius * np.stack([np.cos(angles), np.sin(angles)], 1)
        side = math.isqrt(self.num_modes)
        places = np.linspace(-self.radius, self.radius, side) if side > 1 else np.zeros(1)
        return np.stack([np.tile(places, side), np.repeat(places, side)], 1)

    def _draw(self, count: int, generator: np.random.Generator) -> Examples:
        modes = generator.permutation(np.arange(count) % self.num_modes)
        points = self._centres()[modes] + self.std * generator.standard_normal((count, 2))
        return Examples.of(torch.from_numpy(points).float(), torch.from_numpy(modes).to(torch.int64))


def _check_length(name: str, value: float) -> None:
    """Refuse what is not a positive, finite number."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:  # false for NaN
        raise ValueError(f"{name}={value!r} must be a finite number above 0")
