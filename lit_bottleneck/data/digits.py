"""scikit-learn's bundled digits: real scans that need no download."""

from typing import Any, ClassVar

import torch
from sklearn.datasets import load_digits

from lit_bottleneck.data.dataset import Examples
from lit_bottleneck.data.image_data_module import ImageDataModule
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
        batch_size: examples per batch and process.
        **kwargs: ``num_workers``, ``seed``, ``val_size``, ``value_range``, ``binarize``, ``augment`` and ``nuisance``,
            as for ``ImageDataModule``; ``root`` is not used.

    Raises:
        ConfigurationError: if an argument is out of its range.
    """

    TOTAL: ClassVar[int] = 1797
    TEST_TOTAL: ClassVar[int] = 359  # 20 %
    TEST_SEED: ClassVar[int] = 0  # a constant: runs with different seeds are tested on the same rows

    def __init__(self, batch_size: int = 64, **kwargs: Any) -> None:
        super().__init__(dims=(1, 8, 8), num_classes=10, max_value=16, batch_size=batch_size, **kwargs)
        validation_count(self.val_size, self.TOTAL - self.TEST_TOTAL)  # so that too many are refused at construction

    def load(self) -> tuple[Examples, Examples]:
        """Return the digits to train and validate on, and the test digits."""
        bunch = load_digits()
        images = torch.from_numpy(bunch.images).to(torch.uint8).unsqueeze(1)
        digits = Examples.of(images, torch.from_numpy(bunch.target).to(torch.int64))
        training_rows, test_rows = stratified_split(digits.labels, self.TEST_TOTAL, self.TEST_SEED)
        return digits.select(training_rows), digits.select(test_rows)
