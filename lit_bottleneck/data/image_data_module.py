"""Base class of the image data modules: pixel range, augmentation, binarisation, nuisances."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from lit_bottleneck.checks import ConfigurationError, is_number, one_of
from lit_bottleneck.data.base import LabelledDataModule, Part
from lit_bottleneck.data.dataset import Examples
from lit_bottleneck.data.image_dataset import FixedDraws, ImageDataset
from lit_bottleneck.data.nuisance import Nuisance

Binarization = Literal["dynamic", "static"]


class ImageDataModule(LabelledDataModule):
    """Data module of images, mostly labelled; the subclass loads them as uint8 ``(N, C, H, W)``.

    Args:
        dims: ``(C, H, W)``.
        max_value: the largest grey level of the uint8 images; 1 for images that are loaded as float32 in [0, 1].
        value_range: the grey levels from 0 to ``max_value`` are mapped to it linearly.
        binarize: none; "dynamic": training images are drawn anew at each visit, black or white with the grey level
            as probability of white, and validation and test images once from ``seed``; "static": all once.
        augment: torchvision.transforms.v2 transforms, applied in this order to each training image on its own, as
            loaded and before scaling (after a "static" draw). They must keep the image's shape and type.
        nuisance: rotates or shifts the images, and makes batches ``(images, labels, factors)``: the factors of training
            images are drawn anew at each visit, those of validation images once from ``seed``, those of test images
            are the same for every seed. See ``lit_bottleneck.data.nuisance``.
        **kwargs: arguments of ``LabelledDataModule``.

    Attributes:
        factor_names: the names of the factors' columns; empty without a nuisance.

    Raises:
        ConfigurationError: if an argument is out of its range, or does not go with another.
    """

    NUISANCE_TEST_SEED: ClassVar[int] = 0  # a constant: runs with different seeds are tested on the same images

    def __init__(
        self,
        *,
        dims: tuple[int, int, int],
        max_value: int,
        value_range: tuple[float, float] = (0.0, 1.0),
        binarize: Binarization | None = None,
        augment: list[nn.Module] | None = None,
        nuisance: Nuisance | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(dims=dims, **kwargs)
        self.max_value = max_value
        self.value_range = _checked_range(value_range)
        if binarize is not None:
            one_of("binarize", binarize, get_args(Binarization))
            if self.value_range != (0.0, 1.0):
                raise ConfigurationError(f"binarize={binarize!r} needs value_range=(0, 1); got {self.value_range}")
            if nuisance is not None:  # interpolation would give a rotated image grey levels again
                raise ConfigurationError(f"binarize={binarize!r} and nuisance cannot go together: choose one of them")
        self.binarize = binarize
        self.augment = _checked_transforms(augment)
        if nuisance is not None and not self.has_labels:
            raise ConfigurationError("nuisance makes batches (x, y, factors): without classes there is no y")
        self.nuisance = _checked_nuisance(nuisance, dims)
        self.factor_names: tuple[str, ...] = () if nuisance is None else tuple(nuisance.factor_names)

    def check(self, examples: Examples) -> None:
        """Raise ConfigurationError for labels out of range, or images of another shape than ``dims``."""
        super().check(examples)
        if isinstance(examples.inputs, Tensor) and examples.inputs.shape[1:] != self.dims:
            shape = tuple(examples.inputs.shape[1:])
            raise ConfigurationError(f"dims={self.dims} must be the shape of the images; got images {shape}")

    def make_dataset(self, examples: Examples, part: Part) -> ImageDataset:
        """Return the images of a part as a model sees them.

        Args:
            examples: images ``(M, C, H, W)`` and labels.
            part: "train", "val" or "test"; only "train" is augmented or drawn anew.

        Returns:
            A dataset of float32 ``(C, H, W)`` in ``value_range``, int64 labels (without classes, none), and with a
            nuisance factors ``(F,)``.
        """
        training = part == "train"
        dynamic = training and self.binarize == "dynamic"
        if self.binarize is not None and not dynamic:
            examples = self._binarize(examples, part)
        augment = self.augment if training else None
        factors = None
        if self.nuisance is not None and not training:
            seed = self.NUISANCE_TEST_SEED if part == "test" else self.seed
            one_seed_each = len(get_args(Part)) * seed + get_args(Part).index(part)
            factors = self.nuisance.draw(len(examples), torch.Generator().manual_seed(one_seed_each))
        return ImageDataset(
            examples, self.max_value, self.value_range, augment, dynamic, self.nuisance, factors, self.has_labels
        )

    def _binarize(self, examples: Examples, part: Part) -> Examples:
        draws = FixedDraws(examples.inputs, self.max_value, self.seed, stream=get_args(Part).index(part))
        if isinstance(examples.inputs, Tensor):
            return Examples.of(draws[examples.rows], examples.labels[examples.rows])
        return Examples(draws, examples.labels, examples.rows)


def _checked_range(value_range: Sequence[float]) -> tuple[float, float]:
    if isinstance(value_range, (tuple, list)) and len(value_range) == 2 and all(map(is_number, value_range)):
        low, high = map(float, value_range)
        if -math.inf < low < high < math.inf:
            return low, high
    raise ConfigurationError(f"value_range must be two finite numbers, the lower first; got {value_range!r}")


def _checked_transforms(augment: list[nn.Module] | None) -> nn.Module | None:
    if augment is None or augment == []:
        return None
    if not isinstance(augment, (list, tuple)) or not all(isinstance(transform, nn.Module) for transform in augment):
        raise ConfigurationError(f"augment must be a list of modules, such as v2.RandomCrop(28, 2); got {augment!r}")
    return nn.Sequential(*augment)


def _checked_nuisance(nuisance: Nuisance | None, dims: tuple[int, int, int]) -> Nuisance | None:
    """Dry-run a nuisance on one black image, so that errors surface before any image is loaded."""
    if nuisance is None:
        return None
    if not isinstance(nuisance, Nuisance):
        raise ConfigurationError(f"nuisance must be None or a Nuisance, such as Rotation(45); got {nuisance!r}")
    factors = nuisance.draw(1, torch.Generator().manual_seed(0))
    transformed = nuisance.apply(torch.zeros(1, *dims), factors)
    needed = ((1, *dims), (1, len(nuisance.factor_names)), torch.float32, torch.float32)
    made = (tuple(transformed.shape), tuple(factors.shape), transformed.dtype, factors.dtype)
    if made != needed:
        raise ConfigurationError(f"nuisance={nuisance!r} must make images and factors of {needed}; it made {made}")
    return nuisance
