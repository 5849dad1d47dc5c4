"""Record the arguments that an object was constructed with, and rebuild the object from plain values.

Checkpoints hold numbers, strings and collections of them, so that they load under ``weights_only=True``.
"""

import inspect
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self, TypeVar

import numpy as np

RecordsT = TypeVar("RecordsT", bound="RecordsArguments")
T = TypeVar("T")

_OLD_MARK = "not stored: "  # what checkpoints before version 0.1.0 hold in the place of a network or function


class NotPlainError(TypeError):
    """A value that is no number, string, collection of these or ``RecordsArguments`` object."""


class RecordsArguments:
    """Base of controllers, likelihoods, objectives and penalties: objects that record their constructor's arguments.

    Attributes:
        arguments: the constructor's arguments by name, with its defaults.
    """

    arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Record the arguments; the constructor itself need not know of it."""
        instance = super().__new__(cls)
        instance.arguments = constructor_arguments(cls, args, kwargs)
        return instance

    def extra_repr(self) -> str:
        """Return the arguments, for printing; called by objects that are an ``nn.Module`` too."""
        return ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())


def constructor_arguments(
    cls: type, args: Sequence[Any] = (), kwargs: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """Return the arguments of a constructor by name, with the defaults.

    Positional arguments behind ``*args`` have the names of the next constructor in the method resolution order. The
    defaults behind ``**kwargs`` are recorded for this library's own constructors, which pass all of them on.

    >>> class Base:
    ...     def __init__(self, width, depth=2): ...
    >>> class Mine(Base):
    ...     def __init__(self, *args, gain=1.0): ...
    >>> constructor_arguments(Mine, [64], {})
    {'gain': 1.0, 'width': 64, 'depth': 2}
    """
    arguments: dict[str, Any] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(base.__init__).parameters.values())[1:]  # type: ignore[misc]
        bound = inspect.Signature(parameters).bind_partial(*args, **kwargs)
        bound.apply_defaults()
        of_kind = {parameter.kind: parameter.name for parameter in parameters}
        args = bound.arguments.pop(of_kind.get(inspect.Parameter.VAR_POSITIONAL, ""), ())
        kwargs = bound.arguments.pop(of_kind.get(inspect.Parameter.VAR_KEYWORD, ""), {})
        arguments |= {name: value for name, value in bound.arguments.items() if name not in arguments}
        passes_all_on = inspect.Parameter.VAR_KEYWORD in of_kind and base.__module__.startswith("lit_bottleneck.")
        if not args and not passes_all_on:
            break
    return {**arguments, **kwargs}


def is_same(value: Any, other: Any) -> bool:
    """Return whether two arguments are one object, or equal as a checkpoint holds them."""
    try:
        return value is other or bool(plain(value) == plain(other))
    except NotPlainError:
        return False


def to_config(instance: RecordsArguments) -> dict[str, Any]:
    """Return ``{"class_path": ..., "init_args": {...}}``, from which ``from_config`` rebuilds the object."""
    return {"class_path": class_path(type(instance)), "init_args": instance.arguments}


def from_config(kind: type[RecordsT], argument: str, config: RecordsT | Mapping[str, Any]) -> RecordsT:
    """Return an object as it is, or rebuild it from its description.

    Args:
        kind: base class that the object must have.
        argument: name of the argument that the object is for.
        config: the object, or what ``to_config`` returns for it.

    Raises:
        ValueError: for a class that is not an imported subclass of ``kind``. A checkpoint may name a class, but never
            cause an import.
    """
    if not isinstance(config, Mapping):
        return config
    known = {class_path(found): found for found in subclasses(kind)}
    path = config.get("class_path")
    if path not in known:
        raise ValueError(f"{argument} has the class_path {path!r}, which is no imported subclass of {kind.__name__}")
    return known[path](**config.get("init_args", {}))


def plain(value: Any) -> Any:
    """Return a value as a checkpoint may hold it: numbers, strings and collections, also for numpy's numbers.

    Raises:
        NotPlainError: for anything else, such as a network or a function.

    >>> plain((np.float64(0.5), {"axes": [np.int64(1)]}))
    [0.5, {'axes': [1]}]
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, RecordsArguments):
        return plain(to_config(value))
    raise NotPlainError(class_path(type(value)))


def is_old_mark(value: Any) -> bool:
    """Return whether a value is, or holds, the mark of what a checkpoint before version 0.1.0 does not hold."""
    if isinstance(value, (list, tuple)):
        return any(map(is_old_mark, value))
    if isinstance(value, Mapping):
        return any(map(is_old_mark, value.values()))
    return isinstance(value, str) and value.startswith(_OLD_MARK)


def class_path(kind: type) -> str:
    """Return the import path of a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def subclasses(kind: type[T]) -> list[type[T]]:
    """Return the imported subclasses of a class, at any depth."""
    return [found for child in kind.__subclasses__() for found in (child, *subclasses(child))]
