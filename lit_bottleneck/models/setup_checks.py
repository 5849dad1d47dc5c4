"""Have networks work once, before there is something to lose, on what stands for the examples."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import torch
from lightning import LightningModule
from torch import Tensor, nn

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.code import Code

Result = TypeVar("Result")


def try_forward(complaint: str, network: Callable[[Tensor], Result], x: Tensor) -> Result:
    """Return ``network(x)``.

    Raises:
        ConfigurationError: with the complaint and torch's reason, if it cannot be done.
    """
    try:
        with torch.compiler.set_stance("force_eager"):  # two examples are no size to compile for
            return network(x)
    except (RuntimeError, IndexError) as error:  # what torch says of shapes, and of tokens without an embedding
        raise ConfigurationError(f"{complaint}: {error}") from error


def dummy_zeros(network: nn.Module, *dims: int) -> Tensor:
    """Return two examples of zeros ``(2, *dims)``, where the network's weights are and in their precision."""
    weight = next(network.parameters(), torch.zeros(()))  # a LightningModule tells its device before it is there
    return torch.zeros(2, *dims, dtype=weight.dtype, device=weight.device)


def dummy_batch(model: LightningModule) -> Tensor | None:
    """Two examples such as the trainer's datamodule has, where it tells what they are like.

    Returns:
        Zeros of the ``dims`` that it tells, ``(2, ...)``; if it tells a ``vocabulary_size`` the highest of its tokens.
    """
    data: Any = getattr(model.trainer, "datamodule", None)
    dims, vocabulary_size = getattr(data, "dims", None), getattr(data, "vocabulary_size", None)
    if dims is None:
        return None
    examples = dummy_zeros(model, *dims)
    return examples if vocabulary_size is None else torch.full_like(examples, vocabulary_size - 1, dtype=torch.long)


def dummy_code(model: Any, x: Tensor) -> Code:
    """The mean codes of what stands for the examples.

    Raises:
        ConfigurationError: that names encoder, data and shape, if they do not go together.
    """
    encoder, data = type(model.encoder).__name__, type(model.trainer.datamodule).__name__
    complaint = f"encoder={encoder} does not take the examples of {data}, of the shape {tuple(x.shape[1:])}"
    encode: Callable[[Tensor], Code] = partial(model.encode, sample=False)
    try:
        return try_forward(complaint, encode, x)
    except ConfigurationError as error:
        if error.__cause__ is not None and x.dim() == 2 and x.is_floating_point():  # the 0s may be tokens
            with suppress(ConfigurationError):
                return try_forward(complaint, encode, x.long())
        raise
