"""The parts of a batch, and their checks: inputs and labels in whatever form they come."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from lit_bottleneck.checks import ConfigurationError

_NUMBERS = "biuf"  # kinds of NumPy's dtypes: bool, signed, unsigned, floating


class BatchReader:
    """Mixin of modules with an ``encoder``: how they read a batch.

    Attributes:
        batch_keys: the names of inputs and labels in a batch that is a dictionary.
    """

    batch_keys: tuple[str, str] = ("x", "y")
    encoder: nn.Module
    device: torch.device
    dtype: Any  # of torch

    @property
    def weights_dtype(self) -> torch.dtype:
        """Precision of the encoder's weights."""
        return next((weight.dtype for weight in self.encoder.parameters() if weight.is_floating_point()), self.dtype)

    def inputs(self, batch: Any) -> Any:
        """Return the ``x`` of a batch ``x``, ``(x, ...)`` or ``{"x": x, ...}``; override it for other batches.

        Raises:
            ConfigurationError: if there is none.
        """
        return input_of(batch, self.batch_keys[0])

    def encoder_inputs(self, x: Any) -> Tensor:
        """Return a batch's inputs, a tensor or NumPy array, as the encoder takes them.

        Returns:
            Floats in the precision of the encoder's weights; whole numbers as they are.

        Raises:
            ConfigurationError: for anything but a tensor or an array ``(B, ...)``.
        """
        tensor = tensor_from("x of a batch", x)
        if not tensor.dim() or tensor.is_complex():
            raise ConfigurationError(f"x of a batch must be (B, ...), of real numbers; got {described(x)}")
        if tensor.is_floating_point() and tensor.dtype != self.dtype:
            tensor = tensor.to(self.weights_dtype)
        return tensor if isinstance(x, Tensor) else tensor.to(self.device)

    def with_label(self, prediction: dict[str, Tensor], batch: Any) -> dict[str, Tensor]:
        """Return a prediction with the ``y`` of a batch as ``label``, if there is one: numbers as a tensor."""
        label = label_of(batch, self.batch_keys[1])
        with suppress(ConfigurationError):
            label = tensor_from("label", label)
        return prediction if label is None else prediction | {"label": label}


def batch_names(names: Sequence[str]) -> tuple[str, str]:
    """Return the names of inputs and labels in a batch that is a dictionary.

    Raises:
        ConfigurationError: for anything but two different strings.
    """
    strings = (
        not isinstance(names, str) and isinstance(names, Sequence) and all(isinstance(name, str) for name in names)
    )
    if not strings or len(names) != 2 or names[0] == names[1]:
        wanted = "batch_keys must be two names, of inputs and labels, such as ('image', 'label')"
        raise ConfigurationError(f"{wanted}; got {names!r}")
    return cast(tuple[str, str], tuple(names))


def input_of(batch: Any, key: str = "x") -> Any:
    """Return the ``x`` of a batch ``x``, ``(x, ...)`` or ``{key: x, ...}``.

    Raises:
        ConfigurationError: if there is none.
    """
    if isinstance(batch, Mapping) and key in batch:
        return batch[key]
    if isinstance(batch, Mapping) or (isinstance(batch, (tuple, list)) and not batch):
        form = f"a batch must be x, (x, ...) or a dictionary with {key!r}"
        raise ConfigurationError(f"{form}, a name that batch_keys of the model changes; got {described(batch)}")
    return batch[0] if isinstance(batch, (tuple, list)) else batch


def label_of(batch: Any, key: str = "y") -> Any:
    """Return the ``y`` of a batch ``(x, y, ...)`` or ``{key: y, ...}``, or None without one."""
    if isinstance(batch, Mapping):
        return batch.get(key)
    return batch[1] if isinstance(batch, (tuple, list)) and len(batch) > 1 else None


def tensor_from(name: str, value: Any) -> Tensor:
    """Return a tensor as it is, or a NumPy array as a tensor.

    Raises:
        ConfigurationError: for anything else, with the name.
    """
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in _NUMBERS:
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))  # a writable copy
    raise ConfigurationError(f"{name} must be a tensor or a NumPy array of numbers; got {described(value)}")


def described(value: Any) -> str:
    """Return type, and dtype and shape or keys, of what came.

    >>> described(torch.zeros(2, 3)), described({"image": 1, "id": 2}), described(("a", 1))
    ('a Tensor of float32 (2, 3)', "a dictionary with 'image', 'id'", 'a tuple of str, int')
    """
    if isinstance(value, (Tensor, np.ndarray)):
        return f"a {type(value).__name__} of {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a dictionary with {', '.join(map(repr, value))}" if value else "an empty dictionary"
    if isinstance(value, (tuple, list)):
        kinds = ", ".join(dict.fromkeys(type(one).__name__ for one in value))
        return f"a {type(value).__name__} of {kinds}" if value else f"an empty {type(value).__name__}"
    return "none" if value is None else f"a {type(value).__name__}"
