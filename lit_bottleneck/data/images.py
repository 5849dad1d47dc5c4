"""Image data sets by name, and folders of images."""

from collections.abc import Callable, Sequence
from os.path import expanduser
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from lightning.fabric.utilities.data import suggested_max_num_workers
from torch import Tensor
from torchvision import datasets

from lit_bottleneck.checks import ConfigurationError, one_of
from lit_bottleneck.data.dataset import Examples
from lit_bottleneck.data.downloads import GIVE_ROOT, Download, MissingDataError, fetch_all
from lit_bottleneck.data.image_data_module import ImageDataModule
from lit_bottleneck.data.image_folder import FolderSource

MAX_WORKERS = 8  # that are started by default; each takes a copy of the interpreter


class Images(ImageDataModule):
    """MNIST, FashionMNIST, KMNIST, CIFAR10, CIFAR100 or SVHN by name; or "folder", a folder of your own images.

    ``prepare_data`` (which Lightning calls) downloads a named set that is not in ``root``; it is held in memory.

    A folder has ``root/train/<class>/*`` and ``root/test/<class>/*``, and may have ``root/val/<class>/*``; or
    ``root/<class>/*`` alone: then a fixed stratified fifth of the images, the same for every seed, is the test set.
    Without folders of classes, as for a VAE or a GAN, a batch is ``x`` alone. Each real file counts once, links are
    followed, names that begin with a dot and empty folders are no data.

    Images of a folder come as a viewer shows them: upright by their EXIF orientation, the first frame of an animation
    or of several pages, transparency in front of ``background``, colours of any mode as RGB. They have one channel if
    all are grey, else three, in which a grey image is grey. 16-bit grey levels keep their precision (16-bit colours
    their upper 8 bits), floats must lie in [0, 1], and 32-bit integers are refused (see ``image_modes.read_image``).

    >>> cifar = Images("CIFAR10", val_size=5000)
    >>> cifar.dims, cifar.num_classes
    ((3, 32, 32), 10)

    Args:
        name: one of the names above.
        root: folder where files are or go.
        batch_size: examples per batch and process.
        image_size: for a folder: the images' height and width, or one number for both (resized to cover it, then
            centre cropped). None: the size of the first image, which all must have.
        in_memory: for a folder: hold all pixels in memory; or (False) decode the files of each batch, to the same
            pixels, in ``num_workers`` processes that work ahead. None: in memory up to 2 GiB.
        background: for a folder: the grey level behind transparent pixels, from 0 (black) to 1 (white).
        val_size: as for ``ImageDataModule``. "auto": 0.1, or for a folder with ``root/val`` the images there, with
            which no other ``val_size`` goes together.
        num_workers: loader processes, which draw other augmentations where their number differs. None: 0, or for a
            folder that is decoded the CPUs less one, shared by the processes of a machine, at least 1 and at most 8.
        **kwargs: ``seed``, ``value_range``, ``binarize``, ``augment`` and ``nuisance``, as for ``ImageDataModule``.

    Raises:
        ConfigurationError: if an argument is out of its range, or a folder is not laid out as above. From
            ``prepare_data`` and ``setup``: if files are missing (and cannot be downloaded) or damaged.
        MissingDataError: if a folder does not exist.
    """

    def __init__(
        self,
        name: str,
        root: str | Path = "data",
        batch_size: int = 128,
        *,
        image_size: int | tuple[int, int] | None = None,
        in_memory: bool | None = None,
        background: float = 1.0,
        num_workers: int | None = None,
        val_size: int | float | Literal["auto"] = "auto",  # with None it would be the type of Lightning's limits
        **kwargs: Any,
    ) -> None:
        self.name = name
        self.source = _source(name, Path(expanduser(root)), image_size, in_memory, background)
        if val_size == "auto":
            val_size = self.source.num_val or 0.1
        elif self.source.num_val:
            there = f"a folder that has images to validate on, {Path(root) / 'val'}"
            raise ConfigurationError(f"val_size must be 'auto' for {there}; got {val_size!r}")
        super().__init__(
            root=root,
            dims=self.source.dims,
            num_classes=self.source.num_classes,
            max_value=self.source.max_value,
            batch_size=batch_size,
            val_size=val_size,
            num_workers=0 if num_workers is None else num_workers,
            **kwargs,
        )
        self._counts_cpus = num_workers is None and not self.source.in_memory

    def setup(self, stage: str | None = None) -> None:
        """Load and split all images, at the first call only; of images that are decoded, only their paths.

        Args:
            stage: ignored: one load gives all parts.

        Raises:
            ConfigurationError: if files are missing or damaged, or ``val_size`` leaves none to train on.
        """
        super().setup(stage)
        if self._counts_cpus:
            processes = self.trainer.num_devices if self.trainer else 1
            self.num_workers = min(suggested_max_num_workers(processes), MAX_WORKERS)

    def prepare_data(self) -> None:
        """Download a named set if its files are missing.

        Raises:
            ConfigurationError: if they cannot be downloaded; the message says how to provide them.
        """
        self.source.download()

    def load(self) -> tuple[Examples, Examples]:
        """Return the examples to train and validate on, and the test examples."""
        return self.source.load()

    def split(self, training: Examples, held_out: int) -> tuple[Tensor, Tensor]:
        """Return the positions to train on and those to validate on, int64: stratified, or as the folder has them."""
        if not self.source.num_val:
            return super().split(training, held_out)
        kept, held = torch.arange(len(training)).tensor_split([-held_out])
        return kept, held


def _mnist_downloads(dataset: Any) -> list[Download]:
    folder = f"{dataset.__name__}/raw"
    return [
        Download(
            f"{folder}/{name}", tuple(mirror + name for mirror in dataset.mirrors), md5, (f"{folder}/{name[:-3]}",)
        )
        for name, md5 in dataset.resources  # *.gz
    ]


def _cifar_downloads(dataset: Any) -> list[Download]:
    names = [*(name for name, _ in (*dataset.train_list, *dataset.test_list)), dataset.meta["filename"]]
    files = tuple(f"{dataset.base_folder}/{name}" for name in names)
    return [Download(dataset.filename, (dataset.url,), dataset.tgz_md5, files)]


def _svhn_downloads(dataset: Any) -> list[Download]:
    parts = (dataset.split_list[part] for part in ("train", "test"))
    return [Download(name, (url,), md5, files=(name,)) for url, name, md5 in parts]


class NamedDataset(NamedTuple):
    """Facts about a data set that are known before any of it is on disk.

    Attributes:
        dims: ``(C, H, W)``.
        num_classes: labels are 0 to ``num_classes`` - 1.
        downloads: return the downloads of torchvision's class, with its addresses and checksums.
    """

    dims: tuple[int, int, int]
    num_classes: int
    downloads: Callable[[Any], list[Download]]


NAMED_DATASETS = {
    "MNIST": NamedDataset((1, 28, 28), 10, _mnist_downloads),
    "FashionMNIST": NamedDataset((1, 28, 28), 10, _mnist_downloads),
    "KMNIST": NamedDataset((1, 28, 28), 10, _mnist_downloads),
    "CIFAR10": NamedDataset((3, 32, 32), 10, _cifar_downloads),
    "CIFAR100": NamedDataset((3, 32, 32), 100, _cifar_downloads),
    "SVHN": NamedDataset((3, 32, 32), 10, _svhn_downloads),
}


class TorchvisionSource:
    """A named data set in a folder, in torchvision's layout.

    Args:
        name: a key of ``NAMED_DATASETS``, which is the name of torchvision's class.
        root: torchvision's ``root``.
    """

    in_memory = True
    max_value = 255
    num_val = 0  # their authors hold out none

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.root = root
        self.dims, self.num_classes, downloads_of = NAMED_DATASETS[name]
        self._dataset: Any = getattr(datasets, name)
        self.downloads = downloads_of(self._dataset)

    @property
    def files(self) -> list[str]:
        """All files of the data set, relative to the root."""
        return [file for download in self.downloads for file in download.files]

    def download(self) -> None:
        """Download the files that are missing.

        Raises:
            ConfigurationError: if they cannot be downloaded.
            OSError: if the disk is full.
        """
        fetch_all(self.downloads, self.root, self._unreadable)

    def load(self) -> tuple[Examples, Examples]:
        """Return the training and the test examples: uint8 ``(N, C, H, W)``, int64 ``(N,)``.

        Raises:
            ConfigurationError: if files are missing or damaged.
        """
        return self._examples("train"), self._examples("test")

    def _examples(self, part: str) -> Examples:
        dataset = self._open(part)
        images = torch.as_tensor(dataset.data)
        if images.dim() == 3:  # MNIST and its likes
            images = images.unsqueeze(1)
        elif images.shape[-1] == 3:  # CIFAR
            images = images.movedim(3, 1)
        labels = dataset.labels if self.name == "SVHN" else dataset.targets
        return Examples.of(images.contiguous(), torch.as_tensor(labels, dtype=torch.int64))

    def _open(self, part: str) -> Any:
        selection = {"split": part} if self.name == "SVHN" else {"train": part == "train"}
        try:
            return self._dataset(self.root, **selection)
        # torchvision's readers raise ValueError, EOFError or AssertionError for a truncated file.
        except (RuntimeError, OSError, ValueError, EOFError, AssertionError) as error:
            lines = str(error).split("\n")
            cause = next(filter(None, map(str.strip, reversed(lines))), type(error).__name__)  # its last line
            raise MissingDataError(self._unreadable(cause[:200])) from error

    def _unreadable(self, reason: str) -> str:
        missing = [file for file in self.files if not (self.root / file).exists()]
        state = f"missing: {', '.join(missing)}" if missing else "its files are there, but damaged: delete them"
        return (
            f"{self.name} was expected in {self.root.absolute()} and could not be read ({reason}); {state}. Put its "
            f"files there, or let prepare_data() download them on a machine with network access. {GIVE_ROOT}"
        )


def _source(
    name: str, root: Path, image_size: int | Sequence[int] | None, in_memory: bool | None, background: float
) -> TorchvisionSource | FolderSource:
    one_of("name", name, (*NAMED_DATASETS, "folder"))
    if name == "folder":
        return FolderSource(root, image_size, in_memory, background)
    if image_size is not None:
        dims = NAMED_DATASETS[name].dims
        raise ConfigurationError(f"image_size={image_size!r} is for name='folder'; {name} has dims={dims}")
    if background != 1:
        raise ConfigurationError(f"background={background!r} is for name='folder'; images of {name} are opaque")
    if in_memory is False:
        raise ConfigurationError(f"in_memory=False is for name='folder'; {name} is always held in memory")
    return TorchvisionSource(name, root)
