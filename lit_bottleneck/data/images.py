"""Image data sets by name, and folders of images."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from lit_bottleneck.data.dataset import Examples
from lit_bottleneck.data.image_data_module import Binarization, ImageDataModule
from lit_bottleneck.data.image_folder import FolderSource
from lit_bottleneck.data.nuisance import Nuisance
from lit_bottleneck.data.torchvision_datasets import NAMED_SETS, TorchvisionSource


class Images(ImageDataModule):
    """MNIST, FashionMNIST, KMNIST, CIFAR10, CIFAR100 or SVHN by name; or "folder", a folder of your own images.

    The named sets are downloaded by `prepare_data` (as Lightning calls it) where they are not in `root`, and are
    held in memory. A folder has `root/train/<class>/*` and `root/test/<class>/*`, or `root/<class>/*` alone: then a
    fixed stratified fifth of the images, the same for every seed, is the test set.

    >>> cifar = Images("CIFAR10", val_size=5000)
    >>> cifar.dims, cifar.num_classes
    ((3, 32, 32), 10)

    Args:
        name: One of the names above.
        root: The folder where files are or go.
        batch_size: Examples per batch and process.
        num_workers: Loader processes; of use where images are augmented, or decoded batch by batch.
        seed: Of the split into training and validation and of the draws made once; not of the test set.
        val_size: Held out of the training examples: a count (int) or a fraction (float). 0 trains on everything.
        value_range: What the grey levels from 0 to 255 are mapped to, linearly.
        binarize: None; "dynamic": training images are drawn anew at each visit, black or white with the grey level
            as probability of white, and validation and test images once from `seed`; "static": all once.
        augment: torchvision.transforms.v2 transforms, applied in this order to each training image on its own, as
            uint8 and before scaling. They must keep the image's shape and type.
        image_size: For a folder: height and width that images are brought to (shorter edge resized, centre cropped).
            None: the size of the first image, which all must have.
        in_memory: For a folder: hold all pixels in memory, or (False) decode each batch. None: in memory up to 2 GiB.
        nuisance: Turns or moves the images, and makes batches `(images, labels, factors)`: training images anew at each
            visit, validation images as drawn once from `seed`, test images the same for every seed. See
            `lit_bottleneck.data.nuisance`.

    Raises:
        ValueError: If an argument is out of its range, or a folder is not laid out as above; see the message.
        FileNotFoundError: If a folder does not exist. (A named set's missing files are one in `prepare_data`.)
    """

    def __init__(
        self,
        name: str,
        root: str | Path = "data",
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
        val_size: int | float = 0.1,
        value_range: tuple[float, float] = (0.0, 1.0),
        binarize: Binarization | None = None,
        augment: list[nn.Module] | None = None,
        image_size: int | None = None,
        in_memory: bool | None = None,
        nuisance: Nuisance | None = None,
    ) -> None:
        self.name = name
        self.source = _source(name, Path(root).expanduser(), image_size, in_memory)
        super().__init__(
            root=root,
            dims=self.source.dims,
            num_classes=self.source.num_classes,
            max_value=255,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            val_size=val_size,
            value_range=value_range,
            binarize=binarize,
            augment=augment,
            nuisance=nuisance,
        )

    def prepare_data(self) -> None:
        """Download a named set where its files are missing.

        Raises:
            FileNotFoundError: If they cannot be downloaded; the message says how to provide them.
        """
        self.source.download()

    def load(self) -> tuple[Examples, Examples]:
        """Return the examples to train and validate on, and the test examples."""
        return self.source.load()


def _source(name: str, root: Path, image_size: int | None, in_memory: bool | None) -> TorchvisionSource | FolderSource:
    if name == "folder":
        return FolderSource(root, image_size, in_memory)
    if name not in NAMED_SETS:
        raise ValueError(f"name={name!r} is unknown; it is one of {', '.join(NAMED_SETS)}, folder")
    if image_size is not None:
        height, width = NAMED_SETS[name].dims[1:]
        raise ValueError(f"image_size={image_size!r} is for name='folder'; {name} is {height} x {width}, leave it None")
    if in_memory is False:
        raise ValueError(f"in_memory=False is for name='folder'; {name} is always held in memory")
    return TorchvisionSource(name, root)
