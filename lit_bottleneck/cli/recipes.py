"""The recipes that come with the package, and the command ``recipes``, which lists or copies them."""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_bottleneck.cli import home
from lit_bottleneck.training.whole_file import whole_file

# Beside this file in an installed package, beside the package in a checkout.
_PLACES = (Path(__file__).parents[1] / "recipes", Path(__file__).parents[2] / "recipes")


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


def main(args: Sequence[str]) -> None:
    """List the recipes, or copy one."""
    parser = argparse.ArgumentParser(
        "lit-bottleneck recipes", description="List the recipes that come with the package, or copy one to edit."
    )
    parser.add_argument("--copy", metavar="NAME", help="write this recipe to a file NAME.yaml in --to")
    parser.add_argument("--to", metavar="FOLDER", type=home.path, default=Path(), help="default: the current folder")
    arguments = parser.parse_args(args)
    paths = recipe_paths()
    if arguments.copy is None:
        width = max(map(len, paths))
        for name, path in paths.items():
            title = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
            print(f"{name:{width}}  {title}")
        return
    name = arguments.copy.removesuffix(".yaml")
    if name not in paths:
        parser.error(f"argument --copy: must be one of {', '.join(paths)}; got {name!r}")
    path = paths[name]
    target = arguments.to / path.relative_to(recipe_folder())
    if target.exists():
        parser.error(f"argument --copy: {target} exists already; give another folder by --to")
    try:
        with whole_file(target) as file:
            shutil.copyfile(path, file)
    except OSError as error:
        parser.error(f"argument --to: {error}")
    print(f"written: {target}")
