"""Images from sharded files, for data that outgrow a disk or are too many for a folder."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from lit_bottleneck.checks import ConfigurationError, whole_number

_INSTALL = "pip install 'lit_bottleneck[shards]'"
_FORMAT = ["tensor", "int"]  # of litdata's samples; others may be pickles, which run code when they are read
_PAIRS = ("builtins.tuple", "builtins.list")
_PARTS = ("train", "val", "test")


class Shards(LightningDataModule):
    """Images and labels in shards of litdata, in ``root/train``, ``root/val`` and ``root/test``.

    Each sample is a pair of an image, uint8 ``(C, H, W)``, all of one shape, and a class label, int; recipes/README.md
    has a script that writes them. Only the shards that are being read are fetched, from a folder or a bucket. Training
    reads shards, and the images of each, in another random order in each epoch; a run resumed by ``RandomStates`` goes
    on at the next image, without reading those before it. Over several processes all have as many batches: the last
    images are left out, of evaluation too. Batches are images float32 ``(B, C, H, W)`` in [0, 1] and labels ``(B,)``.

    Args:
        root: a folder, or the address of one, such as ``s3://bucket/images``.
        batch_size: images per batch and process.
        num_workers: loader processes; 0 reads in the main process.
        seed: seed of the order.

    Attributes:
        dims: ``(C, H, W)``, after ``setup``.

    Raises:
        ImportError: in ``setup``, without litdata.
        ConfigurationError: for an argument out of its range; in ``setup``, if a part is missing or holds other samples.
    """

    value_range = (0.0, 1.0)
    dims: tuple[int, ...]

    def __init__(self, root: str, batch_size: int = 128, num_workers: int = 0, seed: int = 0) -> None:
        super().__init__()
        self.root = str(root).rstrip("/")
        self.batch_size = whole_number("batch_size", batch_size, at_least=1)
        self.num_workers = whole_number("num_workers", num_workers, at_least=0)
        self.seed = whole_number("seed", seed, at_least=0)
        self._datasets: dict[str, Any] = {}

    def setup(self, stage: str | None = None) -> None:
        """Open all parts, at the first call only."""
        if self._datasets:
            return
        datasets = {part: self._opened(part) for part in _PARTS}
        image = datasets["train"][0][0]
        if image.dtype != torch.uint8 or image.dim() != 3:
            found = f"{image.dtype} {tuple(image.shape)}"
            raise ConfigurationError(f"{self.root}/train must hold images, uint8 (C, H, W); its first is {found}")
        self.dims, self._datasets = tuple(image.shape), datasets

    def _opened(self, part: str) -> Any:
        place = f"{self.root}/{part}"
        try:
            from litdata import StreamingDataset
        except ImportError as error:
            raise ImportError(f"Shards needs the package litdata: {_INSTALL}") from error
        try:
            dataset = StreamingDataset(place, shuffle=part == "train", seed=self.seed)
            len(dataset)  # fetches the index
            index = json.loads(Path(dataset.input_dir.path, "index.json").read_text())
        except (OSError, ValueError, AssertionError) as error:
            reason = str(error).split("\n")[0]
            raise ConfigurationError(f"root={self.root!r} needs shards of litdata in {place}: {reason}") from error
        layout, formats = json.loads(index["config"]["data_spec"])[1]["type"], index["config"]["data_format"]
        if formats != _FORMAT or layout not in _PAIRS:
            found = f"got the formats {formats} in a {layout}"
            raise ConfigurationError(f"{place} must hold pairs of an image (a tensor) and a label (an int); {found}")
        return dataset

    def train_dataloader(self) -> DataLoader[Any]:
        """Return shuffled batches of the training images."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the validation batches."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the test batches."""
        return self._loader("test")

    predict_dataloader = test_dataloader

    def _loader(self, part: str) -> DataLoader[Any]:
        from litdata import StreamingDataLoader

        class Loader(StreamingDataLoader):  # type: ignore[misc]
            """Begins the epoch after a resumed one anew although Lightning asks for no batch beyond the last."""

            def __iter__(self) -> Iterator[Any]:
                for batch in super().__iter__():
                    self.restore = False
                    yield batch

        self.setup()
        return Loader(
            self._datasets[part],
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            collate_fn=partial(_batch, dims=self.dims, place=f"{self.root}/{part}"),
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(self.seed),  # of its own: it is drawn from at the first batch
        )


def _batch(samples: list[tuple[Tensor, int]], dims: tuple[int, ...], place: str) -> tuple[Tensor, Tensor]:
    """Return samples as a batch.

    Raises:
        ConfigurationError: if an image is not uint8 of the shape ``dims``.
    """
    for image, _ in samples:
        if image.shape != dims or image.dtype != torch.uint8:
            found = f"one of {image.dtype} {tuple(image.shape)}"
            raise ConfigurationError(f"{place} must hold images of uint8 {dims}, as the first of train is; got {found}")
    images, labels = zip(*samples, strict=True)
    return torch.stack(images).float().div_(255), torch.tensor(labels)
