"""The IMDB film reviews (Maas et al. 2011): is a review positive or negative?"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_bottleneck.data.base import LabelledDataModule, Part, check_integer
from lit_bottleneck.data.dataset import BatchedDataset, Examples
from lit_bottleneck.data.imdb_files import ReviewFiles, fingerprint, read_reviews
from lit_bottleneck.data.token_cache import LabelledTokens, cache_name, read_cache, write_cache
from lit_bottleneck.data.tokenizer import TOKENISER_VERSION, encode_texts


class TokenDataset(BatchedDataset):
    """Rows of tokens, held in a narrow integer type and handed out as int64, which embeddings take."""

    def transform(self, inputs: Tensor) -> Tensor:
        """Return the tokens `(B, L)` as int64."""
        return inputs.to(torch.int64)


class IMDB(LabelledDataModule):
    """25 000 film reviews to train and validate on and 25 000 to test, half of each positive, as rows of tokens.

    A batch is `(tokens, labels)`: int64 `(B, max_length)` and int64 `(B,)`, 0 negative and 1 positive. Token 0 is
    padding, in front of the review; 1 is a word outside the vocabulary; from 2 on come the words by falling frequency
    in the training part (with its validation reviews, but without the test reviews). Of longer reviews the last
    `max_length` words are kept. What a word is: `lit_bottleneck.data.tokenizer.words_of`.

    The reviews are read from the folder `root/aclImdb`, the archive `root/aclImdb_v1.tar.gz`, or either in
    `root/imdb` (or `root` is one of these itself); where none is there, `prepare_data` (as Lightning calls it)
    downloads the archive. The tokens are kept in a file `imdb-<key>.npz` beside it, or else in the user's cache folder,
    a new one for other settings or other reviews; old ones can be deleted.

    The data set: Maas et al., "Learning Word Vectors for Sentiment Analysis", ACL 2011.

    >>> imdb = IMDB(vocabulary_size=10_000, max_length=200)
    >>> imdb.dims, imdb.num_classes
    ((200,), 2)

    Args:
        root: The folder where files are or go.
        vocabulary_size: All tokens are below it: padding, the unknown word, and `vocabulary_size` - 2 words.
        max_length: Tokens per review.
        batch_size: Examples per batch and process.
        num_workers: Loader processes; 0 loads in the main process, which is the fastest for data in memory.
        seed: Of the split into training and validation.
        val_size: Held out of the training examples: a count (int) or a fraction (float). 0 trains on everything.

    Raises:
        ValueError: If an argument is out of its range; see the message. From `prepare_data` and `setup`: if the archive
            or folder is damaged or incomplete.
        FileNotFoundError: From `prepare_data` and `setup`, if the reviews are not there (and cannot be downloaded).
    """

    def __init__(
        self,
        root: str | Path = "data",
        vocabulary_size: int = 5000,
        max_length: int = 400,
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
        val_size: int | float = 0.1,
    ) -> None:
        check_integer("vocabulary_size", vocabulary_size, at_least=3, at_most=2**31)  # tokens are int32
        check_integer("max_length", max_length, at_least=1)
        super().__init__(root, (max_length,), 2, batch_size, num_workers, seed, val_size)
        self.vocabulary_size, self.max_length = vocabulary_size, max_length
        self.files = ReviewFiles(Path(root).expanduser())
        self._prepared: LabelledTokens | None = None

    def prepare_data(self) -> None:
        """Download the archive where nothing is there yet, and make the file of tokens."""
        if self._datasets:  # everything is in memory: a second run of the trainer
            return
        self.files.download()
        self._prepared = self._kept()  # for this process: where no file could be written, they are made only once
        if self._prepared is None:
            self._prepared = self._made()
            self._keep(self._prepared)

    def load(self) -> tuple[Examples, Examples]:
        """Return the examples to train and validate on, and the test examples; nothing is written."""
        tokens = self._prepared or self._kept() or self._made()
        self._prepared = None
        return (
            Examples.of(torch.from_numpy(tokens.train_tokens), torch.from_numpy(tokens.train_labels)),
            Examples.of(torch.from_numpy(tokens.test_tokens), torch.from_numpy(tokens.test_labels)),
        )

    def make_dataset(self, examples: Examples, part: Part) -> BatchedDataset:
        """Return the dataset over the `examples` of one part, with tokens as int64."""
        return TokenDataset(examples)

    def _made(self) -> LabelledTokens:
        """Return the tokens of the reviews."""
        training, test = read_reviews(self.files.find())
        train_tokens, test_tokens = encode_texts(training.texts, test.texts, self.vocabulary_size, self.max_length)
        return LabelledTokens(train_tokens, training.labels, test_tokens, test.labels)

    def _kept(self) -> LabelledTokens | None:
        """Return the tokens that a file holds, if one does."""
        return next(filter(None, map(read_cache, self._caches())), None)

    def _keep(self, tokens: LabelledTokens) -> None:
        """Write the tokens to the first file that can be written, or warn."""
        for cache in self._caches():
            try:
                write_cache(cache, tokens)
            except OSError as error:
                reason = error
            else:
                return
        rank_zero_warn(
            f"the tokens could be kept neither beside {self.files.find().absolute()} nor in {cache.parent} ({reason}): "
            "every run and process makes them again"
        )

    def _caches(self) -> tuple[Path, Path]:
        """Where the tokens are kept: beside the reviews, or where that cannot be written to, in the user's folder."""
        path = self.files.find()
        key = (TOKENISER_VERSION, self.vocabulary_size, self.max_length, path.name, *fingerprint(path))
        return path.with_name(cache_name("imdb", *key)), _user_folder() / cache_name("imdb", path.resolve(), *key)


def _user_folder() -> Path:
    """Where a user's programs keep what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lit_bottleneck"
