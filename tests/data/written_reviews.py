"""Synthetic film reviews in the original archive and folder layout."""

import io
import tarfile
from pathlib import Path

import numpy as np

Contents = dict[str, str]  # "train/pos/0_9.txt": its text

PLAIN = ["the", "a", "film", "actor", "plot", "scene", "it", "was", "with", "and"]
TELLING = (["dull", "awful", "boring", "wasted"], ["great", "superb", "moving", "funny"])  # negative, positive


def make_reviews(train: int = 200, test: int = 50, seed: int = 0) -> Contents:
    """Return reviews, half of them positive: one word in four depends on the class."""
    generator = np.random.default_rng(seed)
    contents = {}
    for part, total in (("train", train), ("test", test)):
        for row in range(total):
            label = row % 2
            length = int(generator.integers(12, 40))
            words = np.where(generator.random(length) < 0.25, generator.choice(TELLING[label], length), "")
            words = np.where(words == "", generator.choice(PLAIN, length), words)
            stars = (1, 10)[label]
            contents[f"{part}/{('neg', 'pos')[label]}/{row}_{stars}.txt"] = (
                " ".join(words).capitalize() + ".<br /><br />"
            )
    return contents


def labelled(negative: list[str], positive: list[str], part: str) -> Contents:
    """Return the given texts of one part by file name, in this order."""
    texts = {"neg": negative, "pos": positive}
    return {f"{part}/{kind}/{row}_5.txt": text for kind in texts for row, text in enumerate(texts[kind])}


def write_folder(root: Path, contents: Contents) -> Path:
    """Write ``root/aclImdb``, the unpacked archive."""
    folder = root / "aclImdb"
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def regular(name: str, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    """Return a file as a member of an archive, and its content."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    return member, content


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    """Return a member of another kind: a link to ``target``, a folder, a device."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def write_archive(root: Path, contents: Contents, more: list[tuple[tarfile.TarInfo, bytes]] | None = None) -> Path:
    """Write ``root/aclImdb_v1.tar.gz`` with the labelled reviews, the original's other files, and ``more``."""
    root.mkdir(parents=True, exist_ok=True)
    beside = ("README", "imdb.vocab", "train/urls_pos.txt", "train/labeledBow.feat", "train/unsup/0_0.txt")
    members = [
        special("aclImdb/", tarfile.DIRTYPE),
        *(regular(f"aclImdb/{name}", b"unseen words") for name in beside),
        *(regular(f"aclImdb/{name}", text.encode()) for name, text in contents.items()),
        *(more or []),
    ]
    path = root / "aclImdb_v1.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return path


FEW = labelled(["a bad bad film"], ["a good film"], "train") | labelled(["a new film"], ["good"], "test")
