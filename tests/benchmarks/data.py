"""MNIST data alone, against torchvision's path of one PIL image after another."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision.transforms import Compose, Normalize, ToTensor

from lit_bottleneck.data import Images
from tests.benchmarks.timing import Row, compare, row


def rows(root: Path) -> Iterator[Row]:
    """Read 10 000 images once, in batches of 100, scaled to [-1, 1]."""
    images = Images("MNIST", root=root, batch_size=100, val_size=0, value_range=(-1.0, 1.0))
    images.prepare_data()
    ours = images.train_dataloader()
    transform = Compose([ToTensor(), Normalize(0.5, 0.5)])
    per_image = DataLoader(datasets.MNIST(root, transform=transform), batch_size=100, shuffle=True)

    def read(loader: DataLoader[tuple[torch.Tensor, torch.Tensor]]) -> int:
        return sum(len(labels) for _, labels in islice(loader, 100))

    pairs = compare(lambda: read(ours), lambda: read(per_image), rounds=5)
    yield row("10 000 images of MNIST, data alone, against torchvision", pairs, bar=0.033)
