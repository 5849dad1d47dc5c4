"""The command ``completion``: a static script with which bash or zsh completes commands, options, files and choices."""

import argparse
from collections.abc import Iterable, Sequence
from importlib import import_module
from inspect import signature
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import shtab

from lit_bottleneck.cli.front import COMMANDS
from lit_bottleneck.cli.recipes import recipe_paths

_DESCRIPTION = (
    "Print a script that completes commands, options, files and choices. bash: 'lit-bottleneck completion bash > "
    "~/.local/share/bash-completion/completions/lit-bottleneck'; zsh: '... zsh > FOLDER/_lit-bottleneck', where FOLDER "
    "is one of $fpath."
)
_OF_LIGHTNING = ("fit", "validate", "test", "predict")
_TAKE_OPTIONS_OF_FIT = ("compare", "resume")
_FILES = {
    "FILE": shtab.FILE,
    "FOLDER": shtab.DIRECTORY,
    "config": shtab.glob("*.yaml", "*.yml", "*.json"),
    "ckpt_path": shtab.FILE,
}  # by metavar or name


def main(args: Sequence[str]) -> None:
    """Print the script."""
    shell = make_parser().parse_args(args).shell
    print(shtab.complete(_parser_of_all(), shell))


def make_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser("lit-bottleneck completion", description=_DESCRIPTION)
    parser.add_argument("shell", choices=("bash", "zsh"), help="the shell that reads the script")
    return parser


def _parser_of_all() -> argparse.ArgumentParser:
    """Return a parser that knows the options of all commands, and parses nothing."""
    from lit_bottleneck.cli.app import command_parser

    whole = argparse.ArgumentParser("lit-bottleneck")
    whole.add_argument("--version", action="store_true", help="print the version")
    commands = whole.add_subparsers()
    of_lightning = {name: command_parser(name) for name in _OF_LIGHTNING}
    choices = _choices()
    for name, does in COMMANDS.items():
        command = commands.add_parser(name, help=does, description=does, conflict_handler="resolve")
        if name not in _OF_LIGHTNING:
            module = "compare.options" if name == "compare" else name
            _add(command, import_module(f"lit_bottleneck.cli.{module}").make_parser(), {})
        if name in _OF_LIGHTNING or name in _TAKE_OPTIONS_OF_FIT:
            _add(command, of_lightning.get(name, of_lightning["fit"]), choices)
            known = {option for action in command._actions for option in action.option_strings}
            for option in sorted(choices.keys() - known):  # of models and data
                command.add_argument(option, choices=choices[option] or None)
    return whole


def _add(command: argparse.ArgumentParser, parser: argparse.ArgumentParser, choices: dict[str, list[str]]) -> None:
    """Add the arguments of a command's own parser: their names, first sentences and choices."""
    for action in parser._actions:
        if action.help == argparse.SUPPRESS or action.dest == "help":
            continue
        names = action.option_strings or [action.dest]
        kind: dict[str, Any] = {"nargs": action.nargs, "metavar": action.metavar}
        if action.nargs == 0:
            kind = {"action": "store_true"}
        elif action.choices or choices.get(names[-1]):
            kind["choices"] = action.choices or choices[names[-1]]
        elif parser.prog.endswith(" recipes") and action.dest in ("name", "copy"):
            kind["choices"] = list(recipe_paths())
        added: Any = command.add_argument(*names, help=" ".join((action.help or "").split()).partition(". ")[0], **kind)
        files = _FILES.get(action.dest) or _FILES.get(str(action.metavar))
        if files:
            added.complete = files


def _choices() -> dict[str, list[str]]:
    """Return the choices of options of ``fit``, by name; of the arguments of our models and data also those of none."""
    from jsonargparse import ArgumentParser
    from lightning import LightningDataModule, LightningModule, Trainer
    from lightning.pytorch.accelerators import AcceleratorRegistry
    from lightning.pytorch.strategies import StrategyRegistry

    import lit_bottleneck
    import lit_bottleneck.data

    hints = get_type_hints(Trainer.__init__)
    choices = {f"--trainer.{name}": _of_type(hints[name]) for name in signature(Trainer).parameters}
    choices["--trainer.accelerator"] = ["auto", *AcceleratorRegistry.available_accelerators()]
    choices["--trainer.strategy"] = ["auto", *StrategyRegistry.available_strategies()]
    for option, package, kind in (
        ("--model", lit_bottleneck, LightningModule),
        ("--data", lit_bottleneck.data, LightningDataModule),
    ):
        classes = _classes(package, kind)
        choices[option] = [f"{package.__name__}.{one.__name__}" for one in classes]
        for one in classes:
            hints = get_type_hints(one.__init__)
            for name in ArgumentParser().add_class_arguments(one, fail_untyped=False):
                values = choices.setdefault(f"{option}.init_args.{name}", [])
                values += [value for value in _of_type(hints.get(name)) if value not in values]
    return choices


def _classes(package: Any, kind: type) -> list[Any]:
    public = [getattr(package, name) for name in package.__all__]
    return [one for one in public if isinstance(one, type) and issubclass(one, kind)]


def _of_type(hint: Any) -> list[str]:
    """Return the values of a type that has few.

    >>> _of_type(bool | Literal["a", 1] | str | None)
    ['true', 'false', 'a', '1']
    """
    if hint is bool:
        return ["true", "false"]
    if get_origin(hint) is Literal:
        return [str(value) for value in get_args(hint)]
    parts: Iterable[Any] = get_args(hint) if get_origin(hint) in (Union, UnionType) else ()
    return list(dict.fromkeys(value for part in parts for value in _of_type(part)))
