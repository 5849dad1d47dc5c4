"""The image files below a folder: which they are, their part and their class."""

import os
from heapq import heappop, heappush
from pathlib import Path
from typing import NamedTuple

from lightning_utilities.core.rank_zero import rank_zero_info
from torchvision.datasets.folder import IMG_EXTENSIONS

from lit_bottleneck.checks import ConfigurationError

LAYOUT = "expected root/train/<class>/* and root/test/<class>/* (and root/val/<class>/*), or root/<class>/* alone"
SUFFIXES = (*IMG_EXTENSIONS, ".avif", ".gif", ".jfif", ".jp2", ".pbm", ".pfm", ".pnm")
_PARTS = ("train", "val", "test")
_SPELLED = {"train", "training", "val", "valid", "validation", "test", "testing"}


class Listing(NamedTuple):
    """Image files in alphabetical order, and the class of each; "" without classes."""

    paths: list[str]
    classes: list[str]


def list_images(root: Path) -> dict[str, Listing]:
    """Return the images of "train", "test" and perhaps "val"; or, without such folders, of "all" parts.

    A class is a folder, to any depth below it. Images that are in no such folder are unlabelled. Files are images by
    their suffix. What is left out (files of other suffixes, and what lies beside the folders of the parts) is logged.

    Raises:
        ConfigurationError: if the folder is not laid out as above, a part has images in and beside folders of classes,
            or two parts have different classes.
    """
    places = {path: Path(path).relative_to(root).parts for path in regular_files(root)}
    folders = {place[0] for place in places.values() if len(place) > 1}
    if folders and {name.casefold() for name in folders} <= _SPELLED and not folders & {"train", "test"}:
        raise ConfigurationError(f"{root / min(folders)} has the name of a part, not of a class; {LAYOUT}")
    if not folders & {"train", "test"}:
        parts = {"all": _listing(root, places)}
    else:
        for there, missing in (("train", "test"), ("test", "train")):
            if missing not in folders:
                raise ConfigurationError(f"{root / there} exists but {root / missing} does not or is empty; {LAYOUT}")
        of_parts = {part: {p: place[1:] for p, place in places.items() if place[0] == part} for part in _PARTS}
        parts = {part: _listing(root / part, inside) for part, inside in of_parts.items() if inside}
        _check_classes(root, parts)
    left_out = sorted(places.keys() - {path for listing in parts.values() for path in listing.paths})
    if left_out:
        why = "no images by their suffix, or in no part of the data"
        rank_zero_info(f"{root}: {len(left_out)} files are left out, such as {left_out[0]} ({why})")
    return parts


def _listing(folder: Path, places: dict[str, tuple[str, ...]]) -> Listing:
    """Return the images among files, which are given with their path relative to the folder."""
    images = {path: place for path, place in places.items() if path.lower().endswith(SUFFIXES)}
    if not images:
        raise ConfigurationError(f"{folder.absolute()} has no images; {LAYOUT}")
    classes = [place[0] if len(place) > 1 else "" for place in images.values()]
    if "" in classes and len(set(classes)) > 1:
        beside, within = (next(path for path, place in images.items() if (len(place) > 1) == deep) for deep in (0, 1))
        raise ConfigurationError(f"{beside} has no class, {within} has: expected images in folders of classes, or none")
    empty = {path: place for path, place in places.items() if len(place) > 1 and place[0] not in classes}
    if empty and "" not in classes:
        path, place = next(iter(empty.items()))
        suffixes = ", ".join(SUFFIXES)
        raise ConfigurationError(f"{folder / place[0]} has files but no images, such as {path}; known are {suffixes}")
    return Listing(list(images), classes)


def _check_classes(root: Path, parts: dict[str, Listing]) -> None:
    trained = set(parts["train"].classes)
    for part, listing in parts.items():
        differing = sorted(name or "no class" for name in trained ^ set(listing.classes))
        if differing:
            folders = f"{root / 'train'} and {root / part}"
            raise ConfigurationError(f"{folders} must have the same classes; they differ in {differing}")


def regular_files(folder: Path) -> list[str]:
    """Return the paths of all regular files below a folder, each file once, in alphabetical order.

    Names that begin with a dot are passed over, whether of files or folders; so are pipes, sockets, devices and links
    to nothing. Other links are followed. What has several paths counts under the one with the fewest links and, of
    these, the first in the alphabet.
    """
    seen: set[tuple[int, int]] = set()

    def is_new(path: str) -> bool:
        status = os.stat(path)
        identity = (status.st_dev, status.st_ino)
        return identity not in seen and not seen.add(identity)  # type: ignore[func-returns-value]

    queue, files = [(0, str(folder))], []
    while queue:
        links, current = heappop(queue)
        if not is_new(current):
            continue
        with os.scandir(current) as entries:
            for entry in entries:
                found = (links + entry.is_symlink(), entry.path)
                if entry.name.startswith("."):
                    continue
                if os.path.isdir(entry.path):  # false, where DirEntry's raises an error for a link to itself
                    heappush(queue, found)
                elif os.path.isfile(entry.path):
                    files.append(found)
    return sorted(path for _, path in sorted(files) if is_new(path))
