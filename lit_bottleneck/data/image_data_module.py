"""What image data sets share: the range of their pixels, augmentation, binarisation, a nuisance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from lit_bottleneck.data.base import LabelledDataModule, Part
from lit_bottleneck.data.dataset import BatchedDataset, Examples
from lit_bottleneck.data.image_dataset import ChangedImages, FixedDraws, ImageDataset
from lit_bottleneck.data.nuisance import Nuisance

Binarization = Literal["dynamic", "static"]


class ImageDataModule(LabelledDataModule):
    """A labelled data module of images; the subclass loads them as uint8 `(N, C, H, W)`.

    Args:
        root: The folder where files are or go.
        dims: `(C, H, W)`.
        num_classes: Labels are 0 to `num_classes` - 1.
        max_value: The largest grey level that the held uint8 images can have.
        batch_size: Examples per batch and process.
        num_workers: Loader processes.
        seed: Of the split and of the draws made once.
        val_size: Held out of the training examples: a count (int) or a fraction (float).
        value_range: What the grey levels from 0 to `max_value` are mapped to, linearly.
        binarize: None; "dynamic": training images are drawn anew at each visit, black or white with the grey level
            as probability of white, and validation and test images once from `seed`; "static": all once.
        augment: torchvision.transforms.v2 transforms, applied in this order to each training image on its own, as
            uint8 and before scaling (after a "static" draw). They must keep the image's shape and type.
        nuisance: Turns or moves the images, and makes batches `(images, labels, factors)`: training images anew at each
            visit, validation images as drawn once from `seed`, test images the same for every seed.

    Attributes:
        factor_names: What the columns of `factors` are; empty without a nuisance.

    Raises:
        ValueError: If an argument is out of its range; see the message.
    """

    NUISANCE_TEST_SEED: ClassVar[int] = 0  # a constant: runs with different seeds are tested on the same images

    def __init__(
        self,
        root: str | Path | None,
        dims: tuple[int, int, int],
        num_classes: int,
        max_value: int,
        batch_size: int,
        num_workers: int = 0,
        seed: int = 0,
        val_size: int | float = 0.1,
        value_range: tuple[float, float] = (0.0, 1.0),
        binarize: Binarization | None = None,
        augment: list[nn.Module] | None = None,
        nuisance: Nuisance | None = None,
    ) -> None:
        super().__init__(root, dims, num_classes, batch_size, num_workers, seed, val_size)
        self.max_value = max_value
        self.value_range = _checked_range(value_range)
        if binarize is not None and binarize not in get_args(Binarization):
            raise ValueError(f'binarize={binarize!r} is unknown; it is None, "dynamic" or "static"')
        if binarize is not None and self.value_range != (0.0, 1.0):
            raise ValueError(
                f"binarize={binarize!r} makes pixels 0 and 1 and needs value_range=(0, 1); got {self.value_range}"
            )
        self.binarize = binarize
        if binarize is not None and nuisance is not None:
            raise ValueError(
                f"binarize={binarize!r} and nuisance cannot go together: between the pixels of a turned image are grey "
                "levels, so that it is not binary any more; choose one of them"
            )
        self.augment = _checked_transforms(augment)
        self.nuisance = _checked_nuisance(nuisance, dims)
        self.factor_names: tuple[str, ...] = () if nuisance is None else tuple(nuisance.factor_names)

    def make_dataset(self, examples: Examples, part: Part) -> BatchedDataset:
        """Return the images of a part as a model sees them.

        Args:
            examples: Images uint8 `(M, C, H, W)` and labels.
            part: "train", "val" or "test"; only "train" is augmented or drawn anew.

        Returns:
            A dataset of float32 `(C, H, W)` in `value_range` and int64 labels, and factors float32 `(F,)` where there
            is a nuisance.

        Raises:
            ValueError: If the images are not of the shape `dims`.
        """
        if isinstance(examples.inputs, Tensor) and tuple(examples.inputs.shape[1:]) != self.dims:
            raise ValueError(
                f"{type(self).__name__} has images of the shape dims={self.dims}; "
                f"the loaded ones have {tuple(examples.inputs.shape[1:])}"
            )
        training = part == "train"
        dynamic = training and self.binarize == "dynamic"
        if self.binarize is not None and not dynamic:
            examples = self._drawn_once(examples, part)
        augment = self.augment if training else None
        if self.nuisance is not None:
            factors = None if training else self._factors_drawn_once(self.nuisance, len(examples), part)
            return ChangedImages(examples, self.max_value, self.value_range, augment, self.nuisance, factors)
        return ImageDataset(examples, self.max_value, self.value_range, augment, dynamic)

    def _drawn_once(self, examples: Examples, part: Part) -> Examples:
        draws = FixedDraws(examples.inputs, self.max_value, self.seed, stream=get_args(Part).index(part))
        if isinstance(examples.inputs, Tensor):
            return Examples.of(draws[examples.rows], examples.labels[examples.rows])
        return Examples(draws, examples.labels, examples.rows)

    def _factors_drawn_once(self, nuisance: Nuisance, count: int, part: Part) -> Tensor:
        seed = self.NUISANCE_TEST_SEED if part == "test" else self.seed
        parts = get_args(Part)
        one_seed_each = len(parts) * seed + parts.index(part)
        return nuisance.draw(count, torch.Generator().manual_seed(one_seed_each))


def _checked_range(value_range: Sequence[float]) -> tuple[float, float]:
    numbers = isinstance(value_range, (tuple, list)) and all(isinstance(end, (int, float)) for end in value_range)
    if numbers and len(value_range) == 2 and value_range[0] < value_range[1] and all(map(math.isfinite, value_range)):
        return float(value_range[0]), float(value_range[1])
    raise ValueError(f"value_range={value_range!r} must be two finite numbers, the lower first, such as (-1, 1)")


def _checked_transforms(augment: list[nn.Module] | None) -> nn.Module | None:
    if not augment and (augment is None or isinstance(augment, list)):
        return None
    if not isinstance(augment, (list, tuple)) or not all(isinstance(transform, nn.Module) for transform in augment):
        raise ValueError(f"augment={augment!r} must be a list of torchvision.transforms.v2 transforms (modules)")
    return nn.Sequential(*augment)


def _checked_nuisance(nuisance: Nuisance | None, dims: tuple[int, int, int]) -> Nuisance | None:
    """Try it on one black image: what does not fit the images of a data set is refused before any is loaded."""
    if nuisance is None:
        return None
    if not isinstance(nuisance, Nuisance):
        raise ValueError(f"nuisance={nuisance!r} must be None or a Nuisance, such as Rotation(max_degrees=45)")
    factors = nuisance.draw(1, torch.Generator().manual_seed(0))
    changed = nuisance.apply(torch.zeros(1, *dims), factors)
    needed = ((1, *dims), (1, len(nuisance.factor_names)), torch.float32, torch.float32)
    made = (tuple(changed.shape), tuple(factors.shape), changed.dtype, factors.dtype)
    if made != needed:
        raise ValueError(
            f"nuisance={nuisance!r} must make images, and factors with a column for each of its factor_names, of "
            f"{needed} (shapes and types); it made {made}"
        )
    return nuisance
