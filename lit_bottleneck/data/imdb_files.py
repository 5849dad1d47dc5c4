"""Files of the Large Movie Review Dataset: find, download, read."""

import gzip
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data.downloads import GIVE_ROOT, Bounded, Download, MissingDataError, fetch_all

URL = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
MD5 = "7c2ac02c03563afcf9b574c7e56c153a"
ARCHIVE, FOLDER = "aclImdb_v1.tar.gz", "aclImdb"
PLACES = (FOLDER, ARCHIVE, f"imdb/{FOLDER}", f"imdb/{ARCHIVE}")  # under root; the first that exists is read
PARTS = ("train", "test")
CLASSES = ("neg", "pos")  # label 0 and label 1
MAX_BYTES = 2**20  # of one review; the longest of the original has 13 704
MAX_TOTAL = 2**30  # of an unpacked archive; the reviews of the original have 66 MB

_REVIEW = re.compile(rf"(?:\./)?{FOLDER}/((?:train|test)/(?:neg|pos)/[^/.\n][^/\n]*\.txt)")
_REPLACE = f"Delete it and let prepare_data() download the original, or get it from {URL}"


class Reviews(NamedTuple):
    """Texts of one part, by class and then by file name, and their labels int64 ``(N,)``."""

    texts: list[str]
    labels: NDArray[np.int64]


def find_reviews(root: Path) -> Path:
    """Return the folder or archive to read: ``root`` itself, or the first of ``PLACES`` that exists.

    Raises:
        ConfigurationError: if there is none.
    """
    given = [root] if root.name in (FOLDER, ARCHIVE) else []
    for path in (*given, *(root / place for place in PLACES)):
        if path.is_dir() if path.name == FOLDER else path.is_file():
            return path
    raise MissingDataError(_missing(root, "it is not there"))


def download_reviews(root: Path) -> None:
    """Download the archive to ``root``, unless there are reviews already.

    Raises:
        ConfigurationError: if it cannot be downloaded.
        OSError: if the disk is full.
    """
    try:
        find_reviews(root)
    except MissingDataError:
        fetch_all([Download(ARCHIVE, (URL,), MD5, files=(ARCHIVE,))], root, partial(_missing, root))


def _missing(root: Path, reason: str) -> str:
    return (
        f"IMDB was expected in {root.absolute()} as {' or '.join(PLACES)}, and {reason}. Put {ARCHIVE} from {URL} "
        f"there, or let prepare_data() download it on a machine with network access. {GIVE_ROOT}"
    )


def fingerprint(path: Path) -> tuple[int, ...]:
    """Return numbers that change with the reviews in a folder or archive: files, bytes, newest time in ns."""
    stats = [file.stat() for file in _files_in(path)] if path.is_dir() else [path.stat()]
    return len(stats), sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)


def read_reviews(path: Path) -> tuple[Reviews, Reviews]:
    """Return the training and the test reviews of a folder or archive.

    Nothing is extracted to disk, and only regular files with the names of labelled reviews are read from an archive.

    Raises:
        ConfigurationError: if the archive is damaged, or reviews are missing, too long or not UTF-8.
    """
    contents = _read_folder(path) if path.is_dir() else _read_archive(path)
    return _part(path, contents, "train"), _part(path, contents, "test")


def _part(path: Path, contents: dict[str, bytes], part: str) -> Reviews:
    names = sorted(name for name in contents if name.startswith(f"{part}/"))  # by class, then by file
    labels = np.array([CLASSES.index(name.split("/")[1]) for name in names], np.int64)
    for label, name_of_class in enumerate(CLASSES):
        if label not in labels:
            files = f"{FOLDER}/{part}/{name_of_class}/*.txt"
            raise ConfigurationError(f"{path.absolute()} is incomplete: it has no reviews {files}. {_REPLACE}")
    return Reviews([_decoded(path, name, contents[name]) for name in names], labels)


def _decoded(path: Path, name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path.absolute()}: the review {name} is not UTF-8 text ({error})") from error


def _read_folder(path: Path) -> dict[str, bytes]:
    contents = {}
    for file in _files_in(path):
        name = Path(file.path).relative_to(path).as_posix()
        _check_size(path, name, file.stat().st_size)
        contents[name] = Path(file.path).read_bytes()
    return contents


def _files_in(path: Path) -> Iterator[os.DirEntry[str]]:
    for part in PARTS:
        for name_of_class in CLASSES:
            folder = path / part / name_of_class
            if folder.is_dir():
                with os.scandir(folder) as files:  # three times as fast as Path.glob: there are 50 000
                    yield from (file for file in files if _is_review(file))


def _is_review(file: os.DirEntry[str]) -> bool:
    return file.is_file() and file.name.endswith(".txt") and not file.name.startswith(".")


def _read_archive(path: Path) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    with path.open("rb") as file:
        try:
            with gzip.GzipFile(fileobj=file) as packed, _stream(unpacked := Bounded(packed, MAX_TOTAL)) as archive:
                for member in archive:
                    review = _REVIEW.fullmatch(member.name)
                    if review and member.isreg():
                        _check_size(path, member.name, member.size)
                        reader = archive.extractfile(member)
                        contents[review[1]] = reader.read() if reader else b""
                while unpacked.read(MAX_BYTES):  # to the end, where the checksum is: tarfile may stop early in silence
                    pass
        except (tarfile.TarError, OSError, EOFError, zlib.error, RecursionError) as error:
            reason = str(error) or type(error).__name__
            raise ConfigurationError(f"{path.absolute()} is broken or was cut short ({reason}). {_REPLACE}") from error
    return contents


def _stream(unpacked: Bounded) -> tarfile.TarFile:
    return tarfile.open(fileobj=unpacked, mode="r|")  # type: ignore[call-overload, no-any-return]  # it reads alone


def _check_size(path: Path, name: str, size: int) -> None:
    """Refuse a file that is too large for a review, before its bytes are in memory."""
    if size > MAX_BYTES:
        raise ConfigurationError(f"{path.absolute()}: {name} has {size} bytes; a review has at most {MAX_BYTES}")
