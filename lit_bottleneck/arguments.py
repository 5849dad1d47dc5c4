"""Checks of constructor arguments, each with an error that names the argument and the value."""

import math
from numbers import Real
from typing import TypeVar


def not_negative(name: str, value: float) -> float:
    """Return ``value`` as a float, if it is finite and not negative."""
    if not isinstance(value, Real) or not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a finite number that is not negative; got {value!r}")
    return float(value)


def positive(name: str, value: float) -> float:
    """Return ``value`` as a float, if it is finite and positive."""
    if not isinstance(value, Real) or not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a finite number above 0; got {value!r}")
    return float(value)


def decay(name: str, value: float) -> float:
    """Return ``value`` as a float, if it is in [0, 1)."""
    if not isinstance(value, Real) or not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1); got {value!r}")
    return float(value)


def whole_number(name: str, value: int, at_least: int) -> int:
    """Return ``value`` as an int, if it is whole and at least ``at_least``."""
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not number or int(value) != value or value < at_least:
        raise ValueError(f"{name} must be a whole number, at least {at_least}; got {value!r}")
    return int(value)


_Name = TypeVar("_Name", bound=str)


def one_of(name: str, value: _Name, known: tuple[_Name, ...]) -> _Name:
    """Return ``value``, if it is ``known``."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}; got {value!r}")
    return value
