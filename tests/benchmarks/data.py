"""An epoch of the MNIST data alone, against torchvision's path of one PIL image after another."""

from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision.transforms import Compose, Normalize, ToTensor

from lit_bottleneck.data import Images
from tests.benchmarks.timing import compare


def run(root: Path, rounds: int = 3) -> tuple[str, float, float, float]:
    """Read every training image once, in batches of 100, scaled to [-1, 1]."""
    images = Images("MNIST", root=root, batch_size=100, val_size=0, value_range=(-1.0, 1.0))
    ours = images.train_dataloader()
    transform = Compose([ToTensor(), Normalize(0.5, 0.5)])
    per_image = DataLoader(datasets.MNIST(root, transform=transform), batch_size=100, shuffle=True)

    def read(loader: DataLoader[tuple[torch.Tensor, torch.Tensor]]) -> int:
        return sum(len(labels) for _, labels in loader)

    return "epoch of MNIST, data alone", *compare(lambda: read(ours), lambda: read(per_image), rounds)
