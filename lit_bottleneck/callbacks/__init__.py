"""Callbacks for any LightningModule: progress, pictures, predictions, samples, averaged weights; a run's folder."""

from lit_bottleneck.callbacks.pictures import Pictures
from lit_bottleneck.callbacks.predictions import PredictionWriter
from lit_bottleneck.callbacks.progress import ProgressBar
from lit_bottleneck.callbacks.run_folder import run_folder
from lit_bottleneck.callbacks.sample_quality import SampleQuality
from lit_bottleneck.callbacks.weight_ema import WeightEMA

__all__ = ["Pictures", "PredictionWriter", "ProgressBar", "SampleQuality", "WeightEMA", "run_folder"]
