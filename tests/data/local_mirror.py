"""A local server, from which the data modules download small data sets in the original formats."""

import contextlib
import gzip
import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from torchvision import datasets

from lit_bottleneck.data import imdb_files
from tests.data.original_formats import Written, write_cifar, write_mnist, write_svhn
from tests.data.written_reviews import make_reviews, write_archive

SIZES = (20, 10)  # of the training and the test part

Member = tuple[tarfile.TarInfo, bytes]


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


class Mirror:
    """Serve a folder, and redirect the downloads to it, with the checksums of the published files.

    Args:
        folder: The published files.
        monkeypatch: Restores the addresses and checksums.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.requests: list[str] = []
        self.holds_back = False  # the second half of the first file requested
        self.half_is_sent, self.may_go_on = threading.Event(), threading.Event()
        self._monkeypatch = monkeypatch
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    @contextlib.contextmanager
    def serving(self) -> Iterator["Mirror"]:
        self._monkeypatch.setenv("no_proxy", "127.0.0.1")
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield self
        finally:
            self.may_go_on.set()
            self._server.shutdown()
            self._server.server_close()

    def publish(self, name: str, more: tuple[Member, ...] = ()) -> tuple[Written, Written] | None:
        """Publish a data set, with ``more`` members in its archive; return the contents of its parts."""
        if name == "IMDB":
            archive = write_archive(self.folder, make_reviews(*SIZES), list(more))
            self._monkeypatch.setattr(imdb_files, "URL", self.url + archive.name)
            self._monkeypatch.setattr(imdb_files, "MD5", md5(archive))
            return None
        if name == "SVHN":
            return self._publish_svhn()
        return self._publish_cifar(name, more) if name.startswith("CIFAR") else self._publish_mnist(name)

    def _publish_mnist(self, name: str) -> tuple[Written, Written]:
        parts = write_mnist(self.folder, name, *SIZES)
        resources = []
        for path in sorted((self.folder / name / "raw").iterdir()):
            packed = path.with_name(f"{path.name}.gz")
            packed.write_bytes(gzip.compress(path.read_bytes(), compresslevel=1))
            resources.append((packed.name, md5(packed)))
        self._set(name, resources=resources, mirrors=[f"{self.url}nowhere/", f"{self.url}{name}/raw/"])
        return parts

    def _publish_cifar(self, name: str, more: tuple[Member, ...]) -> tuple[Written, Written]:
        parts = write_cifar(self.folder, name, *SIZES)
        dataset = getattr(datasets, name)
        unpacked, archive = self.folder / dataset.base_folder, self.folder / dataset.filename
        with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
            tar.add(unpacked, dataset.base_folder)
            for member, content in more:
                tar.addfile(member, io.BytesIO(content))
        tables = {
            table: [[file_name, md5(unpacked / file_name)] for file_name, _ in getattr(dataset, table)]
            for table in ("train_list", "test_list")
        }
        meta = {**dataset.meta, "md5": md5(unpacked / dataset.meta["filename"])}
        self._set(name, url=self.url + archive.name, tgz_md5=md5(archive), meta=meta, **tables)
        return parts

    def _publish_svhn(self) -> tuple[Written, Written]:
        parts = write_svhn(self.folder, *SIZES)
        names = {split: f"{split}_32x32.mat" for split in ("train", "test")}
        splits = {split: [self.url + name, name, md5(self.folder / name)] for split, name in names.items()}
        self._set("SVHN", split_list=splits)
        return parts

    def _set(self, name: str, **attributes: object) -> None:
        for attribute, value in attributes.items():
            self._monkeypatch.setattr(getattr(datasets, name), attribute, value)

    def _handler(mirror) -> type[BaseHTTPRequestHandler]:  # noqa: N805  (the handler has a self of its own)
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = mirror.folder / self.path[1:]
                if not path.is_file():
                    self.send_error(404)
                    return
                mirror.requests.append(path.name)
                content = path.read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # torchvision only looks where an address leads, at first
                    self._send(content)

            def _send(self, content: bytes) -> None:
                if mirror.holds_back and self.headers["Method"] != "HEAD":
                    mirror.holds_back = False
                    self.wfile.write(content[: len(content) // 2])
                    mirror.half_is_sent.set()
                    mirror.may_go_on.wait(60)
                    content = content[len(content) // 2 :]
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler
