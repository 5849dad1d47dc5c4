"""The weights of Inception have the right checksum, or are refused."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lit_bottleneck.metrics import inception_weights as _inception_weights
from lit_bottleneck.metrics.inception_weights import fetch_weights
from tests.data.local_mirror import Mirror

CONTENT = b"weights" * 100


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A server of the weights, and an empty cache of torch."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "weights.pth").write_bytes(CONTENT)
    with Mirror(tmp_path / "published", monkeypatch).serving() as mirror:
        monkeypatch.setattr(_inception_weights, "URL", f"{mirror.url}weights.pth")
        monkeypatch.setattr(_inception_weights, "SHA256", hashlib.sha256(CONTENT).hexdigest())
        yield mirror


def cache() -> Path:
    return Path(torch.hub.get_dir(), "checkpoints")


def test_they_are_downloaded_once(mirror: Mirror) -> None:
    assert fetch_weights() == fetch_weights() == cache() / "weights.pth"
    assert fetch_weights().read_bytes() == CONTENT
    assert mirror.requests == ["weights.pth"]
    assert list(cache().iterdir()) == [fetch_weights()]


def test_a_download_with_another_checksum_is_refused_and_leaves_nothing(mirror: Mirror) -> None:
    (mirror.folder / "weights.pth").write_bytes(CONTENT[:-1])
    with pytest.raises(OSError, match=rf"the download of {mirror.url}weights\.pth was refused: invalid hash"):
        fetch_weights()
    assert list(cache().iterdir()) == []


def test_a_cached_file_with_another_checksum_is_refused(mirror: Mirror) -> None:
    fetch_weights().write_bytes(b"evil")
    with pytest.raises(OSError, match=r"weights\.pth has the SHA-256 .* delete it"):
        fetch_weights()


def test_the_checksum_is_the_one_in_the_name() -> None:
    assert _inception_weights.SHA256.startswith(_inception_weights.URL.rpartition("-")[2].removesuffix(".pth"))
