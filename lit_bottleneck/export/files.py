"""Exported files: run them, and compare them with the model."""

import importlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from lit_bottleneck.export.inputs import ROWS, batch_of

Run = Callable[[Tensor], Tensor]

SIZES = (1, ROWS)  # of the compared batches


def runner(file: Path) -> Run | None:
    """Return a function that runs an exported ``.pt2`` or ``.onnx`` file; None for ``.onnx`` without onnxruntime."""
    if file.suffix == ".pt2":
        return torch.export.load(file).module()
    try:
        onnxruntime = importlib.import_module("onnxruntime")
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    [given] = session.get_inputs()
    return lambda x: torch.from_numpy(session.run(None, {given.name: x.cpu().numpy()})[0])


def largest_difference(plain: nn.Module, run: Run, example: Tensor) -> float:
    """Return the largest difference between a module and its exported program, in batches of two sizes.

    Args:
        plain: the module.
        run: runs the exported program.
        example: a batch of inputs.

    Raises:
        RuntimeError: if it is larger than a rounding error, or the shapes differ.
    """
    largest = 0.0
    for size in SIZES:
        x = batch_of(example, size)
        with torch.no_grad():
            ours, theirs = plain(x).cpu(), run(x).cpu()
        if ours.shape != theirs.shape:
            raise RuntimeError(f"what was exported returns {tuple(theirs.shape)}, and the model {tuple(ours.shape)}")
        difference = (ours - theirs).abs().where(ours != theirs, 0).max().item()
        rounding = torch.finfo(ours.dtype).eps ** 0.5 * max(1.0, ours.abs().max().item())
        if not difference <= rounding:
            other = f"what was exported gives other numbers than the model, by up to {difference:.3g}"
            raise RuntimeError(f"{other}: does a network draw numbers in evaluation too?")
        largest = max(largest, difference)
    return largest
