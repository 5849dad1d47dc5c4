"""Downloads that are verified, unpacked in a temporary folder, and renamed into place."""

import errno
import gzip
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from torchvision.datasets.utils import check_integrity, download_url

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.training.whole_file import partial_folder

GIVE_ROOT = "Say where it is with root=... (in a recipe: --data.init_args.root)"
MAX_BYTES = 2**32  # unpacked; the largest, SVHN, has 250 MB
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class Bounded:
    """Unpacks a file up to a number of bytes: a thousand zeros are packed into one, and would fill any disk."""

    def __init__(self, file: gzip.GzipFile, most: int) -> None:
        self._file, self._most, self._left = file, most, most

    def read(self, size: int = -1, /) -> bytes:
        """Read at most ``size`` bytes.

        Raises:
            ExtractError: if there are more than ``most`` in all.
        """
        block = self._file.read(size)
        self._left -= len(block)
        if self._left < 0:
            raise tarfile.ExtractError(f"it holds more than {self._most} bytes")
        return block


class MissingDataError(ConfigurationError, FileNotFoundError):
    """Files of a data set that are not in ``root``, or damaged, and cannot be downloaded."""


@dataclass(frozen=True)
class Download:
    """A file to download, and the files that it contains.

    Args:
        name: its path, relative to the root.
        urls: its addresses, tried in this order.
        md5: its checksum.
        files: its contents, relative to the root: the wanted members of a ``*.tar.gz``, the one file of a ``*.gz``; or
            itself, if it is not to be unpacked.
    """

    name: str
    urls: tuple[str, ...]
    md5: str
    files: tuple[str, ...]

    def fetch(self, root: Path) -> None:
        """Put the files that are missing under ``root`` there, from the downloaded file if that lies there intact.

        Each process downloads and unpacks in a temporary folder of its own and renames the files from there. So other
        processes see each file whole or not at all, even if several fetch at once or one is killed. (Only a killed
        process leaves its folder behind, until the next download.)

        Raises:
            OSError: if the file cannot be downloaded, has another checksum, lacks one of its files, holds paths that
                lead out of its folder or more than ``MAX_BYTES``, or cannot be written. Nothing is left behind.
        """
        missing = [file for file in self.files if not (root / file).exists()]
        if not missing:
            return
        with partial_folder(root) as folder:
            given = root / self.name
            self._unpack(given if check_integrity(given, self.md5) else self._download(folder), folder)
            for file in missing:
                if not (root / file).exists():  # another process may have been quicker
                    (root / file).parent.mkdir(parents=True, exist_ok=True)
                    (folder / file).replace(root / file)

    def _download(self, folder: Path) -> Path:
        target = folder / self.name
        reasons = []
        for url in self.urls:
            try:
                download_url(url, target.parent, target.name, self.md5)
            except (RuntimeError, OSError, HTTPException) as error:
                if isinstance(error, OSError) and error.errno in _DISK_FULL:
                    raise OSError(error.errno, error.strerror, str(target)) from error
                if isinstance(error, RuntimeError) and target.exists():  # torchvision's error for a wrong checksum
                    reasons.append(f"what came from {url} has another checksum than MD5 {self.md5}")
                else:
                    reasons.append(f"{url}: {error}")
            else:
                return target
        raise OSError("; ".join(reasons))

    def _unpack(self, archive: Path, folder: Path) -> None:
        if self.files == (self.name,):
            return
        try:
            if self.name.endswith(".tar.gz"):
                with tarfile.open(archive) as tar:
                    _check_members(tar)
                    tar.extractall(folder, filter="data")
            else:
                target = folder / self.files[0]
                target.parent.mkdir(parents=True, exist_ok=True)
                with gzip.open(archive) as packed, target.open("wb") as unpacked:
                    shutil.copyfileobj(Bounded(packed, MAX_BYTES), unpacked)
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise OSError(f"{self.name} cannot be unpacked: {error}") from error
        absent = [file for file in self.files if not (folder / file).is_file()]
        if absent:
            raise OSError(f"{self.name} does not hold {', '.join(absent)}")


def fetch_all(downloads: Iterable[Download], root: Path, explain: Callable[[str], str]) -> None:
    """Put files that are missing under ``root`` there.

    Args:
        downloads: the files.
        root: the folder.
        explain: turn the reason of a failure into a message that says how to provide the files.

    Raises:
        ConfigurationError: if they cannot be downloaded.
        OSError: if the disk is full.
    """
    try:
        for download in downloads:
            download.fetch(root)
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise OSError(error.errno, error.strerror, error.filename or str(root)) from error
        raise MissingDataError(explain(f"the download failed: {error}")) from error


def _check_members(tar: tarfile.TarFile) -> None:
    """Refuse links and absolute names, some of which tar's data filter lets pass, and more than ``MAX_BYTES``."""
    total = 0
    for member in tar:
        if not (member.isreg() or member.isdir()) or member.name.startswith("/"):
            raise tarfile.ExtractError(f"{member.name!r} is no file or folder within it")
        total += member.size
        if total > MAX_BYTES:
            raise tarfile.ExtractError(f"it holds more than {MAX_BYTES} bytes")
