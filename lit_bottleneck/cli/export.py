"""The command ``export``: write a part of a trained model as an ONNX file or a program of ``torch.export``."""

import argparse
import io
from collections.abc import Sequence

import torch

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli import home
from lit_bottleneck.cli.errors import REFUSALS, argument_errors
from lit_bottleneck.export.files import SIZES, largest_difference, runner
from lit_bottleneck.export.inputs import example_inputs
from lit_bottleneck.export.parts import deterministic_path, export_onnx, export_program
from lit_bottleneck.training.checkpoints import load_model
from lit_bottleneck.training.whole_file import whole_file

_PARTS = ("code", "logits", "prediction", "reconstruction", "decoder", "generator", "reward")
_DESCRIPTION = "Write a trained model's noise-free computation to a file that runs without this library."
_OUT_HELP = "ends in .onnx, or in .pt2 for a program of torch.export"
_PART_HELP = (
    "code (the mean, of every model), logits (of a classifier or a discriminator), prediction (of a regressor), "
    "reconstruction and decoder (of a VAE), generator (of a GAN, the averaged one), reward (of an imitation)"
)


def main(args: Sequence[str]) -> None:
    """Load a model, write a part of it, and compare the file's numbers with the model's."""
    parser = make_parser()
    arguments = parser.parse_args(args)
    part, out, dims = arguments.part, arguments.out, arguments.dims
    if out.suffix not in (".onnx", ".pt2"):
        parser.error(f"argument --out: must end in .onnx or .pt2; got {out}")
    if dims is not None and min(dims) < 1:
        parser.error(f"argument --dims: must be whole numbers, at least 1; got {dims}")
    with argument_errors(parser, "--ckpt_path", *REFUSALS, argparse.ArgumentError):
        model = load_model(arguments.ckpt_path)
    with argument_errors(parser, "--part", ConfigurationError):
        plain = deterministic_path(model, part)
    out_errors = (OSError, ImportError)  # an ONNX file needs further packages
    with argument_errors(parser, "--dims", ConfigurationError), argument_errors(parser, "--out", *out_errors):
        x = example_inputs(model, part, dims)
        if out.suffix == ".onnx":
            export_onnx(model, part, out, x)
        else:
            program = export_program(model, part, x)
            buffer = io.BytesIO()
            torch.export.save(program, buffer)  # to a file on a full disk it would abort the process
            with whole_file(out) as file:
                file.write_bytes(buffer.getbuffer())
    print(f"written: {out}, for inputs of the shape {tuple(x.shape[1:])}")
    run = runner(out)
    if run is None:
        print("not compared with the model: pip install onnxruntime")
    else:
        difference = largest_difference(plain, run, x)
        print(f"largest difference from the model, in batches of {' and '.join(map(str, SIZES))}: {difference:.2g}")


def make_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser("lit-bottleneck export", description=_DESCRIPTION)
    add = parser.add_argument
    add("--ckpt_path", metavar="FILE", type=home.path, required=True, help="a checkpoint of fit")
    add("--part", choices=_PARTS, required=True, help=_PART_HELP)
    add("--out", metavar="FILE", type=home.path, required=True, help=_OUT_HELP)
    add("--dims", metavar="N", type=int, nargs="+", help="shape of an input, if the networks do not define it")
    return parser
