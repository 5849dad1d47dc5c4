"""YAML in which no key is given twice, and files of it that are read with what is wrong with them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

from lit_bottleneck.checks import ConfigurationError

MODE = "yaml_once"  # of a parser: YAML without repeated keys
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE = "tag:yaml.org,2002:merge"
_DEEPEST = 100  # levels
_MOST = 10**6  # values, with those that aliases stand for


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Quotes words such as 1e-3, which jsonargparse reads as numbers and YAML 1.1 does not."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*\.?|\.\d)[\d_]*([eE][-+]?\d+)?$"), list("-+.0123456789")
)


class RepeatedKey(BaseException):
    """Carries a key that is given twice past jsonargparse, which catches each ``Exception`` to try the next type."""


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        ConfigurationError: if it cannot be read as YAML, or gives a key twice.
    """
    try:
        content = path.read_bytes()
        node = yaml.compose(content, Loader=_LOADER)
        _refuse_repeated(node)
        return yaml.load(content, Loader=_LOADER)  # noqa: S506  (a safe loader)
    except RepeatedKey as error:
        raise ConfigurationError(f"{path}, {error}") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:  # such as a date in month 13
        raise ConfigurationError(f"{path} is no YAML file: {error}") from error


def load_yaml(text: str) -> Any:
    """Return the plain collections of YAML that a program wrote."""
    return yaml.load(text, Loader=_LOADER)  # noqa: S506  (a safe loader)


def dump_yaml(tree: Any) -> str:
    """Return plain collections as YAML, which jsonargparse reads as what they are."""
    return str(yaml.dump(tree, Dumper=_Dumper, default_flow_style=False, sort_keys=False, allow_unicode=True))


def _load(text: str) -> Any:
    """Load a value as jsonargparse does."""
    try:
        value = get_loader("yaml")(text)
    except (ValueError, RecursionError, AttributeError) as error:  # of constructors
        raise yaml.YAMLError(str(error)) from error
    if ":" in text:
        _refuse_repeated(yaml.compose(text, Loader=_LOADER))
    return value


set_loader(MODE, _load, (yaml.YAMLError,))


def _refuse_repeated(root: yaml.Node | None) -> None:
    """Refuse a key that is given twice, in one mapping or also with dots.

    Raises:
        RepeatedKey: with both lines.
    """
    lines: dict[tuple[str, str], int] = {}
    for key, tag, line in () if root is None else _keys(root, "", set()):
        first = lines.get((key, tag))
        if first is not None:
            raise RepeatedKey(f"line {line}: the key {key} is given twice, first in line {first}; keep one of them")
        lines[key, tag] = line
    if root is not None and _size(root, {}) > _MOST:
        raise yaml.YAMLError(f"its aliases stand for more than {_MOST} values")


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values a node has if every alias is written out: a few lines may stand for billions."""
    if id(node) not in known:
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for one in inner for part in (one if isinstance(one, tuple) else (one,))]
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]


def _keys(node: yaml.Node, place: str, seen: set[int], above: tuple[int, ...] = ()) -> Iterator[tuple[str, str, int]]:
    """Yield every key with the keys above it, its tag (the key 1 is not the key "1") and line; of aliases, once.

    Raises:
        YAMLError: for an alias within what it stands for, and more levels than any configuration has.
    """
    if len(above) > _DEEPEST:
        raise yaml.YAMLError(f"line {node.start_mark.line + 1}: it has more than {_DEEPEST} levels")
    if id(node) in above:
        raise yaml.YAMLError(f"line {node.start_mark.line + 1}: an alias stands within what it stands for")
    if id(node) in seen:
        return
    seen.add(id(node))
    above = (*above, id(node))
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _keys(item, f"{place}[{number}]", seen, above)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{place}.{key.value}" if place else str(key.value)
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                yield name, key.tag, key.start_mark.line + 1
            yield from _keys(value, name, seen, above)
