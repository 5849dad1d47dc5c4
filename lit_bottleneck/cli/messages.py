"""Shorten jsonargparse's messages of many lines to one line with the key, the requirement and the value."""

import ast
import re
from typing import NamedTuple

_LONGEST = 1000  # characters

# phrases of jsonargparse
_KEY = re.compile(r'Parser key "([^"]+)":\s*')
_CLASS = re.compile(r"Problem with given class_path '(?:[\w.]+\.)?(\w+)':$")
_GIVEN = re.compile(r"(.*?)\.? ?\b(?:Got|Given) value: (?!.*(?:Got|Given) value: )(.*)")
_SECTION = re.compile(r"Namespace\(|NestedArg\(|\[?\{'")
_OF_A_SECTION = ("class_path", "init_args", "dict_kwargs")
_PLAINER = (
    (r"^(- )?(Type .* expects a function or a callable class: )?(Validation failed: )?", ""),
    (r"Expected an? <class '(?:[\w.]+\.)?(\w+)'>", r"must be \1"),
    (r"Expected an? typing\.(.+?)$", r"must be \1"),
    (r"Not a valid subclass of (\w+)\.?", r"must be \1"),
    (r"argument of type '\w+' is not (a container or )?iterable$", "must be a class_path"),
    (r".*unhashable type: '(dict|list)'.*|Expected a dot import path.*", "must be a class_path"),
    (r"'list' object has no attribute '(keys|__dict__)'$", "init_args must hold keys and their values"),
)
_NOISE = re.compile(
    r"$|Does not validate against|Subtypes:|Errors:|Given value type:|must be NoneType|Expected a (config )?path but|"
    r"Subclass types expect one of|a class path \(str\)|a dict with|Cannot take a Union of no"
)
_OF_A_WORKER = re.compile(r"Caught \w+ in DataLoader worker process \d+.*\.ConfigurationError: ", re.DOTALL)
_OF_THE_MODEL = re.compile(r"(?:unrecognized arguments:.* --|Option ')(optimizer|lr_scheduler)\b")


class _Reason(NamedTuple):
    levels: list[str]  # keys, and classes in brackets
    text: str
    given: str


def in_one_line(message: str) -> str:
    """Shorten a message to the reasons given at the deepest key of the configuration.

    >>> in_one_line('''Parser key "model":
    ...   Does not validate against any of the Union subtypes
    ...   Errors:
    ...     - Problem with given class_path 'lit_bottleneck.VIBClassifier':
    ...         Parser key "latent_dim":
    ...           Expected a <class 'int'>. Got value: many
    ...     - Expected a <class 'NoneType'>
    ...   Given value: {'class_path': 'lit_bottleneck.VIBClassifier', 'init_args': {'latent_dim': 'many'}}''')
    'model.init_args.latent_dim: must be int; got many'
    """
    message = _OF_A_WORKER.sub("", message)  # torch puts the whole traceback of a loader process into it
    found = _reasons(message)
    if not any(reason.text for reason in found):
        return _cut("; ".join(filter(None, map(str.strip, message.splitlines()))))
    levels = max((reason.levels for reason in found if reason.text), key=len)
    here = [reason for reason in found if reason.levels == levels]
    texts = list(dict.fromkeys(reason.text for reason in here if reason.text))
    types = [text.removeprefix("must be ") for text in texts if text.startswith("must be ")]
    parts = [text for text in texts if not text.startswith("must be ")]
    if types and not any("; got " in part for part in parts):
        parts.append(f"must be {' or '.join(types)}")
    parts += [f"got {reason.given}" for reason in here if reason.given][:1]
    place = ".init_args.".join(level for level in levels if not level.startswith("("))
    if levels and levels[-1].startswith("("):
        place = f"{place} {levels[-1]}"
    return _cut(": ".join(filter(None, [place, "; ".join(parts)])))


def way_out(message: str) -> str:
    """Return where Lightning's options of optimizers are here, for a message that one of them is unknown.

    >>> way_out("unrecognized arguments: --optimizer=SGD")
    ': it is an argument of the model, --model.init_args.optimizer'
    """
    found = _OF_THE_MODEL.search(message)
    return f": it is an argument of the model, --model.init_args.{found[1]}" if found else ""


def _reasons(message: str) -> list[_Reason]:
    """List what a message says of each value, with the keys that lead to it."""
    found = []
    levels: list[tuple[int, str]] = []  # by their indentation
    for line in filter(str.strip, message.splitlines()):
        indentation = len(line) - len(line.lstrip())
        levels = [level for level in levels if level[0] < indentation]
        text, given = line.strip(), ""
        while match := _GIVEN.fullmatch(text):
            text, given = match[1], _value(match[2])
        for words, plainer in _PLAINER:
            text = re.sub(words, plainer, text)
        if key := _KEY.match(text):
            levels.append((indentation, key[1]))
            text = text[key.end() :]
        if kind := _CLASS.match(text):
            levels.append((indentation + 1, f"({kind[1]})"))
        elif not _NOISE.match(text) or given:
            said = "" if _NOISE.match(text) else text
            found.append(_Reason([name for _, name in levels], said, given))
    return found


def _value(given: str) -> str:
    """Return a given value, or for a whole section the keys that do not belong there."""
    if not _SECTION.match(given):
        return given
    try:
        value = ast.literal_eval(given)
    except (ValueError, SyntaxError):  # it has objects in it
        return ""
    sections = [section for section in (value if isinstance(value, list) else [value]) if isinstance(section, dict)]
    if not any("class_path" in section or "init_args" in section for section in sections):
        return given
    unknown = [key for section in sections for key in section if key not in _OF_A_SECTION]
    return f"the keys {', '.join(map(str, unknown))}" if unknown else ""


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
