"""The recipes that come with the package, and the command ``recipes``, which lists, prints or copies them."""

import argparse
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_bottleneck.cli import home
from lit_bottleneck.training.whole_file import whole_file

# Beside this file in an installed package, beside the package in a checkout.
_PLACES = (Path(__file__).parents[1] / "recipes", Path(__file__).parents[2] / "recipes")
_COLUMNS = ("recipe", "what it trains", "data", "time on two CPU cores", "what it reached")


def recipe_folder() -> Path:
    """Return the folder of the recipes."""
    return next(place for place in _PLACES if place.is_dir())


def recipe_paths() -> dict[str, Path]:
    """Return the paths of recipes and overlays by name, such as ``vib_digits`` or ``trainer/ddp``."""
    folder = recipe_folder()
    paths = sorted(folder.rglob("*.yaml"), key=lambda path: (len(path.relative_to(folder).parts), path))
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}


def as_list(configured: Any) -> list[dict[str, Any]]:
    """Return the objects of a recipe's setting that may hold one, several or none (loggers also True or False)."""
    return [configured] if isinstance(configured, dict) else configured if isinstance(configured, list) else []


def recipe_table() -> dict[str, list[str]]:
    """Return what the page says of each recipe (task, data, time, what it reached) or overlay (what it changes)."""
    table = {}
    for line in (recipe_folder() / "README.md").read_text(encoding="utf-8").splitlines():
        names, *cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| ["):
            table.update({name: cells for name in re.findall(r"\((\S+)\.yaml\)", names)})
    return table


def main(args: Sequence[str]) -> None:
    """List the recipes, print one, or copy one."""
    parser = make_parser()
    arguments = parser.parse_args(args)
    paths = recipe_paths()
    for argument, name in (("NAME", arguments.name), ("--copy", arguments.copy)):
        if name is not None and name.removesuffix(".yaml") not in paths:
            parser.error(f"argument {argument}: must be one of {', '.join(paths)}; got {name!r}")
    if arguments.copy is not None:
        _copy(parser, paths[arguments.copy.removesuffix(".yaml")], arguments.to)
    elif arguments.name is not None:
        print(paths[arguments.name.removesuffix(".yaml")].read_text(encoding="utf-8"), end="")
    else:
        _print_table()


def make_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        "lit-bottleneck recipes", description="List the recipes that come with the package, print one, or copy one."
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="print this recipe")
    parser.add_argument("--copy", metavar="NAME", help="write this recipe to a file NAME.yaml in --to")
    parser.add_argument("--to", metavar="FOLDER", type=home.path, default=Path(), help="default: the current folder")
    return parser


def _print_table() -> None:
    """Print recipes in columns, then overlays."""
    listed = [[name, *cells] for name, cells in recipe_table().items()]
    recipes, overlays = [row for row in listed if len(row) > 2], [row for row in listed if len(row) == 2]
    for rows in ([list(_COLUMNS), *recipes], [["overlay", "what it changes"], *overlays]):
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
        print()
    print("'lit-bottleneck recipes NAME' prints one, 'lit-bottleneck recipes --copy NAME' copies one to edit.")


def _copy(parser: argparse.ArgumentParser, path: Path, folder: Path) -> None:
    target = folder / path.relative_to(recipe_folder())
    if target.exists():
        parser.error(f"argument --copy: {target} exists already; give another folder by --to")
    try:
        with whole_file(target) as file:
            shutil.copyfile(path, file)
    except OSError as error:
        parser.error(f"argument --to: {error}")
    print(f"written: {target}")
