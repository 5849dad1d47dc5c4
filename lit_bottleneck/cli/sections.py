"""The sections of a configuration that name a class."""

from collections.abc import Iterator
from typing import Any


def sections(tree: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield key and content of all sections that name a class."""
    if isinstance(tree, list):
        for item in tree:
            yield from sections(item, key)
    elif isinstance(tree, dict):
        if isinstance(tree.get("class_path"), str):
            yield key, tree
        for name, value in tree.items():
            yield from sections(value, f"{key}.{name}" if key else name)
