"""The arms of a comparison, from the command's arguments."""

import itertools
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

import yaml


@dataclass(frozen=True)
class Arm:
    """One of the ways of training that are compared.

    Attributes:
        name: as it stands in tables.
        arguments: of ``lit-bottleneck fit``.
        settings: what the grid has set, by key.
    """

    name: str
    arguments: tuple[str, ...]
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def sets_a_price(self) -> bool:
        """Whether the grid is over what a nat costs, or how many there may be."""
        return any(key.split(".")[-1] in ("beta", "capacity") for key in self.settings)

    @property
    def folder_name(self) -> str:
        """The name, as far as a file system takes it."""
        return re.sub(r"[^\w.=+-]+", "_", self.name)


def arms_of(common: Sequence[str], arms: Sequence[str], grid: Sequence[str]) -> list[Arm]:
    """Every arm with every point of the grid.

    Configuration files come first, those that are common before an arm's own, and then options in the same order: so a
    recipe of an arm does not undo a common option, and an arm's option holds against both.

    Args:
        common: arguments of all arms.
        arms: ``NAME=ARGUMENTS`` each, written as in a shell; none is one arm of the common arguments.
        grid: ``KEY=VALUE,VALUE,...`` each, an option of ``fit`` without its dashes.

    Raises:
        ValueError: for what is not written so, or names that are not told apart.

    >>> [arm.name for arm in arms_of([], ["vib="], ["model.init_args.beta=1e-4,1e-3"])]
    ['vib beta=1e-4', 'vib beta=1e-3']
    """
    named = [_arm(text) for text in arms] or [("", [])]
    axes = [_axis(text) for text in grid]
    keys = [axis[0][0] for axis in axes]
    if len(set(keys)) < len(keys):
        raise ValueError(f"every --grid needs a key of its own; got {', '.join(keys)}")
    made = []
    for (name, own), point in itertools.product(named, itertools.product(*axes)):
        settings: dict[str, str] = dict(point)
        label = " ".join([name, *(f"{key.split('.')[-1]}={value}" for key, value in point)]).strip() or "all"
        options = [word for key, value in point for word in (f"--{key}", value)]
        files, others = zip(*map(_files_apart, (common, own)), strict=True)
        made.append(Arm(label, (*itertools.chain(*files, *others), *options), settings))
    folders = [arm.folder_name for arm in made]
    twice = sorted({folder for folder in folders if folders.count(folder) > 1})
    if twice:
        raise ValueError(f"every arm needs a name of its own; there are several {', '.join(twice)}")
    return made


def _arm(text: str) -> tuple[str, list[str]]:
    name, equals, arguments = text.partition("=")
    if not name.strip(" .") or not equals:
        raise ValueError(f"--arm {text!r} must be NAME=ARGUMENTS, such as plain='--model.init_args.deterministic true'")
    return name.strip(), shlex.split(arguments)


def _files_apart(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options that name a configuration file, and all others."""
    files: list[str] = []
    others: list[str] = []
    words = iter(arguments)
    for word in words:
        if word in ("--config", "-c"):
            files += [word, *itertools.islice(words, 1)]
        else:
            (files if word.startswith("--config=") else others).append(word)
    return files, others


def _axis(text: str) -> list[tuple[str, str]]:
    key, equals, values = text.partition("=")
    key = key.strip().removeprefix("--")
    try:
        points = yaml.load(f"[{values}]", Loader=yaml.BaseLoader)  # noqa: S506  (it makes text and collections only)
    except yaml.YAMLError:
        points = []
    if not key or not equals or not points or "" in points:
        raise ValueError(f"--grid {text!r} must be KEY=VALUE,VALUE,..., such as model.init_args.beta=1e-4,1e-3,1e-2")
    return [(key, point if isinstance(point, str) else json.dumps(point)) for point in points]
