"""What the parts of a model take, as far as it is known."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

import torch
from torch import Tensor, nn

from lit_bottleneck.models.base import evaluating
from lit_bottleneck.models.vae import VAE
from lit_bottleneck.models.vdb import VDBGAN

ROWS = 11  # of a batch to trace with: a size that nothing else has


def example_inputs(model: nn.Module, part: str, dims: Sequence[int] | None = None) -> Tensor:
    """Draw a batch of what a part of a model takes, the same one each time.

    Codes and noise are drawn from N(0, 1). Inputs of a `VDBGAN` are what its generator makes of noise. Of other models
    they are drawn from [0, 1), or are tokens where the encoder's first layer is an embedding, and their shape is that
    of the ``dims`` of the encoder, of the decoder of a `VAE`, or of the datamodule of the model's trainer.

    Args:
        model: see `export.deterministic_path`.
        part: see `export.deterministic_path`.
        dims: the shape of an input, where it is not known.

    Raises:
        ValueError: if the shape is not known and not given, or is another than the one that is given.

    >>> from lit_bottleneck import VIBClassifier
    >>> from lit_bottleneck.networks import ConvEncoder
    >>> model = VIBClassifier(ConvEncoder((1, 28, 28), out_features=16, width=8), latent_dim=8, num_classes=10)
    >>> example_inputs(model, "code").shape
    torch.Size([11, 1, 28, 28])
    """
    weight = next(model.parameters(), torch.zeros(()))
    draws = torch.Generator().manual_seed(0)
    if part in ("decoder", "generator"):
        width = cast(int, model.latent_dim if part == "decoder" else model.noise_dim)
        x = torch.randn(ROWS, width, generator=draws).to(weight)
    elif isinstance(model, VDBGAN):
        with torch.no_grad(), evaluating(model.averaged_generator):
            x = model.averaged_generator(example_inputs(model, "generator")).to(weight)
    else:
        shape = _known_dims(model) or dims
        if shape is None:
            raise ValueError(
                f"the shape of an input of this {type(model).__name__} is not known: give a batch of them as example, "
                "or on the command line the --dims of one, such as --dims 1 28 28"
            )
        tokens = _number_of_tokens(getattr(model, "encoder", model))
        if tokens is None:
            x = torch.rand(ROWS, *shape, generator=draws).to(weight)
        else:
            x = torch.randint(tokens, (ROWS, *shape), generator=draws).to(weight.device)
    if dims is not None and tuple(dims) != tuple(x.shape[1:]):
        raise ValueError(
            f"the part {part!r} of this {type(model).__name__} takes inputs of the shape {tuple(x.shape[1:])}; got "
            f"{tuple(dims)}"
        )
    return x


def batch_of(example: Tensor, size: int) -> Tensor:
    """Take the rows of a batch, again and again, until there are ``size``.

    Raises:
        ValueError: if there is none.

    >>> batch_of(torch.tensor([[1], [2]]), 3).tolist()
    [[1], [2], [1]]
    """
    if example.dim() < 2 or not len(example):
        raise ValueError(f"example must be a batch of inputs, (B, ...); got the shape {tuple(example.shape)}")
    return example[torch.arange(size, device=example.device) % len(example)]


def _known_dims(model: Any) -> Sequence[int] | None:
    """The shape of an input, where something that belongs to the model tells it."""
    tellers: list[Any] = [getattr(model, "encoder", None)]
    if isinstance(model, VAE):
        tellers.append(model.decoder)
    with suppress(ReferenceError):  # of a trainer that is no more
        tellers.append(getattr(getattr(model, "_trainer", None), "datamodule", None))
    known: list[Sequence[int]] = [teller.dims for teller in tellers if hasattr(teller, "dims")]
    return known[0] if known else None


def _number_of_tokens(network: nn.Module) -> int | None:
    """How many tokens a network knows, if an embedding is its first layer."""
    layers = (layer for layer in network.modules() if next(layer.parameters(recurse=False), None) is not None)
    first = next(layers, None)
    return first.num_embeddings if isinstance(first, (nn.Embedding, nn.EmbeddingBag)) else None
