"""Images as a dataset: augmentation, scaling, binarisation, nuisances."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data.dataset import Batch, BatchedDataset, Examples, Indexable
from lit_bottleneck.data.nuisance import Nuisance


class ImageDataset(BatchedDataset):
    """Images held as uint8 (or float32) and returned as float32 in ``value_range``.

    Args:
        examples: images uint8 ``(M, C, H, W)`` with grey levels from 0 to ``max_value``, and their labels; or images
            float32 in [0, 1], with ``max_value`` 1.
        max_value: the grey level that becomes the upper end of ``value_range``.
        value_range: the lower and upper end; [0, ``max_value``] is mapped to it linearly.
        augment: applied to each held image ``(C, H, W)`` on its own, before scaling. It keeps shape and type.
        dynamic: draw each pixel anew at each visit, 0 or 1, with its value as probability (``value_range`` is (0, 1)).
        nuisance: transforms the images, after augmentation; their factors are then the third part of a batch.
        factors: float32 ``(N, F)``, the factors of each image at every visit. None: drawn anew at each visit, from
            torch's global generator.
        has_labels: False makes batches of images alone.
    """

    def __init__(
        self,
        examples: Examples,
        max_value: int,
        value_range: tuple[float, float] = (0.0, 1.0),
        augment: nn.Module | None = None,
        dynamic: bool = False,
        nuisance: Nuisance | None = None,
        factors: Tensor | None = None,
        has_labels: bool = True,
    ) -> None:
        super().__init__(examples)
        self.max_value = max_value
        self.value_range = value_range
        self.augment = augment
        self.dynamic = dynamic
        self.nuisance = nuisance
        self.factors = factors
        self.has_labels = has_labels

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return images float32 ``(B, C, H, W)``, labels ``(B,)`` if any, and with a nuisance factors ``(B, F)``."""
        positions = torch.as_tensor(indices, dtype=torch.int64)
        images, labels = self.examples.take(positions)
        if self.augment is not None:
            images = torch.stack([_augmented(image, self.augment) for image in images])
        pixels = images.float().div_(self.max_value)  # a division, so that white is exactly 1
        if self.dynamic:
            pixels = draw_binary(pixels)
        others = [labels]
        if self.nuisance is not None:
            factors = self.nuisance.draw(len(positions)) if self.factors is None else self.factors[positions]
            pixels = self.nuisance.apply(pixels, factors).clamp(0, 1)  # interpolation may round beyond 0 and 1
            others.append(factors)
        low, high = self.value_range
        if (low, high) != (0, 1):
            pixels = pixels.mul_(high - low).add_(low)
        return (pixels, *others) if self.has_labels else pixels


class FixedDraws:
    """Binary images, drawn once: each pixel is white with its grey level as probability.

    The draw of a row depends on the seed, the stream and the row alone. So it is the same at every visit and on every
    process, whether the images are in memory or decoded on request.

    Args:
        images: uint8 or float32 ``(M, C, H, W)``, grey levels from 0 to ``max_value``.
        max_value: the grey level of white.
        seed: seed of the draws.
        stream: another number gives other draws with the same seed.
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
        """Return the drawn images in ``rows`` ``(B,)``: uint8 ``(B, C, H, W)``, each pixel 0 or ``max_value``."""
        images = self.images[rows]
        noise = np.empty(images.shape, dtype=np.float32)
        for position, row in enumerate(rows.tolist()):
            np.random.default_rng((self.seed, self.stream, row)).random(dtype=np.float32, out=noise[position])
        white = torch.from_numpy(noise) < images / self.max_value
        return white.to(torch.uint8).mul_(self.max_value)


def draw_binary(probability: Tensor) -> Tensor:
    """Draw 0 or 1 for each ``probability`` in [0, 1]; the result has the same shape and type.

    >>> draw_binary(torch.tensor([0.0, 1.0]))
    tensor([0., 1.])
    """
    return torch.rand_like(probability).lt_(probability)  # half the time of torch.bernoulli on a CPU


def _augmented(image: Tensor, augment: nn.Module) -> Tensor:
    result: Tensor = augment(image)
    kept, made = ((tuple(each.shape), each.dtype) for each in (image, result))
    if made != kept:
        raise ConfigurationError(f"augment must keep an image's shape and type, {kept}; it made {made}")
    return result
