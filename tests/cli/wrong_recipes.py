"""Recipes in which one thing is wrong, derived from the shipped ones: the same in every run."""

import copy
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from lit_bottleneck.cli.recipes import recipe_paths
from tests.cli.wrong_values import SECTION, WRONG_IN_FIT, wrong_values

PATHS = recipe_paths()
RECIPES: dict[str, Any] = {name: yaml.safe_load(path.read_text()) for name, path in PATHS.items()}
UNDER_AN_OVERLAY = {"gan": "vdbgan_digits", "features": "vdbgan_digits", "measure": "vae_digits"}  # else vib_digits
AT_HAND = ("vib_digits", "vae_digits", "vdbgan_digits", "vdbgan_ring")  # their data need no file
LEFT_OUT = object()

Place = tuple[str | int, ...]


@dataclass(frozen=True, eq=False)
class Wrong:
    """A recipe in which one thing is wrong.

    Attributes:
        recipe: its name.
        place: where.
        value: what stands there, or `LEFT_OUT`.
        word: what a message is to name.
    """

    recipe: str
    place: Place
    value: Any
    word: str

    def __str__(self) -> str:
        value = "left out" if self.value is LEFT_OUT else self.value
        return f"{self.recipe}: {'.'.join(map(str, self.place))}={value}"

    @property
    def key(self) -> str:
        """The place, without the numbers of lists: the same in every recipe that has the key."""
        return ".".join(part for part in self.place if isinstance(part, str))

    @property
    def base(self) -> list[str]:
        """The recipe that it is laid over, as an option."""
        kind, slash, _ = self.recipe.partition("/")
        return ["--config", str(PATHS[UNDER_AN_OVERLAY.get(kind, "vib_digits")])] if slash else []

    def configuration(self) -> dict[str, Any]:
        tree: dict[str, Any] = copy.deepcopy(RECIPES[self.recipe])
        *above, key = self.place
        section: Any = tree
        for part in above:
            section = section[part]
        section[key] = self.value
        if self.value is LEFT_OUT:
            del section[key]
        return tree


def sections(tree: Any, place: Place = (), owner: str = "") -> Iterator[tuple[Place, dict[str, Any], str]]:
    """All keys that have further keys: where, what is in it, and the path of the class whose arguments these are."""
    if isinstance(tree, list):
        for index, item in enumerate(tree):
            yield from sections(item, (*place, index))
    if isinstance(tree, dict):
        yield place, tree, owner
        for key, value in tree.items():
            yield from sections(value, (*place, key), tree.get("class_path", "") if key == "init_args" else "")


def wrong_leaves(recipe: str) -> Iterator[Wrong]:
    """Values of a wrong type or out of range, and classes that are not there or not such ones."""
    for place, section, owner in sections(RECIPES[recipe]):
        owner = owner.rpartition(".")[2]
        for key, value in section.items():
            if any(map(dict.__instancecheck__, value if isinstance(value, list) else [value])):
                continue
            if isinstance(value, str) and re.fullmatch(r"(\w+\.)+[A-Za-z]\w*", value):
                for path, word in (
                    (value[:-1], value[:-1].rpartition(".")[2]),
                    ("nowhere.Thing", "nowhere"),
                    ("collections.OrderedDict", "OrderedDict"),
                    (SECTION, key),
                ):
                    yield Wrong(recipe, (*place, key), path, word)
                continue
            in_fit = WRONG_IN_FIT.get(f"{owner}.{key}", ()) if recipe in AT_HAND else ()
            for wrong in (*wrong_values(owner, key), *in_fit):
                # An optimizer's own message names its argument in words alone.
                yield Wrong(recipe, (*place, key), wrong, f"optimizer ({owner})" if wrong in in_fit else key)


def slips(recipe: str) -> Iterator[Wrong]:
    """In every section its first key once more, with two letters in the wrong order."""
    for place, section, _ in sections(RECIPES[recipe]):
        *letters, last_but_one, last = next(iter(section)).removesuffix("+")
        slip = "".join([*letters, last, last_but_one, *(last if last == last_but_one else "")])
        # In a list without such a key jsonargparse looks for arguments of the base class, and complains of the others.
        yield Wrong(recipe, (*place, slip), 1, "augment" if "augment" in place[-2:] else slip)


def missing(recipe: str) -> Iterator[Wrong]:
    """Arguments that have no default are left out."""
    for place, section, owner in sections(RECIPES[recipe]):
        if owner:
            module, _, name = owner.rpartition(".")
            parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
            for key in section:
                if key in parameters and parameters[key].default is inspect.Parameter.empty:  # others are the base's
                    yield Wrong(recipe, (*place, key), LEFT_OUT, key)
    if "/" not in recipe:
        for key in ("model", "data"):
            yield Wrong(recipe, (key,), LEFT_OUT, key)


def distinct(make: Callable[[str], Iterator[Wrong]]) -> list[Wrong]:
    """Every wrong thing once, from the first recipe in which it may be."""
    found: dict[tuple[str, str, str], Wrong] = {}
    for recipe in (*AT_HAND, *RECIPES):
        for wrong in make(recipe):
            value = "" if wrong.value is LEFT_OUT else repr(wrong.value)
            found.setdefault((wrong.key, value, wrong.word), wrong)
    return list(found.values())
