"""Objects that know how they were made, so that a checkpoint can say it in numbers and strings."""

import inspect
from collections.abc import Mapping
from typing import Any, Self, TypeVar

DescribedT = TypeVar("DescribedT", bound="Described")


class Described:
    """Base of prices, likelihoods and objectives: what a model is given beside networks.

    Attributes:
        arguments: the constructor's arguments by name, with the defaults.
    """

    arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Note the arguments; the constructor itself need not know of it."""
        described = super().__new__(cls)
        bound = inspect.signature(cls).bind_partial(*args, **kwargs)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        for parameter in bound.signature.parameters.values():  # so that the class, called with them, gives it again
            if parameter.kind is parameter.VAR_KEYWORD:
                arguments.update(arguments.pop(parameter.name, {}))
            elif parameter.kind is parameter.VAR_POSITIONAL:
                arguments.pop(parameter.name, None)
        described.arguments = arguments
        return described


def description_of(described: Described) -> dict[str, Any]:
    """What `from_description` makes the object of again: ``{"class_path": ..., "init_args": {...}}``."""
    return {"class_path": _class_path(type(described)), "init_args": described.arguments}


def from_description(kind: type[DescribedT], argument: str, description: Mapping[str, Any]) -> DescribedT:
    """Make an object of its description.

    Args:
        kind: the base class that it must have.
        argument: the name of the argument that it is for.
        description: as `description_of` gives it.

    Raises:
        ValueError: for a class that is not a ``kind`` imported by now: a checkpoint may name a class, but never have a
            module imported.
    """
    known = {_class_path(found): found for found in _subclasses(kind)}
    path = description.get("class_path")
    if path not in known:
        raise ValueError(
            f"{argument} has the class_path {path!r}, which is not a {kind.__name__} that has been imported"
        )
    return known[path](**description.get("init_args", {}))


def _class_path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _subclasses(kind: type[DescribedT]) -> list[type[DescribedT]]:
    return [found for child in kind.__subclasses__() for found in (child, *_subclasses(child))]
