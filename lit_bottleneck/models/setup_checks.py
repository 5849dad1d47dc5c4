"""Dry-run networks on dummy inputs, so that shape errors surface before training."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.code import Code
from lit_bottleneck.likelihoods import Likelihood
from lit_bottleneck.models.batch import described
from lit_bottleneck.training.compilation import uncompiled

Result = TypeVar("Result")

WITHOUT_A_BATCH = ": is x one example without a batch dimension? x[None] has one"
OF_THE_MACHINE = (torch.OutOfMemoryError, torch.distributed.DistError)  # errors that say nothing about an input


@contextmanager
def refusing(complaint: str, x: Tensor) -> Iterator[None]:
    """Refuse what a network fails on.

    Raises:
        ConfigurationError: with the complaint and the network's reason.
    """
    try:
        yield
    except (*OF_THE_MACHINE, ConfigurationError):
        raise
    except (RuntimeError, IndexError, ValueError) as error:
        raise ConfigurationError(f"{complaint}; got {described(x)}: {error}") from error


def try_forward(complaint: str, network: Callable[[Tensor], Result], x: Tensor) -> Result:
    """Return ``network(x)``.

    Raises:
        ConfigurationError: with the complaint and torch's reason, if the network fails.
    """
    try:
        with torch.compiler.set_stance("force_eager"):  # two examples are no size to compile for
            return network(x)
    except OF_THE_MACHINE:
        raise
    except (RuntimeError, IndexError) as error:  # of shapes, and of tokens without an embedding
        if isinstance(error, IndexError) and x.is_floating_point():
            raise
        raise ConfigurationError(f"{complaint}: {error}") from error
    except ConfigurationError as error:
        if isinstance(error.__cause__, (RuntimeError, IndexError)):  # of an encoder of floats that got whole numbers
            raise ConfigurationError(f"{complaint}: {error.__cause__}") from error.__cause__
        raise


def try_decode(decoder: nn.Module, decode: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Return ``decode(z)``, or refuse a decoder that takes no codes of that width, see ``try_forward``."""
    complaint = f"decoder={type(decoder).__name__} does not take codes of latent_dim={z.shape[1]}"
    return try_forward(complaint, decode, z)


def dummy_zeros(network: nn.Module, *dims: int) -> Tensor:
    """Return zeros ``(2, *dims)``, on the device and in the precision of the network's weights."""
    weight = next(network.parameters(), torch.zeros(()))  # LightningModule.device is ahead of the weights
    return torch.zeros(2, *dims, dtype=weight.dtype, device=weight.device)


def dummy_batch(model: LightningModule) -> Tensor | None:
    """Return two dummy examples of the shape that the trainer's datamodule has as ``dims``, or None without.

    They are zeros, or where the datamodule has a ``vocabulary_size`` the highest token.
    """
    data: Any = getattr(model.trainer, "datamodule", None)
    dims, vocabulary_size = getattr(data, "dims", None), getattr(data, "vocabulary_size", None)
    if dims is None:
        return None
    examples = dummy_zeros(model, *dims)
    return examples if vocabulary_size is None else torch.full_like(examples, vocabulary_size - 1, dtype=torch.long)


def dummy_code(model: Any, x: Tensor) -> Code:
    """Return the mean codes of dummy examples.

    Raises:
        ConfigurationError: with encoder, data and shape, if they do not fit.
    """
    encode: Callable[[Tensor], Code] = partial(model.encode, sample=False)
    return try_examples(model, f"encoder={type(model.encoder).__name__}", encode, x)


def try_examples(model: Any, who: str, network: Callable[[Tensor], Result], x: Tensor) -> Result:
    """Return ``network(x)`` of dummy examples, which may be tokens too.

    Raises:
        ConfigurationError: with who does not take them, data and shape, if the network fails, see ``try_forward``.
    """
    data = type(model.trainer.datamodule).__name__
    complaint = f"{who} does not take the examples of {data}, of the shape {tuple(x.shape[1:])}"
    try:
        return try_forward(complaint, network, x)
    except ConfigurationError as error:
        if error.__cause__ is not None and x.dim() == 2 and x.is_floating_point():  # the 0s may be tokens
            with suppress(ConfigurationError):
                return try_forward(complaint, network, x.long())
        raise


def check_kind(model: LightningModule, base: type, wanted: str, other: str, way_out: str) -> None:
    """Refuse a datamodule whose labels are of another kind than a model reads, unless the model overrides ``labelled``.

    Args:
        model: the model.
        base: the class of ours that it is of.
        wanted: the property that a datamodule with labels of the right kind has.
        other: that of the other kind.
        way_out: which model reads those.

    Raises:
        ConfigurationError: if the datamodule has the ``other`` property and not the ``wanted`` one.
    """
    data: Any = getattr(model.trainer, "datamodule", None)
    if hasattr(data, other) and not hasattr(data, wanted) and not is_overridden("labelled", model, base):
        needs, came = f"{base.__name__} needs a datamodule with {wanted}", f"{other}={getattr(data, other)}"
        raise ConfigurationError(f"{needs}; got {type(data).__name__} with {came}: {way_out}, or override labelled")


def likelihood_parameters(output: Tensor, likelihood: Likelihood, dims: Sequence[int]) -> Tensor:
    """Return a decoder's output ``(B, ...)`` in the shape of the parameters of data of shape ``dims``.

    Raises:
        ConfigurationError: with both shapes, if they do not fit.
    """
    if not dims:
        raise ConfigurationError("x of a batch must have the shape (B, ...), such as (B, 1); got (B,)")
    numbers = likelihood.numbers_per_output
    wanted = (numbers * dims[0], *dims[1:])
    flat = (wanted[0] * torch.Size(dims[1:]).numel(),)
    if tuple(output.shape[1:]) not in (wanted, flat):
        raise ConfigurationError(
            f"data of the shape {tuple(dims)} under {type(likelihood).__name__}, which needs {numbers} "
            f"number{'s' * (numbers > 1)} per output, need a decoder that returns {wanted} per example; got "
            f"{tuple(output.shape[1:])}{WITHOUT_A_BATCH * (tuple(output.shape[2:]) == tuple(dims))}"
        )
    return output.reshape(len(output), *wanted)


def check_decoder(decoder: nn.Module, latent_dim: int, likelihood: Likelihood) -> None:
    """Compare a decoder with code and likelihood, where it has ``latent_dim`` or ``numbers_per_output``.

    Raises:
        ConfigurationError: with both numbers.
    """
    width = getattr(decoder, "latent_dim", getattr(decoder, "in_features", None))
    if isinstance(width, int) and width != latent_dim:
        raise ConfigurationError(f"latent_dim={latent_dim} needs a decoder of codes of that width; got one of {width}")
    needed = likelihood.numbers_per_output
    numbers = getattr(decoder, "numbers_per_output", needed)
    if numbers != needed:
        name = type(likelihood).__name__
        raise ConfigurationError(f"likelihood={name} needs a decoder with numbers_per_output={needed}; got {numbers}")


def input_width(network: nn.Module, attribute: str = "in_features") -> int | None:
    """Return the width of a network's input, if it has the attribute or begins with a linear layer."""
    network = uncompiled(network)
    width = getattr(network, attribute, network.in_features if isinstance(network, nn.Linear) else None)
    if isinstance(width, int):
        return width or None  # 0: of a lazy layer
    if isinstance(network, nn.Sequential):
        first = next((layer for layer in network if not isinstance(layer, nn.Flatten)), None)
        return None if first is None else input_width(first, attribute)
    return None
