"""Contract between a model and ``lit_bottleneck.export``: ``export_parts()`` returns parts by name."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_bottleneck.code import Code


class ExportPart(NamedTuple):
    """A function of a model that can be exported by itself.

    A model with a method ``export_parts() -> dict[str, ExportPart]`` can be exported, whatever else it is.

    Attributes:
        compute: called as ``compute(model, x)`` with a copy of the model in evaluation mode; draws no random numbers.
        unused: names of the model's submodules that ``compute`` does not need; the exported file leaves them out.
        input_name: name of the input in an ONNX file.
        draw: called as ``draw(n, generator)``, returns ``n`` example inputs ``(n, ...)``. Default: the inputs are
            examples of the data.
    """

    compute: Callable[[Any, Tensor], Tensor]
    unused: tuple[str, ...] = ()
    input_name: str = "x"
    draw: Callable[[int, torch.Generator], Tensor] | None = None


def mean_code(model: Any, x: Tensor) -> Tensor:
    """Return the mean codes ``(B, K, ...)`` of any model with ``encode(x) -> Code``.

    Raises:
        TypeError: if ``encode`` returns something else.
    """
    code = model.encode(x)
    if not isinstance(code, Code):
        raise TypeError(f"{type(model).__name__}.encode must return a Code for the part 'code'; got a {type(code)}")
    return code.mean


def call(model: Any, x: Tensor) -> Tensor:
    """Return ``model(x)``."""
    output: Tensor = model(x)
    return output
