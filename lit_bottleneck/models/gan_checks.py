"""Checks of a GAN before it trains: networks and data that do not fit."""

import warnings
from collections.abc import Sequence
from functools import partial
from inspect import signature
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.models.batch import described, tensor_from
from lit_bottleneck.models.setup_checks import dummy_zeros, input_width, try_forward
from lit_bottleneck.training.compilation import uncompiled

_TOLERANCE = 1e-3  # of the range of pixels


def check_noise(noise_dim: int, generator: nn.Module) -> None:
    """Refuse a generator of noise of another width than ``noise_dim``, if its width is known.

    Raises:
        ConfigurationError: with both widths.
    """
    takes = input_width(generator, "noise_dim")
    if takes not in (None, noise_dim):
        name = type(generator).__name__
        raise ConfigurationError(f"noise_dim={noise_dim}, but the {name} takes noise of a width of {takes}")


def check_head(head: nn.Module) -> None:
    """Refuse a head that ends in a bounded function: a loss of logits would squash them twice.

    Raises:
        ConfigurationError: if it ends in a Sigmoid or Tanh.
    """
    if output_range(head) is not None:
        raise ConfigurationError("head must return logits, which nothing bounds; this one ends in a Sigmoid or a Tanh")


def check_optimizer(optimizer: Optimizer) -> None:
    """Refuse an optimizer that evaluates the loss within its step, for which there is no closure here.

    Raises:
        ConfigurationError: with the optimizer.
    """
    closure = signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ConfigurationError(
            f"optimizer={type(optimizer).__name__} evaluates the loss again within a step, which a GAN, whose networks "
            "take turns, does not offer: set another, such as Adam"
        )


def check_networks(gan: Any, data: Any) -> tuple[int, ...]:
    """Dry-run the networks of a GAN on dummy noise, and compare what they generate with the data.

    Args:
        gan: the ``VDBGAN``.
        data: a datamodule that may have ``dims`` and ``value_range`` of its examples, or None.

    Returns:
        The shape of a generated example.

    Raises:
        ConfigurationError: for noise, examples or codes that do not fit.
    """
    noise = dummy_zeros(gan, gan.noise_dim)
    generated = try_forward(f"the generator does not take noise of noise_dim={gan.noise_dim}", gan.generator, noise)
    made, kind = tuple(generated.shape[1:]), type(data).__name__
    _check_dims(made, getattr(data, "dims", None), kind)
    encode = partial(gan.encode, sample=False)
    code = try_forward(f"the encoder does not take examples of the shape {made}", encode, generated)
    try_forward(f"the head does not take codes of the shape {tuple(code.z.shape[1:])}", gan.discriminate, generated)
    ours, theirs = gan.value_range, getattr(data, "value_range", None)
    if ours is not None and theirs is not None and ours != tuple(map(float, theirs)):
        ranges = f"the generator's values are in {ours} and those of {kind} in {tuple(theirs)}"
        raise ConfigurationError(f"{ranges}: set --data.init_args.value_range={list(ours)}, or another generator")
    return made


def check_examples(real: Tensor, example_dims: tuple[int, ...] | None) -> None:
    """Refuse real examples that no generator makes.

    Args:
        real: should be floats ``(B, ...)``.
        example_dims: the shape of a generated example, if it is known.

    Raises:
        ConfigurationError: for anything but floats, for no example, and for another shape than the generator's.
    """
    if not real.is_floating_point():
        raise ConfigurationError(f"x of a batch must be floats, as a generator makes them; got {described(real)}")
    if not len(real):
        raise ConfigurationError(f"x of a batch must be of one example or more; got {described(real)}")
    if example_dims is not None:
        _check_dims(example_dims, tuple(real.shape[1:]), "the data")


def noise_from(noise: Any, noise_dim: int) -> Tensor:
    """Return noise as a tensor.

    Raises:
        ConfigurationError: for anything but floats ``(B, noise_dim)``, a tensor or an array.
    """
    tensor = tensor_from("noise", noise)
    if not tensor.is_floating_point() or tensor.shape[1:] != (noise_dim,):
        raise ConfigurationError(f"noise must be floats (B, noise_dim), here (B, {noise_dim}); got {described(noise)}")
    return tensor


def check_values(value_range: tuple[float, float] | None, real: Tensor) -> None:
    """Refuse examples outside of the generator's range, if it is known; warn of a range that looks wrong.

    Raises:
        ConfigurationError: with both ranges.
    """
    if value_range is None:
        return
    low, high = value_range
    least, most = real.min().item(), real.max().item()
    margin = _TOLERANCE * (high - low)
    ranges = f"the generator's values are in [{low:g}, {high:g}] and those of the data in [{least:g}, {most:g}]"
    if least < low - margin or most > high + margin:
        raise ConfigurationError(f"{ranges}: the generator cannot produce them. Rescale the data")
    if least >= (low + high) / 2:
        warnings.warn(f"{ranges}, in the first batch: should the data have the generator's range?", stacklevel=2)


def _check_dims(made: tuple[int, ...], dims: Sequence[int] | None, whose: str) -> None:
    if dims is not None and made != tuple(dims):
        raise ConfigurationError(
            f"the generator makes examples of the shape {made}, those of {whose} have {tuple(dims)}"
        )


def output_range(network: nn.Module) -> tuple[float, float] | None:
    """Return the range of a network's output, if it has ``value_range`` or ends in a Tanh or Sigmoid."""
    network = uncompiled(network)
    known = getattr(network, "value_range", None)
    if known is not None:
        return float(known[0]), float(known[1])
    if isinstance(network, nn.Sequential) and len(network):
        return output_range(network[-1])
    if isinstance(network, nn.Tanh):
        return -1.0, 1.0
    return (0.0, 1.0) if isinstance(network, nn.Sigmoid) else None
