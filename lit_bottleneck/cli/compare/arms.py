"""The arms of a comparison, from the command's arguments."""

import argparse
import itertools
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

import yaml

from lit_bottleneck.checks import ConfigurationError

_READ = "|$\\"  # by Markdown and matplotlib, and line ends by all
_READ_AT_THE_START = "=+-@_"  # by spreadsheets, and by the legends of matplotlib
_LONGEST_NAME = 200  # bytes; file systems take 255, some less


@dataclass(frozen=True)
class Arm:
    """One of the ways of training that are compared.

    Attributes:
        name: its label in tables and figures.
        arguments: its arguments of ``lit-bottleneck fit``.
        settings: the values that the grid sets, by key.
    """

    name: str
    arguments: tuple[str, ...]
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def varies_rate(self) -> bool:
        """Whether the grid is over beta or the capacity."""
        return any(key.split(".")[-1] in ("beta", "capacity") for key in self.settings)

    @property
    def folder_name(self) -> str:
        """The name with the characters that file systems accept."""
        return re.sub(r"[^\w.=+-]+", "_", self.name)


def read_arms(common: Sequence[str], arms: Sequence[str], grid: Sequence[str]) -> list[Arm]:
    """Combine every arm with every point of the grid.

    Configuration files come first, the common ones before an arm's own, and then the options in the same order: an
    arm's recipe does not undo a common option, and an arm's option overrides both.

    Args:
        common: arguments of all arms.
        arms: ``NAME=ARGUMENTS`` each, quoted as in a shell; if empty, the common arguments are the only arm.
        grid: ``KEY=VALUE,VALUE,...`` each, where the key is an option of ``fit`` without its dashes.

    Raises:
        ConfigurationError: for other formats, if two arms or two keys have the same name, or for a name that a table, a
            figure or a file system cannot show.

    >>> [arm.name for arm in read_arms([], ["vib="], ["model.init_args.beta=1e-4,1e-3"])]
    ['vib beta=1e-4', 'vib beta=1e-3']
    """
    named = [_read_arm(text) for text in arms] or [("", [])]
    axes = [_read_axis(text) for text in grid]
    keys = [axis[0][0] for axis in axes]
    if len(set(keys)) < len(keys):
        raise ConfigurationError(f"every --grid must have a key of its own; got {', '.join(keys)}")
    combined = [_combine(name, common, own, point) for name, own in named for point in itertools.product(*axes)]
    for arm in combined:
        _check_name(arm)
    folders = [arm.folder_name for arm in combined]
    repeated = sorted({folder for folder in folders if folders.count(folder) > 1})
    if repeated:
        raise ConfigurationError(f"every arm must have a name of its own; there are several {', '.join(repeated)}")
    return combined


def _check_name(arm: Arm) -> None:
    """Refuse names that Markdown, matplotlib, spreadsheets or file systems take for something else."""
    read = sorted({repr(character) for character in arm.name if character in _READ or not character.isprintable()})
    longest, length = _LONGEST_NAME, len(arm.folder_name.encode())
    if read:
        fault = f"must be without {' and '.join(read)}, which tables and figures read"
    elif arm.name[0] in _READ_AT_THE_START:
        fault = f"must not begin with {arm.name[0]!r}, which spreadsheets and figures read"
    elif length > longest:
        fault = f"must have at most {longest} bytes, as it is that of a folder; it has {length}"
    else:
        return
    of_grid = ": give each value of the grid as an arm, --arm NAME='--KEY VALUE'" if arm.settings else ""
    shown = repr(arm.name if len(arm.name) <= 100 else f"{arm.name[:100]}...")
    raise ConfigurationError(f"the name of an arm {fault}; got {shown}{of_grid}")


def _combine(name: str, common: Sequence[str], own: Sequence[str], point: Sequence[tuple[str, str]]) -> Arm:
    label = " ".join([name, *(f"{key.split('.')[-1]}={value}" for key, value in point)]).strip() or "all"
    files, others = zip(*map(_split_files, (common, own)), strict=True)
    options = [(f"--{key}", value) for key, value in point]
    return Arm(label, tuple(itertools.chain(*files, *others, *options)), dict(point))


def _split_files(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate the options that name a configuration file from all others."""
    parser = argparse.ArgumentParser("lit-bottleneck compare", add_help=False, allow_abbrev=False)
    parser.add_argument("--config", "-c", action="append", default=[])
    options, others = parser.parse_known_args(arguments)
    return [f"--config={file}" for file in options.config], others


def _read_arm(text: str) -> tuple[str, list[str]]:
    name, equals, arguments = text.partition("=")
    try:
        if name.strip(" .") and equals:
            return name.strip(), shlex.split(arguments)
    except ValueError:  # a quote that is not closed
        pass
    example = "plain='--model.init_args.deterministic true'"
    raise ConfigurationError(f"--arm must be NAME=ARGUMENTS, such as {example}; got {text!r}")


def _read_axis(text: str) -> list[tuple[str, str]]:
    key, equals, values = text.partition("=")
    key = key.strip().removeprefix("--")
    try:
        points = yaml.load(f"[{values}]", Loader=yaml.BaseLoader)  # noqa: S506  (it builds text and collections only)
    except yaml.YAMLError:
        points = []
    if not key or not equals or not points or "" in points:
        example = "model.init_args.beta=1e-4,1e-3,1e-2"
        raise ConfigurationError(f"--grid must be KEY=VALUE,VALUE,..., such as {example}; got {text!r}")
    return [(key, point if isinstance(point, str) else json.dumps(point)) for point in points]
