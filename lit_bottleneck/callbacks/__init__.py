"""Callbacks for any LightningModule: progress, predictions, and where a run keeps its files."""

from lit_bottleneck.callbacks.predictions import PredictionWriter
from lit_bottleneck.callbacks.progress import ProgressBar
from lit_bottleneck.callbacks.run_folder import run_folder

__all__ = ["PredictionWriter", "ProgressBar", "run_folder"]
