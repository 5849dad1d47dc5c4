"""Points from a ring or a grid of Gaussians: a toy problem that shows which modes a generator has lost."""

import math
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from lit_bottleneck.checks import ConfigurationError, one_of, positive, sizes
from lit_bottleneck.data.base import LabelledDataModule
from lit_bottleneck.data.dataset import Examples
from lit_bottleneck.data.splits import validation_count

Layout = Literal["ring", "grid"]
_TRAINING, _TEST = 1, 2  # random streams: without them, a seed equal to TEST_SEED would train on the test points


class Ring(LabelledDataModule):
    """Points in the plane from a mixture of K equal, isotropic Gaussians; nothing is downloaded.

    A batch is ``(points, modes)``: float32 ``(B, 2)``, x = m_k + std * e with e ~ N(0, I), and int64 ``(B,)``, the k of
    each point. The means m_k are, for

    - a ring: radius * (cos(2 pi k / K), sin(2 pi k / K));
    - a grid: the K crossings of sqrt(K) equally spaced columns and rows, from -radius to radius, row by row from the
      lower left (a grid of one mode is the origin).

    Every mode has the same number of points; with a remainder, the first modes have one more. The test points are the
    same for every seed, and all training and validation points are drawn independently of them. Rings and grids as
    tests of mode collapse: Metz et al. (arXiv 1611.02163), Srivastava et al. (arXiv 1705.07761).

    >>> ring = Ring(num_modes=4, num_examples=100, test_size=8)
    >>> points, modes = next(iter(ring.test_dataloader()))
    >>> points.shape, modes.bincount().tolist()
    (torch.Size([8, 2]), [2, 2, 2, 2])
    >>> Ring("grid", num_modes=4, radius=1.0).modes.tolist()
    [[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]

    Args:
        layout: "ring" or "grid".
        num_modes: K; for a grid, a square number.
        radius: radius of the ring; half the side of the grid.
        std: standard deviation of each mode, along both axes.
        batch_size: examples per batch and process.
        num_examples: points to train and validate on.
        test_size: points to test on.
        **kwargs: ``num_workers``, ``seed``, ``val_size`` and ``drop_last``, as for ``ExamplesDataModule``; ``root`` is
            not used.

    Raises:
        ConfigurationError: if an argument is out of its range.
    """

    TEST_SEED: ClassVar[int] = 0  # a constant: runs with different seeds are tested on the same points

    def __init__(
        self,
        layout: Layout = "ring",
        num_modes: int = 8,
        radius: float = 2.0,
        std: float = 0.1,
        batch_size: int = 256,
        *,
        num_examples: int = 25_600,
        test_size: int = 5_000,
        **kwargs: Any,
    ) -> None:
        self.layout: Layout = one_of("layout", layout, get_args(Layout))
        self.num_modes, self.num_examples, self.test_size = sizes(
            num_modes=num_modes, num_examples=num_examples, test_size=test_size
        )
        side = math.isqrt(self.num_modes)
        if layout == "grid" and side**2 != num_modes:
            squares = f"{side**2} or {(side + 1) ** 2}"
            raise ConfigurationError(
                f"num_modes must be a square number for a grid, such as {squares}; got {num_modes}"
            )
        self.radius, self.std = positive("radius", radius), positive("std", std)
        super().__init__(dims=(2,), num_classes=self.num_modes, batch_size=batch_size, **kwargs)
        validation_count(self.val_size, self.num_examples)

    @property
    def modes(self) -> Tensor:
        """The means of the Gaussians, float32 ``(num_modes, 2)``."""
        return torch.from_numpy(self._means()).float()

    def load(self) -> tuple[Examples, Examples]:
        """Draw the points to train and validate on, and the test points."""
        return (
            self._draw(self.num_examples, np.random.default_rng([self.seed, _TRAINING])),
            self._draw(self.test_size, np.random.default_rng([self.TEST_SEED, _TEST])),
        )

    def _means(self) -> np.ndarray:
        """Return the means of the Gaussians, float64 ``(num_modes, 2)``."""
        if self.layout == "ring":
            angles = 2 * math.pi * np.arange(self.num_modes) / self.num_modes
            return self.radius * np.stack([np.cos(angles), np.sin(angles)], 1)
        side = math.isqrt(self.num_modes)
        places = np.linspace(-self.radius, self.radius, side) if side > 1 else np.zeros(1)
        return np.stack([np.tile(places, side), np.repeat(places, side)], 1)

    def _draw(self, count: int, generator: np.random.Generator) -> Examples:
        modes = generator.permutation(np.arange(count) % self.num_modes)
        points = self._means()[modes] + self.std * generator.standard_normal((count, 2))
        return Examples.of(torch.from_numpy(points).float(), torch.from_numpy(modes).to(torch.int64))
