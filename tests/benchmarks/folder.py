"""A folder of images that is decoded in loader processes, against torchvision's ``ImageFolder`` with as many."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, Resize, ToTensor

from lit_bottleneck.data import Images
from tests.benchmarks import timing

SIDE, SMALL, PER_CLASS, CLASSES, WORKERS = 128, 64, 400, 10, 2


def write(root: Path, suffix: str) -> None:
    """Write images that are as smooth as photographs, in folders of classes."""
    generator = np.random.default_rng(0)
    for number in range(CLASSES):
        folder = root / "train" / f"class{number}"
        folder.mkdir(parents=True)
        for position in range(PER_CLASS):
            pixels = generator.normal(0, 3, (SIDE, SIDE, 3))
            for side, weight in ((4, 0.6), (16, 0.3), (64, 0.1)):
                blocks = Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8))
                pixels += weight * np.asarray(blocks.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=float)
            options = {"quality": 90} if suffix == "jpg" else {}
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{position:03}.{suffix}", **options)
        (root / "test").mkdir(exist_ok=True)
        shutil.copytree(folder, root / "test" / folder.name, ignore=shutil.ignore_patterns("*[1-9].*"))


def spent() -> float:
    """Return the CPU seconds of this process and of the loader processes that have ended; or those of the clock."""
    return timing.clock() if os.environ.get("BENCHMARK_CLOCK") == "wall" else sum(os.times()[:4])


def rows(root: Path) -> Iterator[timing.Row]:
    """Read 4000 images of 128 x 128, shuffled, resized to 64 x 64, in batches of 100 from two processes."""
    transform = Compose([Resize(SMALL), CenterCrop(SMALL), ToTensor()])
    for suffix in ("jpg", "png"):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), suffix)
            arguments = {"image_size": SMALL, "in_memory": False, "num_workers": WORKERS, "val_size": 0}
            ours = Images("folder", folder, batch_size=100, **arguments).train_dataloader()
            images = ImageFolder(f"{folder}/train", transform)
            other = DataLoader(images, batch_size=100, shuffle=True, num_workers=WORKERS)
            pairs = [(_seconds(ours), _seconds(other)) for _ in range(6)][1:]
        yield timing.row(f"{len(images)} {suffix} files in {WORKERS} processes, against ImageFolder", pairs)


def _seconds(loader: DataLoader) -> float:
    start = spent()
    assert sum(len(labels) for _, labels in loader) == PER_CLASS * CLASSES
    return spent() - start
