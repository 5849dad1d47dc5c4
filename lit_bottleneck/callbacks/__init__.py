"""Callbacks for any LightningModule: measurements, pictures, progress, averages, compilation, and exact resume."""

from lit_bottleneck.bottleneck.trainer import NestedPrices as NestedPrices
from lit_bottleneck.callbacks.compile import Compile as Compile
from lit_bottleneck.callbacks.episodes import Episodes as Episodes
from lit_bottleneck.callbacks.factors import Factors as Factors
from lit_bottleneck.callbacks.flush_denormals import FlushDenormals as FlushDenormals
from lit_bottleneck.callbacks.information import Information as Information
from lit_bottleneck.callbacks.paths import Paths as Paths
from lit_bottleneck.callbacks.pictures import Pictures as Pictures
from lit_bottleneck.callbacks.predictions import PredictionWriter as PredictionWriter
from lit_bottleneck.callbacks.progress import ProgressBar as ProgressBar
from lit_bottleneck.callbacks.random_states import RandomStates as RandomStates
from lit_bottleneck.callbacks.resume_point import ResumePoint as ResumePoint
from lit_bottleneck.callbacks.reward_map import RewardMap as RewardMap
from lit_bottleneck.callbacks.run import run_folder as run_folder
from lit_bottleneck.callbacks.sample_quality import SampleQuality as SampleQuality
from lit_bottleneck.callbacks.skip_non_finite import SkipNonFinite as SkipNonFinite
from lit_bottleneck.callbacks.weight_ema import WeightEMA as WeightEMA
