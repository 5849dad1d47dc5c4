"""What is refused before a GAN trains for nothing: networks, data and trainers that do not fit."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from lightning import Trainer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

if TYPE_CHECKING:
    from lit_bottleneck.vdb import VDBGAN

_TOLERANCE = 1e-3  # of the range of pixels


def check_trainer(trainer: Trainer) -> None:
    """Refuse a trainer that cannot train two networks by turns.

    Raises:
        ValueError: with what to set instead.
    """
    if trainer.state.fn not in (None, TrainerFn.FITTING):
        return
    if trainer.gradient_clip_val:
        raise ValueError(
            f"trainer.gradient_clip_val={trainer.gradient_clip_val} is not for a GAN, which clips the gradients of each "
            f"network by itself: set the model's gradient_clip_val={trainer.gradient_clip_val} instead"
        )
    if trainer.accumulate_grad_batches != 1:
        raise ValueError(
            f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches} is not for a GAN, which steps by itself: "
            f"set the model's accumulate_grad_batches={trainer.accumulate_grad_batches} instead"
        )
    strategy = trainer.strategy
    if isinstance(strategy, (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)):
        raise ValueError(
            f"trainer.strategy={type(strategy).__name__} shards one network, it cannot train two by turns (manual "
            "optimization): set trainer.strategy=ddp_find_unused_parameters_true"
        )
    options = getattr(strategy, "_ddp_kwargs", {})
    if isinstance(strategy, DDPStrategy) and (
        not options.get("find_unused_parameters") or options.get("static_graph")
    ):
        raise ValueError(
            "plain DDP waits for the gradients of both networks in each step, and a GAN's step has those of one: set "
            "trainer.strategy=ddp_find_unused_parameters_true (and no static_graph)"
        )


def check_width(argument: str, width: int, network: nn.Module) -> None:
    """Refuse a network that takes another width than ``width``, where it tells.

    Raises:
        ValueError: with both widths.
    """
    takes = _input_width(network)
    if takes not in (None, width):
        raise ValueError(f"{argument}={width}, but the {type(network).__name__} for it takes a width of {takes}")


def check_networks(model: VDBGAN, data: Any) -> None:
    """Have the networks work once, on zeros, and hold what they make against the data.

    Args:
        model: in evaluation mode.
        data: a datamodule that may tell the ``dims`` and the ``value_range`` of its examples, or None.

    Raises:
        ValueError: for noise, examples, codes or ranges that do not fit.
    """
    noise = torch.zeros(2, model.noise_dim, device=model.device, dtype=model.dtype)
    generated = _try(f"the generator does not take noise of noise_dim={model.noise_dim}", model.generator, noise)
    dims = getattr(data, "dims", None)
    if dims is not None and tuple(generated.shape[1:]) != tuple(dims):
        raise ValueError(
            f"the generator makes examples of the shape {tuple(generated.shape[1:])}, those of {type(data).__name__} "
            f"have {tuple(dims)}"
        )
    code = _try(
        f"the encoder does not take examples of the shape {tuple(generated.shape[1:])}",
        lambda x: model.encode(x, sample=False),
        generated,
    )
    _try(f"the head does not take codes of the shape {tuple(code.z.shape[1:])}", lambda x: model.discriminate(x), generated)
    ours, theirs = model.value_range, getattr(data, "value_range", None)
    if None not in (ours, theirs) and tuple(map(float, theirs)) != ours:
        raise ValueError(
            f"the generator's values are in {ours} and those of {type(data).__name__} in {tuple(theirs)}: set "
            f"value_range={list(ours or ())} of the data (--data.init_args.value_range), or another generator"
        )


def check_real(model: VDBGAN, real: Tensor) -> None:
    """Refuse a batch that the networks cannot be trained on.

    Raises:
        ValueError: for a batch of one where there is batch normalisation; at the first batch for examples of another
            shape or range than the generator's.
    """
    if len(real) == 1 and any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in model.modules()):
        raise ValueError(
            "a batch of one example has no batch statistics, which the batch normalisation of the networks needs: choose "
            "another batch_size (or drop_last=True of your DataLoader), or networks without it"
        )
    if model._range_is_checked:
        return
    model._range_is_checked = True
    with torch.no_grad():
        generated = model.generator(model.draw_noise(len(real)))
    if generated.shape[1:] != real.shape[1:]:
        raise ValueError(
            f"the generator makes examples of the shape {tuple(generated.shape[1:])}, those of the data have "
            f"{tuple(real.shape[1:])}"
        )
    if model.value_range is None:
        return
    low, high = model.value_range
    least, most = real.min().item(), real.max().item()
    margin = _TOLERANCE * (high - low)
    if least < low - margin or most > high + margin:
        raise ValueError(
            f"the generator's values are in [{low:g}, {high:g}] and those of the data in [{least:g}, {most:g}]: it could "
            "never make them. Scale the data, or take another generator"
        )
    if least >= (low + high) / 2:
        warnings.warn(
            f"the generator's values are in [{low:g}, {high:g}] and those of the first batch in [{least:g}, {most:g}]: "
            "is the range of the data the generator's?",
            stacklevel=2,
        )


def output_range(network: nn.Module) -> tuple[float, float] | None:
    """The range of what a network returns, where it tells (``value_range``, or a last Tanh or Sigmoid)."""
    told = getattr(network, "value_range", None)
    if told is not None:
        return float(told[0]), float(told[1])
    if isinstance(network, nn.Sequential) and len(network):
        return output_range(network[-1])
    if isinstance(network, nn.Tanh):
        return -1.0, 1.0
    return (0.0, 1.0) if isinstance(network, nn.Sigmoid) else None


def _input_width(network: nn.Module) -> int | None:
    for name in ("noise_dim", "latent_dim", "in_features"):
        width = getattr(network, name, None)
        if isinstance(width, int):
            return width
    if isinstance(network, nn.Sequential) and len(network):
        return _input_width(network[0])
    return None


def _try(complaint: str, network: Any, x: Tensor) -> Any:
    try:
        return network(x)
    except RuntimeError as error:
        raise ValueError(f"{complaint}: {error}") from error
