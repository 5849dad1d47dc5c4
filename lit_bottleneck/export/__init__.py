"""Export the noise-free parts of a trained model, as programs of ``torch.export`` or ONNX files."""

from lit_bottleneck.export.inputs import example_inputs
from lit_bottleneck.export.parts import deterministic_path, export_onnx, export_program

__all__ = ["deterministic_path", "example_inputs", "export_onnx", "export_program"]
