"""Small shards of litdata."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from litdata.streaming import Cache
from torch import Tensor


def write_samples(folder: Path, samples: Iterable[Any], chunk_size: int = 7) -> None:
    """Write samples in shards of ``chunk_size``."""
    cache = Cache(str(folder), chunk_size=chunk_size)
    for index, sample in enumerate(samples):
        cache[index] = sample
    cache.done()
    cache.merge()


def images(total: int, dims: tuple[int, int, int], seed: int = 0) -> Tensor:
    """Return images of noise, of which each has another first pixel."""
    pixels = torch.randint(256, (total, *dims), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    pixels[:, 0, 0, 0] = torch.arange(total)
    return pixels


def write_shards(root: Path, sizes: dict[str, int], dims: tuple[int, int, int] = (3, 16, 16)) -> None:
    """Write the parts of ``sizes``; the label is the number of the image modulo 3."""
    for part, total in sizes.items():
        write_samples(root / part, [(image, row % 3) for row, image in enumerate(images(total, dims))])
