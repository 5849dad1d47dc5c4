"""``~`` at the start of a path is the home folder: expanded once, when the arguments are parsed."""

import argparse
import os
import re
from pathlib import Path
from typing import Any

_HOME = re.compile(r"~[\w.-]*(/|$)")


def path(text: str) -> Path:
    """Return the path that an argument of a command names."""
    return Path(os.path.expanduser(text))


def expand(value: Any) -> Any:
    """Return parsed arguments with each text that begins with ``~/`` (or ``~NAME/``, or is ``~``) as a path from ``/``.

    Libraries disagree where ``~`` is not expanded before: of one run, some files would go home, and some to ``./~``.

    >>> expand({"save_dir": "~/runs", "name": "a~/b"}) == {"save_dir": str(Path.home() / "runs"), "name": "a~/b"}
    True
    """
    if isinstance(value, argparse.Namespace):
        for name, one in list(vars(value).items()):
            setattr(value, name, expand(one))
        return value
    if isinstance(value, dict):
        return {name: expand(one) for name, one in value.items()}
    if isinstance(value, list):
        return [expand(one) for one in value]
    if isinstance(value, (str, Path)) and _HOME.match(str(value)):
        return type(value)(os.path.expanduser(value))
    return value
