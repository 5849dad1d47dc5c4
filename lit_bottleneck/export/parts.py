"""What a trained model computes without noise, as a program of `torch.export` or an ONNX file.

Everything here works on a copy: the model that is passed comes back as it was.
"""

import importlib.util
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from lit_bottleneck.export.files import largest_difference, runner, whole_file
from lit_bottleneck.export.inputs import ROWS, batch_of, example_inputs, part_of

_BATCH = ({0: Dim("batch")},)
# What torch.export lets through of a network that it cannot trace.
_REFUSALS = (RuntimeError, TypeError, ValueError, AttributeError, AssertionError, IndexError, KeyError)


def deterministic_path(model: nn.Module, part: str) -> nn.Module:
    """Copy a part of a model as a plain module in evaluation mode, which draws nothing.

    Args:
        model: a model of this library; or one of your own with an ``encode(x)`` that returns a `Code`, which has the
            part ``"code"``.
        part: ``"code"``, inputs to mean codes ``(B, K, ...)``; ``"logits"``, both of a `VIBClassifier` and of a
            `VDBGAN`, whose discriminator's they are, at the mean code; of a `VAE` ``"reconstruction"``, inputs to the
            means of their reconstructions, and ``"decoder"``, codes to the means of outputs; of a `VDBGAN`
            ``"generator"``, noise to examples by the averaged generator.

    Raises:
        ValueError: for a part that the model does not have, with those it has, or a model that cannot be copied.

    >>> from lit_bottleneck import VIBClassifier
    >>> from lit_bottleneck.networks import MLP
    >>> logits = deterministic_path(VIBClassifier(MLP(64, [32], 2 * 8), latent_dim=8, num_classes=10), "logits")
    >>> logits(torch.zeros(5, 1, 8, 8)).shape, logits.training
    (torch.Size([5, 10]), False)
    """
    chosen = part_of(model, part)
    try:
        copy = deepcopy(model)
    except RuntimeError as error:
        raise ValueError(
            f"{type(model).__name__} cannot be copied, which its export needs: {error} (Of the two weight_norms of "
            "torch that of torch.nn.utils.parametrizations can.)"
        ) from error
    for name in chosen.unused:
        if hasattr(copy, name):
            setattr(copy, name, None)
    return _Path(copy, chosen.compute).eval()


def export_program(model: nn.Module, part: str, example: Tensor | None = None) -> ExportedProgram:
    """Export a part of a model by `torch.export`, for batches of any size.

    ``torch.export.save(program, "model.pt2")`` writes it, and ``torch.export.load("model.pt2").module()`` runs it
    without this library.

    Args:
        model: see `deterministic_path`.
        part: see `deterministic_path`.
        example: a batch of inputs, ``(B, ...)``, whose shape after the first dimension is that of all inputs. Not
            needed for codes and noise, and where `example_inputs` knows it.

    Raises:
        ValueError: for a part that the model does not have, inputs that are not known, or that it does not take.
        RuntimeError: for what torch cannot export, with its reason, and for a program that gives other numbers than the
            model.

    >>> from lit_bottleneck import VIBClassifier
    >>> from lit_bottleneck.networks import MLP
    >>> model = VIBClassifier(MLP(64, [32], 2 * 8), latent_dim=8, num_classes=10)
    >>> program = export_program(model, "logits", example=torch.rand(5, 1, 8, 8))
    >>> program.module()(torch.zeros(1, 1, 8, 8)).shape
    torch.Size([1, 10])
    """
    return _exported(model, part, example)[0]


def export_onnx(model: nn.Module, part: str, path: str | Path, example: Tensor | None = None) -> None:
    """Export a part of a model to an ONNX file, for batches of any size.

    The output has the name of the part, the input is ``x``, of a decoder ``z``, of a generator ``noise``. What is in
    the file's place stays until the whole of the new one is written and, where onnxruntime is installed and the model
    is in single precision, gives the model's numbers. Weights of more than 2 GB lie beside it, in ``PATH.data``.

    Args:
        model: see `deterministic_path`.
        part: see `deterministic_path`.
        path: where the file comes.
        example: see `export_program`.

    Raises:
        ImportError: without the packages onnx and onnxscript, or with an onnxscript that is too old for torch.
        ValueError: see `export_program`.
        RuntimeError: for what torch cannot export, with its reason, and for a file that gives other numbers than the
            model.
    """
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise ImportError(f"an ONNX file needs the package {package}: pip install lit_bottleneck[onnx]")
    program, plain, x = _exported(model, part, example)
    with whole_file(Path(path)) as file:
        _write_onnx(program, part_of(model, part).input_name, part, file)
        single = all(weight.dtype == torch.float32 for weight in plain.parameters())
        run = runner(file) if single else None  # onnxruntime computes nothing else on a CPU
        if run is not None:
            largest_difference(plain, run, x)


class _Path(nn.Module):
    def __init__(self, model: nn.Module, compute: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.compute = compute

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(self.model, x)


def _exported(model: nn.Module, part: str, example: Tensor | None) -> tuple[ExportedProgram, nn.Module, Tensor]:
    """The program of a part, the part itself, and a batch on which both give the same."""
    plain = deterministic_path(model, part)
    x = batch_of(example_inputs(model, part) if example is None else example, ROWS)
    try:
        with torch.no_grad():
            plain(x)
    except (ValueError, RuntimeError, IndexError) as error:
        raise ValueError(
            f"the part {part!r} of a {type(model).__name__} does not take inputs of the shape {tuple(x.shape[1:])} and "
            f"{x.dtype}: {_first_lines(error)}"
        ) from error
    program = _traced(plain, torch.zeros_like(x))  # no data of the user's: they would be in the file
    largest_difference(plain, program.module(), x)
    return program, plain, x


def _traced(plain: nn.Module, x: Tensor) -> ExportedProgram:
    """Trace it by running it, or, where Python takes the size of the batch for a number (`len`), by its bytecode."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*_rates\[0\] was assigned during export")  # of a BottleneckLayer
        try:
            return torch.export.export(plain, (x,), dynamic_shapes=_BATCH, strict=False)
        except _REFUSALS:
            pass
        try:
            return torch.export.export(plain, (x,), dynamic_shapes=_BATCH, strict=True)
        except _REFUSALS as error:
            raise RuntimeError(f"torch cannot export it for batches of any size: {_first_lines(error)}") from error


def _write_onnx(program: ExportedProgram, input_name: str, output_name: str, file: Path) -> None:
    try:
        written = torch.onnx.export(
            program.run_decompositions({torch.ops.aten.hypot.default: _hypot}),
            dynamo=True,
            verbose=False,
            input_names=[input_name],
            output_names=[output_name],
            dynamic_shapes=_BATCH,
        )
    except ImportError as error:
        raise ImportError(f"torch {torch.__version__} needs another onnxscript: pip install -U onnxscript") from error
    except RuntimeError as error:
        raise RuntimeError(f"torch.onnx cannot export it: {_first_lines(error)}") from error
    cast(torch.onnx.ONNXProgram, written).save(file)


def _hypot(x: Tensor, y: Tensor) -> Tensor:
    """``sqrt(x^2 + y^2)`` without the square of the larger, which may overflow: ONNX has none."""
    larger, smaller = torch.maximum(x.abs(), y.abs()), torch.minimum(x.abs(), y.abs())
    return larger * torch.where(smaller == larger, 1, smaller / larger).square().add(1).sqrt()


def _first_lines(error: BaseException) -> str:
    """What the innermost cause of an error says first."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(line.strip() for line in str(error).strip().splitlines()[:2])
