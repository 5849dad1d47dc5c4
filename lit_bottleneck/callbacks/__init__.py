"""Callbacks for any LightningModule: progress, predictions, averaged weights, and where a run keeps its files."""

from lit_bottleneck.callbacks.predictions import PredictionWriter
from lit_bottleneck.callbacks.progress import ProgressBar
from lit_bottleneck.callbacks.run_folder import run_folder
from lit_bottleneck.callbacks.weight_ema import WeightEMA

__all__ = ["PredictionWriter", "ProgressBar", "WeightEMA", "run_folder"]
