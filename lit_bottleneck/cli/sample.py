"""The command ``sample``: draw samples from a trained model into one picture."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor

from lit_bottleneck.callbacks.pictures import image_grid, point_plot
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli.errors import REFUSALS
from lit_bottleneck.cli.messages import in_one_line
from lit_bottleneck.training.checkpoints import load_model


def main(args: Sequence[str]) -> None:
    """Load a model, draw samples from it, and write the picture."""
    parser = _parser()
    arguments = parser.parse_args(args)
    _check(parser, arguments)
    try:
        model = load_model(arguments.ckpt_path)
    except (*REFUSALS, argparse.ArgumentError) as error:
        parser.error(f"argument --ckpt_path: {in_one_line(str(error))}")
    if not hasattr(model, "sample"):
        parser.error(f"argument --ckpt_path: must hold a model with sample(); got a {type(model).__name__}")
    torch.manual_seed(arguments.seed)
    samples = model.sample(arguments.num)  # type: ignore[operator]
    value_range = arguments.value_range or getattr(model, "value_range", None) or (0.0, 1.0)
    try:
        picture = _picture(samples, arguments.columns, value_range)
    except ConfigurationError as error:
        parser.error(f"argument --ckpt_path: {error}")
    try:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        picture.save(arguments.out)
    except (OSError, ValueError) as error:  # PIL raises ValueError for a suffix that it does not know
        parser.error(f"argument --out: {error}")
    print(f"written: {arguments.out}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lit-bottleneck sample", description="Draw samples from a trained model (a VAE or a GAN) into one picture."
    )
    parser.add_argument("--ckpt_path", metavar="FILE", type=Path, required=True, help="a checkpoint of fit")
    parser.add_argument("--num", metavar="N", type=int, default=64, help="number of samples (default: 64)")
    parser.add_argument("--out", metavar="FILE", type=Path, default=Path("samples.png"), help="default: samples.png")
    parser.add_argument("--columns", metavar="N", type=int, help="columns of the grid (default: a square)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples (default: 0)")
    parser.add_argument(
        "--value_range", metavar=("BLACK", "WHITE"), type=float, nargs=2,
        help="pixel values of the training data (default: the range of the model's generator if it has one, else 0 1)",
    )  # fmt: skip
    return parser


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    for name in ("num", "columns"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"argument --{name}: must be at least 1; got {value}")
    if not 0 <= arguments.seed < 2**64:
        parser.error(f"argument --seed: must be from 0 to 2**64 - 1; got {arguments.seed}")
    black, white = arguments.value_range or (0.0, 1.0)
    if not black < white or math.isinf(white - black):
        parser.error(f"argument --value_range: black must be less than white; got {arguments.value_range}")


def _picture(samples: Tensor, columns: int | None, value_range: tuple[float, float]) -> Image:
    """Plot points, or arrange images in a grid.

    Args:
        samples: ``(N, 2)`` or ``(N, C, H, W)``, with 1 or 3 channels.
        columns: columns of the grid. Default: about as many as rows.
        value_range: the values of black and white.

    Raises:
        ConfigurationError: for samples of other shapes.
    """
    if samples.shape[1:] == (2,):
        return point_plot(samples)
    if samples.dim() != 4 or samples.shape[1] not in (1, 3):
        shape = tuple(samples.shape[1:])
        raise ConfigurationError(f"samples must be images (C, H, W) with 1 or 3 channels, or points (2,); got {shape}")
    columns = min(len(samples), columns or round(len(samples) ** 0.5))
    blank = samples.new_full((-len(samples) % columns, *samples.shape[1:]), value_range[0])
    return image_grid(torch.cat([samples, blank]).unflatten(0, (-1, columns)), value_range)
