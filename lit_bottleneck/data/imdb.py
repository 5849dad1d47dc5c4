"""The IMDB film reviews (Maas et al. 2011), labelled as positive or negative."""

import hashlib
import os
import zipfile
import zlib
from os.path import expanduser
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from lit_bottleneck.checks import whole_number
from lit_bottleneck.data.base import LabelledDataModule
from lit_bottleneck.data.dataset import Examples
from lit_bottleneck.data.imdb_files import download_reviews, find_reviews, fingerprint, read_reviews
from lit_bottleneck.data.tokenizer import TOKENIZER_VERSION, encode_texts
from lit_bottleneck.training.whole_file import whole_file


class LabelledTokens(NamedTuple):
    """Tokens, int16 or int32 ``(N, L)``, and labels int64 ``(N,)`` of the training and the test texts."""

    train_tokens: NDArray[np.signedinteger]
    train_labels: NDArray[np.int64]
    test_tokens: NDArray[np.signedinteger]
    test_labels: NDArray[np.int64]


class IMDB(LabelledDataModule):
    """25 000 film reviews to train and validate on and 25 000 to test, half of each positive, as rows of tokens.

    A batch is ``(tokens, labels)``: int64 ``(B, max_length)`` and int64 ``(B,)``, 0 negative and 1 positive. Token 0 is
    padding, in front of the review; 1 is a word outside the vocabulary; the words follow from 2 by falling frequency
    in the training part (with its validation reviews, but without the test reviews). The last ``max_length`` words of
    longer reviews are kept. For the definition of a word see ``lit_bottleneck.data.tokenizer.words_of``.

    The reviews are read from the folder ``root/aclImdb``, the archive ``root/aclImdb_v1.tar.gz``, or either in
    ``root/imdb`` (or ``root`` is one of these itself); if none exists, ``prepare_data`` (which Lightning calls)
    downloads the archive. The tokens are cached in a file ``imdb-<key>.npz`` beside it, or else in the user's cache
    folder, a new one for other settings or other reviews; old ones can be deleted.

    The data set: Maas et al., "Learning Word Vectors for Sentiment Analysis", ACL 2011.

    >>> imdb = IMDB(vocabulary_size=10_000, max_length=200)
    >>> imdb.dims, imdb.num_classes
    ((200,), 2)

    Args:
        root: folder where files are or go.
        vocabulary_size: all tokens are below it: padding, the unknown word, and ``vocabulary_size`` - 2 words.
        max_length: tokens per review.
        batch_size: examples per batch and process.
        **kwargs: ``num_workers``, ``seed``, ``val_size`` and ``drop_last``, as for ``ExamplesDataModule``.

    Raises:
        ConfigurationError: if an argument is out of its range. From ``prepare_data`` and ``setup``: if the reviews are
            missing (and cannot be downloaded), damaged or incomplete.
    """

    input_dtype: ClassVar[torch.dtype | None] = torch.int64  # for embeddings; held as int16 or int32

    def __init__(
        self,
        root: str | Path = "data",
        vocabulary_size: int = 5000,
        max_length: int = 400,
        batch_size: int = 32,
        **kwargs: Any,
    ) -> None:
        self.vocabulary_size = whole_number("vocabulary_size", vocabulary_size, at_least=3, at_most=2**31)  # int32
        self.max_length = whole_number("max_length", max_length, at_least=1)
        super().__init__(root=root, dims=(self.max_length,), num_classes=2, batch_size=batch_size, **kwargs)
        self._folder = Path(expanduser(root))
        self._prepared: LabelledTokens | None = None

    def prepare_data(self) -> None:
        """Download the archive if there are no reviews, and write the cache of tokens."""
        if self._datasets:  # everything is in memory: a second run of the trainer
            return
        download_reviews(self._folder)
        self._prepared = self._read_cache()  # kept for this process: without a cache, they are made only once
        if self._prepared is None:
            self._prepared = self._encode_reviews()
            self._write_cache(self._prepared)

    def load(self) -> tuple[Examples, Examples]:
        """Return the examples to train and validate on, and the test examples; nothing is written."""
        tokens = self._prepared or self._read_cache() or self._encode_reviews()
        self._prepared = None
        return (
            Examples.of(torch.from_numpy(tokens.train_tokens), torch.from_numpy(tokens.train_labels)),
            Examples.of(torch.from_numpy(tokens.test_tokens), torch.from_numpy(tokens.test_labels)),
        )

    def _encode_reviews(self) -> LabelledTokens:
        training, test = read_reviews(find_reviews(self._folder))
        train_tokens, test_tokens = encode_texts(training.texts, test.texts, self.vocabulary_size, self.max_length)
        return LabelledTokens(train_tokens, training.labels, test_tokens, test.labels)

    def _read_cache(self) -> LabelledTokens | None:
        return next(filter(None, map(read_cache, self._cache_paths())), None)

    def _write_cache(self, tokens: LabelledTokens) -> None:
        """Write the tokens to the first file that can be written, or warn."""
        for cache in self._cache_paths():
            try:
                return write_cache(cache, tokens)
            except OSError as error:
                reason = error
        places = f"beside {find_reviews(self._folder).absolute()} nor in {cache.parent}"
        rank_zero_warn(f"the tokens could be cached neither {places} ({reason}): each process makes them again")

    def _cache_paths(self) -> tuple[Path, Path]:
        """Return the cache beside the reviews, and the one in the user's cache folder."""
        path = find_reviews(self._folder)
        key = (TOKENIZER_VERSION, self.vocabulary_size, self.max_length, path.name, *fingerprint(path))
        users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lit_bottleneck"
        return path.with_name(cache_name("imdb", *key)), users / cache_name("imdb", path.resolve(), *key)


def cache_name(prefix: str, *key: object) -> str:
    """Return a file name that depends on the key.

    >>> cache_name("imdb", 5000, 400)
    'imdb-845b8c353672e33b.npz'
    """
    return f"{prefix}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.npz"


def read_cache(path: Path) -> LabelledTokens | None:
    """Return the tokens that ``write_cache`` wrote, or None if the file is missing or damaged.

    Nothing is unpickled, and the file's checksums are verified.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            tokens = LabelledTokens(*(arrays[name] for name in LabelledTokens._fields))
    # numpy and zipfile raise these for a file that is truncated, partly overwritten, or of another kind.
    except (OSError, EOFError, ValueError, KeyError, AttributeError, RuntimeError, zlib.error, zipfile.BadZipFile):
        return None
    fits = all(
        rows.ndim == 2 and rows.dtype.kind == labels.dtype.kind == "i" and labels.shape == rows.shape[:1]
        for rows, labels in ((tokens.train_tokens, tokens.train_labels), (tokens.test_tokens, tokens.test_labels))
    )
    return tokens if fits else None


def write_cache(path: Path, tokens: LabelledTokens) -> None:
    """Write tokens to a file that other processes see whole or not at all.

    Raises:
        OSError: if the file cannot be written; nothing is left behind.
    """
    with whole_file(path) as file:
        np.savez(file, **tokens._asdict())
