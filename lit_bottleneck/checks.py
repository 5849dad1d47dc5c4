"""Checks of arguments, each with an error that names the argument and the value."""

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any, TypeVar

_LARGEST = 2**63 - 1  # of a size in torch


class ConfigurationError(ValueError):
    """A setting that is wrong, or that contradicts another setting or the data.

    The command line prints it in one line whenever it is raised; once model, data and trainer are built, other errors
    keep their traceback.
    """


def is_number(value: Any) -> bool:
    """Return whether ``value`` is a number, and not a bool."""
    return isinstance(value, Real) and not isinstance(value, bool)


def not_negative(name: str, value: float) -> float:
    """Return ``value`` as a float, if it is finite and at least 0."""
    if not is_number(value) or not (math.isfinite(value) and value >= 0):
        raise ConfigurationError(f"{name} must be a finite number that is not negative; got {value!r}")
    return float(value)


def positive(name: str, value: float) -> float:
    """Return ``value`` as a float, if it is finite and positive."""
    if not is_number(value) or not (math.isfinite(value) and value > 0):
        raise ConfigurationError(f"{name} must be a finite number above 0; got {value!r}")
    return float(value)


def decay(name: str, value: float) -> float:
    """Return ``value`` as a float, if it is in [0, 1)."""
    if not is_number(value) or not 0 <= value < 1:
        raise ConfigurationError(f"{name} must be in [0, 1); got {value!r}")
    return float(value)


def whole_number(name: str, value: int, at_least: int, at_most: int = _LARGEST) -> int:
    """Return ``value`` as an int, if it is whole, at least ``at_least`` and at most ``at_most``."""
    if not _is_whole(value, at_least) or value > at_most:
        upper = f" and at most {at_most}" if at_most < _LARGEST else ""
        raise ConfigurationError(f"{name} must be a whole number, at least {at_least}{upper}; got {value!r}")
    return int(value)


def whole_numbers(name: str, values: Iterable[int], at_least: int) -> tuple[int, ...]:
    """Return ``values`` as ints, if they are whole and at least ``at_least``.

    >>> whole_numbers("hidden", [256, 128], at_least=1)
    (256, 128)
    """
    listed = isinstance(values, Iterable) and not isinstance(values, str)
    if not listed or not all(_is_whole(value, at_least) for value in values):
        raise ConfigurationError(f"{name} must be whole numbers, at least {at_least} each; got {values!r}")
    return tuple(int(value) for value in values)


def sizes(**values: int) -> tuple[int, ...]:
    """Return the ``values`` as ints, if they are whole numbers above 0.

    >>> sizes(width=64, stages=2)
    (64, 2)
    """
    return tuple(whole_number(name, value, at_least=1) for name, value in values.items())


def image_dims(dims: Iterable[int]) -> tuple[int, int, int]:
    """Return ``dims`` as channels, height and width, if they are three whole numbers above 0."""
    sizes = whole_numbers("dims", dims, at_least=1)
    if len(sizes) != 3:
        raise ConfigurationError(f"dims must be channels, height and width, such as (1, 28, 28); got {sizes}")
    return sizes


_Name = TypeVar("_Name", bound=str)


def one_of(name: str, value: _Name, known: tuple[_Name, ...]) -> _Name:
    """Return ``value``, if it is ``known``."""
    if value not in known:
        raise ConfigurationError(f"{name} must be one of {', '.join(map(repr, known))}; got {value!r}")
    return value


def _is_whole(value: Any, at_least: int) -> bool:
    return is_number(value) and math.isfinite(value) and int(value) == value and at_least <= value <= _LARGEST
