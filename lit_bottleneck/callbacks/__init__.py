"""Callbacks for any LightningModule: measurements, pictures, progress, averages, compilation, and exact resume."""

from lit_bottleneck.callbacks.compile import Compile
from lit_bottleneck.callbacks.factors import Factors
from lit_bottleneck.callbacks.information import Information
from lit_bottleneck.callbacks.paths import Paths
from lit_bottleneck.callbacks.pictures import Pictures
from lit_bottleneck.callbacks.predictions import PredictionWriter
from lit_bottleneck.callbacks.progress import ProgressBar
from lit_bottleneck.callbacks.random_states import RandomStates
from lit_bottleneck.callbacks.resume_point import ResumePoint
from lit_bottleneck.callbacks.run_folder import run_folder
from lit_bottleneck.callbacks.sample_quality import SampleQuality
from lit_bottleneck.callbacks.skip_non_finite import SkipNonFinite
from lit_bottleneck.callbacks.weight_ema import WeightEMA

__all__ = [
    "Compile",
    "Factors",
    "Information",
    "Paths",
    "Pictures",
    "PredictionWriter",
    "ProgressBar",
    "RandomStates",
    "ResumePoint",
    "SampleQuality",
    "SkipNonFinite",
    "WeightEMA",
    "run_folder",
]
