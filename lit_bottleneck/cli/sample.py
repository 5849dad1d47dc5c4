"""The command `sample`: a picture of draws from a trained model."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning import LightningModule

from lit_bottleneck.callbacks.pictures import image_grid, point_plot
from lit_bottleneck.cli.messages import in_one_line
from lit_bottleneck.training.checkpoints import read_checkpoint


def main(args: Sequence[str]) -> None:
    """Load a model, draw from it, and write the picture."""
    parser = argparse.ArgumentParser(
        "lit-bottleneck sample", description="Draw images from a trained model (a VAE or a GAN) into one picture."
    )
    parser.add_argument("--ckpt_path", metavar="FILE", type=Path, required=True, help="a checkpoint of fit")
    parser.add_argument("--num", metavar="N", type=int, default=64, help="how many (default: 64)")
    parser.add_argument("--out", metavar="FILE", type=Path, default=Path("samples.png"), help="default: samples.png")
    parser.add_argument("--columns", metavar="N", type=int, help="default: a square")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    parser.add_argument(
        "--value_range", metavar=("BLACK", "WHITE"), type=float, nargs=2,
        help="the pixels of the data that the model was trained on (default: what its generator tells, else 0 1)",
    )  # fmt: skip
    arguments = parser.parse_args(args)
    for name in ("num", "columns"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"argument --{name}: must be at least 1; got {value}")
    if not 0 <= arguments.seed < 2**64:
        parser.error(f"argument --seed: must be from 0 to 2**64 - 1; got {arguments.seed}")
    black, white = arguments.value_range or (0.0, 1.0)
    if not black < white or math.isinf(white - black):
        parser.error(f"argument --value_range: black must be less than white; got {arguments.value_range}")
    try:
        model = _load(arguments.ckpt_path)
    except (OSError, ValueError, TypeError, RuntimeError, argparse.ArgumentError) as error:
        parser.error(f"argument --ckpt_path: {in_one_line(str(error))}")
    torch.manual_seed(arguments.seed)
    samples = model.sample(arguments.num)  # type: ignore[operator]
    value_range = arguments.value_range or getattr(model, "value_range", None) or (0.0, 1.0)
    if samples.shape[1:] == (2,):
        picture = point_plot(samples)
    elif samples.dim() == 4 and samples.shape[1] in (1, 3):
        columns = min(arguments.num, arguments.columns or round(arguments.num**0.5) or 1)
        blank = samples.new_full((-arguments.num % columns, *samples.shape[1:]), value_range[0])
        picture = image_grid(torch.cat([samples, blank]).unflatten(0, (-1, columns)), value_range)
    else:
        parser.error(
            f"argument --ckpt_path: the model draws {tuple(samples.shape[1:])}, no images (C, H, W) and no points (2,)"
        )
    try:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        picture.save(arguments.out)
    except (OSError, ValueError) as error:  # a ValueError is PIL's, of a suffix that it does not know
        parser.error(f"argument --out: {error}")
    print(f"written: {arguments.out}")


def _load(path: Path) -> LightningModule:
    """The model of a checkpoint that the command line has written, which needs nothing passed."""
    checkpoint = read_checkpoint(path)
    if "_class_path" not in checkpoint.get("hyper_parameters", {}):
        raise ValueError(
            f"{path} does not say how its model is built, as those do that 'lit-bottleneck fit' writes: load it in "
            "Python with load_from_checkpoint and call sample()"
        )
    model = LightningModule.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    if not hasattr(model, "sample"):
        raise ValueError(f"{path} holds a {type(model).__name__}, which draws no samples")
    return model
