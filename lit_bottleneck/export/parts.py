"""Export a part of a trained model, without noise, as a program of ``torch.export`` or an ONNX file.

Everything here works on a copy: the model itself does not change.
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

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.export.files import largest_difference, runner
from lit_bottleneck.export.inputs import ROWS, batch_of, example_inputs, part_of
from lit_bottleneck.training.whole_file import whole_file

_BATCH = ({0: Dim("batch")},)
# Errors that torch.export raises for a network that it cannot trace.
_EXPORT_ERRORS = (RuntimeError, TypeError, ValueError, AttributeError, AssertionError, IndexError, KeyError)


def deterministic_path(model: nn.Module, part: str) -> nn.Module:
    """Copy a part of a model as a plain module in evaluation mode, which draws no random numbers.

    Args:
        model: a model of this library; any module with ``export_parts()``, see ``models.export_parts.ExportPart``; or
            any with ``encode(x) -> Code``, which has the part ``"code"``.
        part: ``"code"``, inputs to mean codes ``(B, K, ...)``; of a ``VIBClassifier`` ``"logits"``, of a
            ``VIBRegressor`` ``"prediction"``, the means of the targets; of a ``VAE`` ``"reconstruction"``, inputs to
            the means of their reconstructions, and ``"decoder"``, codes to the means of outputs; of a ``VDBGAN``
            ``"logits"``, of the discriminator at the mean code, and ``"generator"``, noise to examples by the averaged
            generator.

    Raises:
        ConfigurationError: for a part that the model does not have, or a model that cannot be copied.

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
        way_out = "(Of the two weight_norms of torch that of torch.nn.utils.parametrizations can.)"
        complaint = f"{type(model).__name__} cannot be copied, which its export needs: {error} {way_out}"
        raise ConfigurationError(complaint) from error
    for name in chosen.unused:
        if hasattr(copy, name):
            setattr(copy, name, None)
    return _Path(copy, chosen.compute).eval()


def export_program(model: nn.Module, part: str, example: Tensor | None = None) -> ExportedProgram:
    """Export a part of a model by ``torch.export``, for batches of any size.

    ``torch.export.save(program, "model.pt2")`` writes it, and ``torch.export.load("model.pt2").module()`` runs it
    without this library.

    Args:
        model: see ``deterministic_path``.
        part: see ``deterministic_path``.
        example: a batch of inputs ``(B, ...)``; all inputs have their shape, but for the first dimension. Default:
            ``example_inputs(model, part)``.

    Raises:
        ConfigurationError: for a part that the model does not have, or an example that is missing or does not fit.
        RuntimeError: if torch cannot export the part, with its reason, or the program's numbers are not the model's.

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

    The output is named after the part; the input is ``x``, for a decoder ``z``, for a generator ``noise``. An old file
    is replaced only when the new one is complete and, if onnxruntime is installed and the model is in float32, computes
    the model's numbers. Weights of more than 2 GB are written beside it, to ``PATH.data``.

    Args:
        model: see ``deterministic_path``.
        part: see ``deterministic_path``.
        path: file to write.
        example: see ``export_program``.

    Raises:
        ImportError: without the packages onnx and onnxscript, or with an onnxscript that is too old for torch.
        ConfigurationError: see ``export_program``.
        RuntimeError: if torch cannot export the part, with its reason, or the file's numbers are not the model's.
    """
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise ImportError(f"an ONNX file needs the package {package}: pip install lit_bottleneck[onnx]")
    program, plain, x = _exported(model, part, example)
    with whole_file(Path(path)) as file:
        _write_onnx(program, part_of(model, part).input_name, part, file)
        single = all(weight.dtype == torch.float32 for weight in plain.parameters())
        run = runner(file) if single else None  # on a CPU onnxruntime computes in float32 only
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
    """Return the program of a part, the part itself, and a batch on which both were compared."""
    plain = deterministic_path(model, part)
    x = batch_of(example_inputs(model, part) if example is None else example, ROWS)
    try:
        with torch.no_grad():
            plain(x)
    except (ValueError, RuntimeError, IndexError) as error:
        given = f"inputs of the shape {tuple(x.shape[1:])} and {x.dtype}: {_first_lines(error)}"
        raise ConfigurationError(f"the part {part!r} of a {type(model).__name__} does not take {given}") from error
    program = _traced(plain, torch.zeros_like(x))  # the file holds its example: no data of the user's
    largest_difference(plain, program.module(), x)
    return program, plain, x


def _traced(plain: nn.Module, x: Tensor) -> ExportedProgram:
    """Trace a module by running it, or, if its code asks for the size of the batch (``len``), by its bytecode."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*_rates\[0\] was assigned during export")  # of a BottleneckLayer
        try:
            return torch.export.export(plain, (x,), dynamic_shapes=_BATCH, strict=False)
        except _EXPORT_ERRORS:
            pass
        try:
            return torch.export.export(plain, (x,), dynamic_shapes=_BATCH, strict=True)
        except _EXPORT_ERRORS as error:
            raise RuntimeError(f"torch cannot export it for batches of any size: {_first_lines(error)}") from error


def _write_onnx(program: ExportedProgram, given: str, returned: str, file: Path) -> None:
    try:
        decomposed = program.run_decompositions({torch.ops.aten.hypot.default: _hypot})
        written = torch.onnx.export(
            decomposed, dynamo=True, verbose=False, dynamic_shapes=_BATCH, input_names=[given], output_names=[returned]
        )
    except ImportError as error:
        raise ImportError(f"torch {torch.__version__} needs another onnxscript: pip install -U onnxscript") from error
    except RuntimeError as error:
        raise RuntimeError(f"torch.onnx cannot export it: {_first_lines(error)}") from error
    cast(torch.onnx.ONNXProgram, written).save(file)


def _hypot(x: Tensor, y: Tensor) -> Tensor:
    """Return ``sqrt(x^2 + y^2)`` without overflow; ONNX has no such operator."""
    larger, smaller = torch.maximum(x.abs(), y.abs()), torch.minimum(x.abs(), y.abs())
    return larger * torch.where(smaller == larger, 1, smaller / larger).square().add(1).sqrt()


def _first_lines(error: BaseException) -> str:
    """Return the first two lines of the innermost cause of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(line.strip() for line in str(error).strip().splitlines()[:2])
