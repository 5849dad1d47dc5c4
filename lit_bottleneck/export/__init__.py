"""What a trained model computes without noise, as a program of `torch.export` or an ONNX file; the command `export`."""

from lit_bottleneck.export.inputs import example_inputs
from lit_bottleneck.export.parts import deterministic_path, export_onnx, export_program

__all__ = ["deterministic_path", "example_inputs", "export_onnx", "export_program"]
