"""The command ``sample``: draw samples from a trained model into one picture."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL.Image import Image, registered_extensions
from torch import Tensor

from lit_bottleneck.callbacks.pictures import SMALLEST_TILE, image_grid, point_plot
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli import home
from lit_bottleneck.cli.errors import REFUSALS, argument_errors
from lit_bottleneck.training.checkpoints import load_model
from lit_bottleneck.training.whole_file import whole_file

_DESCRIPTION = "Draw samples from a trained model (a VAE or a GAN) into one picture."
_RANGE_HELP = "pixel values of the training data (default: the range of the model's generator if it has one, else 0 1)"

_MOST_PIXELS = 2**27  # about what viewers, and Pillow without a warning, open


def main(args: Sequence[str]) -> None:
    """Load a model, draw samples from it, and write the picture."""
    parser = make_parser()
    arguments = parser.parse_args(args)
    _check(parser, arguments)
    with argument_errors(parser, "--ckpt_path", *REFUSALS, argparse.ArgumentError):
        model = load_model(arguments.ckpt_path)
    if not hasattr(model, "sample"):
        parser.error(f"argument --ckpt_path: must hold a model with sample(); got a {type(model).__name__}")
    with argument_errors(parser, "--num", ConfigurationError):
        _check_size(arguments.num, model.sample(1))  # type: ignore[operator]
    torch.manual_seed(arguments.seed)
    samples = model.sample(arguments.num)  # type: ignore[operator]
    value_range = arguments.value_range or getattr(model, "value_range", None) or (0.0, 1.0)
    with argument_errors(parser, "--ckpt_path", ConfigurationError):
        picture = _picture(samples, arguments.columns, value_range)
    with argument_errors(parser, "--out", OSError), whole_file(arguments.out) as file:
        picture.save(file)
    print(f"written: {arguments.out}")


def make_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser("lit-bottleneck sample", description=_DESCRIPTION)
    add = parser.add_argument
    add("--ckpt_path", metavar="FILE", type=home.path, required=True, help="a checkpoint of fit")
    add("--num", metavar="N", type=int, default=64, help="number of samples (default: 64)")
    add("--out", metavar="FILE", type=home.path, default=Path("samples.png"), help="default: samples.png")
    add("--columns", metavar="N", type=int, help="columns of the grid (default: a square)")
    add("--seed", type=int, default=0, help="seed of the samples (default: 0)")
    add("--value_range", metavar=("BLACK", "WHITE"), type=float, nargs=2, help=_RANGE_HELP)
    return parser


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    for name in ("num", "columns"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"argument --{name}: must be at least 1; got {value}")
    if not 0 <= arguments.seed < 2**64:
        parser.error(f"argument --seed: must be from 0 to 2**64 - 1; got {arguments.seed}")
    if arguments.out.suffix.lower() not in registered_extensions():
        parser.error(f"argument --out: must end in a suffix of an image, such as .png; got {arguments.out}")
    black, white = arguments.value_range or (0.0, 1.0)
    if not black < white or math.isinf(white - black):
        parser.error(f"argument --value_range: black must be less than white; got {arguments.value_range}")


def _check_size(num: int, sample: Tensor) -> None:
    """Refuse a picture that no memory holds, before it is drawn.

    Args:
        num: the number of samples.
        sample: one of them, ``(1, ...)``.

    Raises:
        ConfigurationError: with the largest number.
    """
    height, width = sample.shape[-2:] if sample.dim() == 4 else (0, 0)
    most = _MOST_PIXELS // (max(height, SMALLEST_TILE) * max(width, SMALLEST_TILE))
    if num > most:
        raise ConfigurationError(f"must be at most {most}, for a picture of {_MOST_PIXELS} pixels; got {num}")


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
