"""A user's own images, in one folder per class."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2 import functional

from lit_bottleneck.checks import ConfigurationError, whole_number
from lit_bottleneck.data.dataset import Examples
from lit_bottleneck.data.downloads import GIVE_ROOT
from lit_bottleneck.data.splits import stratified_split, validation_count

LAYOUT = "expected root/train/<class>/* and root/test/<class>/*, or root/<class>/* alone"
MEMORY_LIMIT = 2 * 1024**3  # bytes of uint8 pixels that are held in memory by default
TEST_SIZE = 0.2  # without a test folder
TEST_SEED = 0  # a constant: runs with different seeds are tested on the same images


class DecodedImages:
    """Image files as rows of a tensor, decoded when indexed.

    Args:
        paths: n image files.
        dims: ``(C, H, W)`` of every row; C is 1 (grey) or 3 (RGB).
        resize: bring images of another size to ``(H, W)``: shorter edge resized, centre cropped. False: refuse them.
    """

    def __init__(self, paths: Sequence[str], dims: tuple[int, int, int], resize: bool) -> None:
        self.paths = paths
        self.dims = dims
        self.resize = resize

    def __len__(self) -> int:
        """Return N."""
        return len(self.paths)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return the images in ``rows`` ``(B,)``: uint8 ``(B, C, H, W)``."""
        images = torch.empty(len(rows), *self.dims, dtype=torch.uint8)
        for position, row in enumerate(rows.tolist()):
            images[position] = self._decode(self.paths[row])
        return images

    def _decode(self, path: str) -> Tensor:
        channels, height, width = self.dims
        image = read_image(path).convert("L" if channels == 1 else "RGB")
        if self.resize:
            image = functional.center_crop(functional.resize(image, [min(height, width)]), [height, width])
        elif (image.height, image.width) != (height, width):
            sizes = f"{image.height} x {image.width} pixels, the first image {height} x {width}"
            raise ConfigurationError(f"{path} has {sizes}; image_size=... brings all images to one size")
        pixels: Tensor = functional.pil_to_tensor(image)
        return pixels


class FolderSource:
    """Images in ``root/train/<class>/*`` and ``root/test/<class>/*``, or in ``root/<class>/*`` alone.

    Classes are numbered in alphabetical order. Without a test folder, a fixed stratified fifth of the images is the
    test set.

    Args:
        root: the folder.
        image_size: height and width of the images, resized and cropped. None: those of the first image, which all must
            have.
        in_memory: hold the pixels in memory. None: if they take at most 2 GiB.

    Raises:
        FileNotFoundError: if the folder does not exist.
        ConfigurationError: if it is not laid out as above, train and test have different classes, or the first image is
            unreadable.
    """

    def __init__(self, root: Path, image_size: int | None = None, in_memory: bool | None = None) -> None:
        self.image_size = None if image_size is None else whole_number("image_size", image_size, at_least=1)
        if not root.is_dir():
            raise FileNotFoundError(f"{root.absolute()} is not a folder; {LAYOUT}. {GIVE_ROOT}")
        self.root = root
        self.parts = self._list_parts()
        self.num_classes = len(self.parts[0].classes)
        self.dims = self._first_dims()
        total = sum(map(len, self.parts)) * self.dims[0] * self.dims[1] * self.dims[2]
        self.in_memory = total <= MEMORY_LIMIT if in_memory is None else in_memory

    def download(self) -> None:
        """Do nothing: the images are the user's."""

    def load(self) -> tuple[Examples, Examples]:
        """Return the training and the test examples: uint8 ``(N, C, H, W)``, int64 ``(N,)``.

        Raises:
            ConfigurationError: if an image is unreadable, or of another size than the first (without ``image_size``).
        """
        if len(self.parts) == 2:
            return self._examples(self.parts[0]), self._examples(self.parts[1])
        everything = self._examples(self.parts[0])
        test_total = validation_count(TEST_SIZE, len(everything))
        training_rows, test_rows = stratified_split(everything.labels, test_total, TEST_SEED)
        return everything.select(training_rows), everything.select(test_rows)

    def _examples(self, part: ImageFolder) -> Examples:
        paths = [path for path, _ in part.samples]
        images = DecodedImages(paths, self.dims, resize=self.image_size is not None)
        labels = torch.tensor(part.targets, dtype=torch.int64)
        return Examples.of(images[torch.arange(len(images))] if self.in_memory else images, labels)

    def _list_parts(self) -> list[ImageFolder]:
        train, test = self.root / "train", self.root / "test"
        if train.is_dir() != test.is_dir():
            there, missing = (train, test) if train.is_dir() else (test, train)
            raise ConfigurationError(f"{there} exists but {missing} does not; {LAYOUT}")
        parts = [_list_images(folder) for folder in ((train, test) if train.is_dir() else (self.root,))]
        differing = sorted(set(parts[0].classes) ^ set(parts[-1].classes))
        if differing:
            raise ConfigurationError(f"{train} and {test} must have the same classes; they differ in {differing}")
        return parts

    def _first_dims(self) -> tuple[int, int, int]:
        first = read_image(self.parts[0].samples[0][0])
        side = self.image_size
        return 1 if first.mode == "L" else 3, side or first.height, side or first.width


def read_image(path: str) -> Image.Image:
    """Return the image in a file, fully decoded.

    Raises:
        ConfigurationError: if the file is not a readable image.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ConfigurationError(f"{path} is not a readable image: {error}") from error


def _list_images(folder: Path) -> ImageFolder:
    try:
        return ImageFolder(str(folder))
    except FileNotFoundError as error:
        raise ConfigurationError(f"{folder.absolute()} has no folders of images; {LAYOUT} ({error})") from error
