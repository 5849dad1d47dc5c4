"""Grey levels as probabilities: binary images drawn from them, anew or once and for all."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lit_bottleneck.data.examples import Indexable


def draw_binary(probability: Tensor) -> Tensor:
    """Return a new draw, 0 or 1, for each `probability` in [0, 1], of the same shape and type.

    >>> draw_binary(torch.tensor([0.0, 1.0]))
    tensor([0., 1.])
    """
    return torch.rand_like(probability).lt_(probability)  # half the time of torch.bernoulli on a CPU


class FixedDraws:
    """Images whose pixels are drawn once: black or white, white with the grey level as probability.

    The draw of a row depends on the seed, the stream and the row alone, so it is the same at every visit, on
    every process, and whether the images are held in memory or decoded when asked for.

    Args:
        images: uint8 `(M, C, H, W)`, grey levels from 0 to `max_value`.
        max_value: White.
        seed: Of the draws.
        stream: Tells apart sets that use the same seed.
    """

    def __init__(self, images: Indexable, max_value: int, seed: int, stream: int) -> None:
        self.images = images
        self.max_value = max_value
        self.seed = seed
        self.stream = stream

    def __len__(self) -> int:
        """Return M."""
        return len(self.images)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return the drawn images in `rows` `(B,)`: uint8 `(B, C, H, W)`, each pixel 0 or `max_value`."""
        images = self.images[rows]
        noise = np.empty(images.shape, dtype=np.float32)
        for position, row in enumerate(rows.tolist()):
            np.random.default_rng((self.seed, self.stream, row)).random(dtype=np.float32, out=noise[position])
        white = torch.from_numpy(noise) < images / self.max_value
        return white.to(torch.uint8).mul_(self.max_value)
