"""Example inputs of the parts of a model."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.models.export_parts import ExportPart, mean_code

ROWS = 11  # of a batch to trace with: a size that no dimension of a network has


def part_of(model: Any, name: str) -> ExportPart:
    """Return a part of a model by its name: one of its ``export_parts()``; else ``code``, if it has an ``encode``.

    Raises:
        ConfigurationError: for a part that the model does not have, with the parts that it has.
    """
    parts: dict[str, ExportPart] = {"code": ExportPart(mean_code)} if hasattr(model, "encode") else {}
    if hasattr(model, "export_parts"):
        parts = model.export_parts()
    if name not in parts:
        has = ", ".join(map(repr, parts)) or "none, since it has neither export_parts() nor encode(x)"
        raise ConfigurationError(f"a {type(model).__name__} has no part {name!r}; it has {has}")
    return parts[name]


def example_inputs(model: nn.Module, part: str, dims: Sequence[int] | None = None) -> Tensor:
    """Draw a batch of inputs of a part of a model, the same one in each call.

    The part says how (codes, noise and generated examples come from N(0, 1)). Inputs that are examples of the data are
    drawn from [0, 1), or are tokens where the encoder's first layer is an embedding. Their shape is the ``dims`` of the
    encoder, of the decoder of a model with ``decode``, or of the datamodule of the model's trainer.

    Args:
        model: see ``deterministic_path``.
        part: see ``deterministic_path``.
        dims: the shape of one input, needed where it is not known.

    Raises:
        ConfigurationError: if the shape is neither known nor given, or ``dims`` is not the known one.

    >>> from lit_bottleneck import VIBClassifier
    >>> from lit_bottleneck.networks import ConvEncoder
    >>> model = VIBClassifier(ConvEncoder((1, 28, 28), out_features=16, width=8), latent_dim=8, num_classes=10)
    >>> example_inputs(model, "code").shape
    torch.Size([11, 1, 28, 28])
    """
    generator = torch.Generator().manual_seed(0)
    draw = part_of(model, part).draw
    x = _draw_data(model, dims, generator) if draw is None else draw(ROWS, generator)
    if dims is not None and tuple(dims) != tuple(x.shape[1:]):
        kind, shape = type(model).__name__, tuple(x.shape[1:])
        raise ConfigurationError(f"the part {part!r} of a {kind} takes inputs of the shape {shape}; got {tuple(dims)}")
    return x


def batch_of(example: Tensor, size: int) -> Tensor:
    """Repeat the rows of a batch until there are ``size``.

    Raises:
        ConfigurationError: if ``example`` is not a batch of at least one row.

    >>> batch_of(torch.tensor([[1], [2]]), 3).tolist()
    [[1], [2], [1]]
    """
    if example.dim() < 2 or not len(example):
        raise ConfigurationError(f"example must be a batch of inputs, (B, ...); got the shape {tuple(example.shape)}")
    return example[torch.arange(size, device=example.device) % len(example)]


def _draw_data(model: nn.Module, dims: Sequence[int] | None, generator: torch.Generator) -> Tensor:
    shape = _known_dims(model) or dims
    if shape is None:
        way_out = "give a batch of them as example, or on the command line the --dims of one, such as --dims 1 28 28"
        raise ConfigurationError(f"the shape of an input of this {type(model).__name__} is not known: {way_out}")
    weight = next(model.parameters(), torch.zeros(()))
    tokens = _number_of_tokens(getattr(model, "encoder", model))
    if tokens is not None:
        return torch.randint(tokens, (ROWS, *shape), generator=generator).to(weight.device)
    return torch.rand(ROWS, *shape, generator=generator).to(weight)


def _known_dims(model: Any) -> Sequence[int] | None:
    """Return the shape of an input, where the networks or the trainer's datamodule state it."""
    sources: list[Any] = [getattr(model, "encoder", None)]
    if hasattr(model, "decode"):  # else a decoder may return something else than inputs
        sources.append(getattr(model, "decoder", None))
    with suppress(ReferenceError):  # a weak reference to a trainer that was deleted
        sources.append(getattr(getattr(model, "_trainer", None), "datamodule", None))
    known: list[Sequence[int]] = [source.dims for source in sources if hasattr(source, "dims")]
    return known[0] if known else None


def _number_of_tokens(network: nn.Module) -> int | None:
    """Return the number of tokens that a network takes, if its first layer is an embedding."""
    layers = (layer for layer in network.modules() if next(layer.parameters(recurse=False), None) is not None)
    first = next(layers, None)
    return first.num_embeddings if isinstance(first, (nn.Embedding, nn.EmbeddingBag)) else None
