"""scikit-learn's bundled digits: real scans that need no download."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from sklearn.datasets import load_digits
from torch import nn

from lit_bottleneck.data.dataset import Examples
from lit_bottleneck.data.image_data_module import Binarization, ImageDataModule
from lit_bottleneck.data.nuisance import Nuisance
from lit_bottleneck.data.splits import stratified_split, validation_count


class Digits(ImageDataModule):
    """1797 scans of handwritten digits, 8 x 8 with grey levels 0 to 16, in 10 classes (1438 to train, 359 to test).

    They come with scikit-learn, so that a first run works offline. The test rows are the same for every seed.

    >>> digits = Digits(batch_size=32)
    >>> digits.dims, digits.num_classes
    ((1, 8, 8), 10)
    >>> x, y = next(iter(digits.train_dataloader()))
    >>> x.shape, y.shape
    (torch.Size([32, 1, 8, 8]), torch.Size([32]))

    Args:
        batch_size: Examples per batch and process.
        num_workers: Loader processes.
        seed: Of the split into training and validation and of the draws made once; not of the test rows.
        val_size: Held out of the 1438 training rows: a count (int) or a fraction (float). 0 trains on all.
        value_range: What the grey levels from 0 to 16 are mapped to, linearly.
        binarize: None; "dynamic": training images are drawn anew at each visit, black or white with the grey level
            as probability of white, and validation and test images once from `seed`; "static": all once.
        augment: torchvision.transforms.v2 transforms, applied to each training image on its own, as uint8 (0 to 16).
        root: Not used: the digits need no folder. Here so that all data sets take the same arguments.
        nuisance: Turns or moves the images, and makes batches `(images, labels, factors)`: training images anew at each
            visit, validation images as drawn once from `seed`, test images the same for every seed. See
            `lit_bottleneck.data.nuisance`.

    Raises:
        ValueError: If an argument is out of its range; see the message.
    """

    TOTAL: ClassVar[int] = 1797
    TEST_TOTAL: ClassVar[int] = 359  # 20 %
    TEST_SEED: ClassVar[int] = 0  # a constant: runs with different seeds are tested on the same rows

    def __init__(
        self,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        val_size: int | float = 0.1,
        value_range: tuple[float, float] = (0.0, 1.0),
        binarize: Binarization | None = None,
        augment: list[nn.Module] | None = None,
        root: str | Path | None = None,
        nuisance: Nuisance | None = None,
    ) -> None:
        super().__init__(
            root=root,
            dims=(1, 8, 8),
            num_classes=10,
            max_value=16,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            val_size=val_size,
            value_range=value_range,
            binarize=binarize,
            augment=augment,
            nuisance=nuisance,
        )
        validation_count(val_size, self.TOTAL - self.TEST_TOTAL)  # the rows are known: refuse too many of them now

    def load(self) -> tuple[Examples, Examples]:
        """Return the digits to train and validate on, and the test digits."""
        bunch = load_digits()
        images = torch.from_numpy(bunch.images).to(torch.uint8).unsqueeze(1)
        digits = Examples.of(images, torch.from_numpy(bunch.target).to(torch.int64))
        training_rows, test_rows = stratified_split(digits.labels, self.TEST_TOTAL, self.TEST_SEED)
        return digits.select(training_rows), digits.select(test_rows)
