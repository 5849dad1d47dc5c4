"""Cache file of tokens, which several processes may write at once."""

import hashlib
import os
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray


class LabelledTokens(NamedTuple):
    """Tokens, int16 or int32 ``(N, L)``, and labels int64 ``(N,)`` of the training and the test texts."""

    train_tokens: NDArray[np.signedinteger]
    train_labels: NDArray[np.int64]
    test_tokens: NDArray[np.signedinteger]
    test_labels: NDArray[np.int64]


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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            np.savez(file, **tokens._asdict())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
