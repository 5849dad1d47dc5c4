"""The weights of Inception have the right checksum, or are refused."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lit_bottleneck.metrics import features
from lit_bottleneck.metrics.features import fetch_inception
from tests.data.local_mirror import Mirror

CONTENT = b"weights" * 100


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A server of the weights, and an empty cache of torch."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "weights.pth").write_bytes(CONTENT)
    with Mirror(tmp_path / "published", monkeypatch).serving() as mirror:
        monkeypatch.setattr(features, "INCEPTION_URL", f"{mirror.url}weights.pth")
        monkeypatch.setattr(features, "INCEPTION_SHA256", hashlib.sha256(CONTENT).hexdigest())
        yield mirror


def cache() -> Path:
    return Path(torch.hub.get_dir(), "checkpoints")


def test_they_are_downloaded_once(mirror: Mirror) -> None:
    assert fetch_inception() == fetch_inception() == cache() / "weights.pth"
    assert fetch_inception().read_bytes() == CONTENT
    assert mirror.requests == ["weights.pth"]
    assert list(cache().iterdir()) == [fetch_inception()]


def test_a_download_with_another_checksum_is_refused_and_leaves_nothing(mirror: Mirror) -> None:
    (mirror.folder / "weights.pth").write_bytes(CONTENT[:-1])
    with pytest.raises(OSError, match=rf"the download of {mirror.url}weights\.pth was refused: invalid hash"):
        fetch_inception()
    assert list(cache().iterdir()) == []


def test_a_cached_file_with_another_checksum_is_refused(mirror: Mirror) -> None:
    fetch_inception().write_bytes(b"evil")
    with pytest.raises(OSError, match=r"weights\.pth has the SHA-256 .* delete it"):
        fetch_inception()


def test_the_checksum_is_the_one_in_the_name() -> None:
    assert features.INCEPTION_SHA256.startswith(features.INCEPTION_URL.rpartition("-")[2].removesuffix(".pth"))
