"""Image data sets by name, and folders of images."""

from pathlib import Path
from typing import Any

from lit_bottleneck.checks import ConfigurationError, one_of
from lit_bottleneck.data.dataset import Examples
from lit_bottleneck.data.image_data_module import ImageDataModule
from lit_bottleneck.data.image_folder import FolderSource
from lit_bottleneck.data.torchvision_datasets import NAMED_DATASETS, TorchvisionSource


class Images(ImageDataModule):
    """MNIST, FashionMNIST, KMNIST, CIFAR10, CIFAR100 or SVHN by name; or "folder", a folder of your own images.

    ``prepare_data`` (which Lightning calls) downloads a named set that is not in ``root``; it is held in memory. A
    folder has ``root/train/<class>/*`` and ``root/test/<class>/*``, or ``root/<class>/*`` alone: then a fixed
    stratified fifth of the images, the same for every seed, is the test set.

    >>> cifar = Images("CIFAR10", val_size=5000)
    >>> cifar.dims, cifar.num_classes
    ((3, 32, 32), 10)

    Args:
        name: one of the names above.
        root: folder where files are or go.
        batch_size: examples per batch and process.
        image_size: for a folder: height and width of the images (shorter edge resized, centre cropped). None: the size
            of the first image, which all must have.
        in_memory: for a folder: hold all pixels in memory, or (False) decode each batch. None: in memory up to 2 GiB.
        **kwargs: ``num_workers`` (of use where images are augmented, or decoded batch by batch), ``seed``,
            ``val_size``, ``value_range``, ``binarize``, ``augment`` and ``nuisance``, as for ``ImageDataModule``.

    Raises:
        ConfigurationError: if an argument is out of its range, or a folder is not laid out as above. From
            ``prepare_data`` and ``setup``: if files are missing (and cannot be downloaded) or damaged.
        FileNotFoundError: if a folder does not exist.
    """

    def __init__(
        self,
        name: str,
        root: str | Path = "data",
        batch_size: int = 128,
        *,
        image_size: int | None = None,
        in_memory: bool | None = None,
        **kwargs: Any,
    ) -> None:
        self.name = name
        self.source = _source(name, Path(root).expanduser(), image_size, in_memory)
        dims, num_classes = self.source.dims, self.source.num_classes
        super().__init__(root=root, dims=dims, num_classes=num_classes, max_value=255, batch_size=batch_size, **kwargs)

    def prepare_data(self) -> None:
        """Download a named set if its files are missing.

        Raises:
            ConfigurationError: if they cannot be downloaded; the message says how to provide them.
        """
        self.source.download()

    def load(self) -> tuple[Examples, Examples]:
        """Return the examples to train and validate on, and the test examples."""
        return self.source.load()


def _source(name: str, root: Path, image_size: int | None, in_memory: bool | None) -> TorchvisionSource | FolderSource:
    one_of("name", name, (*NAMED_DATASETS, "folder"))
    if name == "folder":
        return FolderSource(root, image_size, in_memory)
    if image_size is not None:
        dims = NAMED_DATASETS[name].dims
        raise ConfigurationError(f"image_size={image_size!r} is for name='folder'; {name} has dims={dims}")
    if in_memory is False:
        raise ConfigurationError(f"in_memory=False is for name='folder'; {name} is always held in memory")
    return TorchvisionSource(name, root)
