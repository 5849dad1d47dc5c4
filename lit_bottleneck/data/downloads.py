"""Files that are downloaded: checked, unpacked out of sight, and put in their places whole."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory

from torchvision.datasets.utils import check_integrity, download_url


@dataclass(frozen=True)
class Download:
    """A file that can be downloaded, and the files that come of it.

    Args:
        name: Where it belongs, relative to the root.
        urls: Where it can be had, tried in this order.
        md5: Its checksum.
        files: What is in it, relative to the root: of `*.tar.gz` its members that are wanted, of `*.gz` the one file;
            or itself, which then is not unpacked.
    """

    name: str
    urls: tuple[str, ...]
    md5: str
    files: tuple[str, ...]

    def fetch(self, root: Path) -> None:
        """Put those of its files under `root` that are not there, unpacked from what lies there already if it is whole.

        It is downloaded and unpacked in a folder of this process alone, from where the files are renamed: others see
        each of them whole or not at all, however many do the same at once and wherever one is killed. (Such a folder,
        `root/.download-*`, is left behind only where a process was killed.)

        Raises:
            OSError: If it cannot be downloaded, has another checksum, does not hold its files, leads out of its folder,
                or cannot be written. Nothing is left behind.
        """
        missing = [file for file in self.files if not (root / file).exists()]
        if not missing:
            return
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".download-", dir=root) as name:
            folder = Path(name)
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
                if isinstance(error, RuntimeError) and target.exists():  # torchvision's word for a wrong checksum
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
                    shutil.copyfileobj(packed, unpacked)
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise OSError(f"{self.name} cannot be unpacked: {error}") from error
        absent = [file for file in self.files if not (folder / file).is_file()]
        if absent:
            raise OSError(f"{self.name} does not hold {', '.join(absent)}")


def _check_members(tar: tarfile.TarFile) -> None:
    """Refuse links and names from the root on, of which tar's data filter lets some pass."""
    for member in tar:
        if not (member.isreg() or member.isdir()) or member.name.startswith("/"):
            raise tarfile.ExtractError(f"{member.name!r} is no file or folder within it")
