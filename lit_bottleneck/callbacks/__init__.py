"""Callbacks for any LightningModule: measurements of codes and samples, pictures, progress, averaged weights."""

from lit_bottleneck.callbacks.factors import Factors
from lit_bottleneck.callbacks.information import Information
from lit_bottleneck.callbacks.paths import Paths
from lit_bottleneck.callbacks.pictures import Pictures
from lit_bottleneck.callbacks.predictions import PredictionWriter
from lit_bottleneck.callbacks.progress import ProgressBar
from lit_bottleneck.callbacks.run_folder import run_folder
from lit_bottleneck.callbacks.sample_quality import SampleQuality
from lit_bottleneck.callbacks.weight_ema import WeightEMA

__all__ = [
    "Factors",
    "Information",
    "Paths",
    "Pictures",
    "PredictionWriter",
    "ProgressBar",
    "SampleQuality",
    "WeightEMA",
    "run_folder",
]
