"""A user's own images in a folder, with or without folders of classes."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lightning_utilities.core.rank_zero import rank_zero_info
from torch import Tensor
from torchvision.transforms.v2 import functional

from lit_bottleneck.checks import ConfigurationError, is_number, whole_number, whole_numbers
from lit_bottleneck.data.dataset import Examples
from lit_bottleneck.data.downloads import GIVE_ROOT, MissingDataError
from lit_bottleneck.data.folder_files import LAYOUT, Listing, list_images
from lit_bottleneck.data.image_modes import read_header, read_image
from lit_bottleneck.data.splits import stratified_split, validation_count

MEMORY_LIMIT = 2 * 1024**3  # bytes of pixels that are held in memory by default
TEST_SIZE = 0.2  # without a test folder
TEST_SEED = 0  # a constant: runs with different seeds are tested on the same images


class DecodedImages:
    """Image files as rows of a tensor, decoded when indexed (see ``image_modes.read_image``).

    Args:
        paths: n image files.
        dims: ``(C, H, W)`` of every row. C is 3, or 1 if all images are grey.
        resize: bring images of another size to ``(H, W)``: the smallest size of the same proportions that covers it,
            centre cropped. False: refuse them.
        background: grey level, in [0, 1], behind transparent pixels.
        dtype: uint8, levels from 0 to 255; or float32, from 0 to 1.
    """

    def __init__(
        self,
        paths: Sequence[str],
        dims: tuple[int, int, int],
        resize: bool,
        background: float = 1.0,
        dtype: torch.dtype = torch.uint8,
    ) -> None:
        # no objects, whose reference counts would have each loader process copy the memory that they share
        self.paths = np.array([os.fsencode(path) for path in paths])
        self.dims = dims
        self.resize = resize
        self.background = background
        self.dtype = dtype

    def __len__(self) -> int:
        """Return N."""
        return len(self.paths)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return the images in ``rows`` ``(B,)``: ``(B, C, H, W)``; a grey image has equal channels."""
        images = torch.empty(len(rows), *self.dims, dtype=self.dtype)
        for position, path in enumerate(self.paths[rows.numpy()].tolist()):
            images[position] = self._decode(os.fsdecode(path))
        return images

    def _decode(self, path: str) -> Tensor:
        _, height, width = self.dims
        image = read_image(path, self.background)
        if self.resize:
            covering = _covering((image.height, image.width), (height, width))
            image = functional.resize(image, covering)
            if covering != [height, width]:
                image = functional.center_crop(image, [height, width])
        elif (image.height, image.width) != (height, width):
            sizes = f"{image.height} x {image.width} pixels, the first image {height} x {width}"
            raise ConfigurationError(f"{path} has {sizes}; image_size=... brings all images to one size")
        pixels: Tensor = functional.pil_to_tensor(image)
        return pixels / 255 if self.dtype.is_floating_point and image.mode != "F" else pixels


class FolderSource:
    """Images in ``root/train``, ``root/test`` and perhaps ``root/val``, or in ``root`` alone; classes are folders.

    Classes are numbered in alphabetical order. Without a test folder, a fixed stratified fifth of the images is the
    test set. If all images are grey there is one channel, else three. If one has grey levels of more than 8 bits, all
    are held as float32 in [0, 1], else as uint8.

    Args:
        root: the folder; see ``folder_files`` for what counts as an image.
        image_size: height and width of the images, resized and cropped; one number for both. None: those of the first
            image, which all must have.
        in_memory: hold the pixels in memory. None: if they take at most 2 GiB.
        background: grey level, in [0, 1], behind transparent pixels.

    Attributes:
        num_classes: None if the images are in no folders of classes.
        num_val: the number of images in ``root/val``: the last rows of the training examples.

    Raises:
        MissingDataError: if the folder does not exist.
        ConfigurationError: if an argument is out of its range, or the folder is not laid out as above, has no images,
            or has a file that is no image.
    """

    def __init__(
        self,
        root: Path,
        image_size: int | Sequence[int] | None = None,
        in_memory: bool | None = None,
        background: float = 1.0,
    ) -> None:
        self.image_size = _checked_size(image_size)
        if not is_number(background) or not 0 <= background <= 1:
            raise ConfigurationError(f"background must be from 0 (black) to 1 (white); got {background!r}")
        self.background = background
        if not root.is_dir():
            raise MissingDataError(f"{root.absolute()} is not a folder; {LAYOUT}. {GIVE_ROOT}")
        parts = list_images(root)
        self.training = parts.get("all") or parts["train"]
        self.test, val = parts.get("test"), parts.get("val") or Listing([], [])
        self.classes = sorted(set(self.training.classes))
        self.num_classes = len(self.classes) if self.classes != [""] else None
        self.num_val = len(val.paths)
        self.training = Listing(self.training.paths + val.paths, self.training.classes + val.classes)
        paths = self.training.paths + (self.test.paths if self.test else [])
        self.dtype, self.dims = self._look_at(paths)
        self.max_value = 1 if self.dtype.is_floating_point else 255
        total = len(paths) * self.dims[0] * self.dims[1] * self.dims[2] * self.dtype.itemsize
        self.in_memory = total <= MEMORY_LIMIT if in_memory is None else in_memory

    def download(self) -> None:
        """Do nothing: the images are the user's."""

    def load(self) -> tuple[Examples, Examples]:
        """Return the training examples (at the end those of ``val``) and the test examples.

        Raises:
            ConfigurationError: if an image is unreadable, or of another size than the first (without ``image_size``).
        """
        training = self._examples(self.training)
        if self.test is not None:
            return training, self._examples(self.test)
        test_total = validation_count(TEST_SIZE, len(training))
        training_rows, test_rows = stratified_split(training.labels, test_total, TEST_SEED)
        return training.select(training_rows), training.select(test_rows)

    def _examples(self, part: Listing) -> Examples:
        resize = self.image_size is not None
        images = DecodedImages(part.paths, self.dims, resize, self.background, self.dtype)
        numbers = {name: number for number, name in enumerate(self.classes)}
        labels = torch.tensor([numbers[name] for name in part.classes], dtype=torch.int64)
        return Examples.of(images[torch.arange(len(images))] if self.in_memory else images, labels)

    def _look_at(self, paths: Sequence[str]) -> tuple[torch.dtype, tuple[int, int, int]]:
        """Return dtype and dims of all images by their headers; the size is that of the first."""
        headers = [read_header(path, self.background) for path in paths]
        frames = [path for path, header in zip(paths, headers, strict=True) if header.has_frames]
        if frames:
            rank_zero_info(f"{len(frames)} files have several frames, such as {frames[0]}: the first frame is read")
        modes = {header.mode for header in headers}
        first = read_image(paths[0], self.background)
        height, width = self.image_size or (first.height, first.width)
        return torch.float32 if "F" in modes else torch.uint8, (3 if "RGB" in modes else 1, height, width)


def _checked_size(image_size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if image_size is None:
        return None
    if not isinstance(image_size, (list, tuple)):
        side = whole_number("image_size", image_size, at_least=1)  # type: ignore[arg-type]
        return side, side
    if len(image_size) != 2:
        raise ConfigurationError(f"image_size must be one number, or height and width; got {image_size!r}")
    height, width = whole_numbers("image_size", image_size, at_least=1)
    return height, width


def _covering(size: tuple[int, int], target: tuple[int, int]) -> list[int]:
    """Return the smallest height and width, in the proportions of ``size``, that cover ``target``."""
    (height, width), (target_height, target_width) = size, target
    if target_height * width >= target_width * height:
        return [target_height, target_height * width // height]
    return [target_width * height // width, target_width]
