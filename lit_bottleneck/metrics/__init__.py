"""How good drawn examples are: features to compare them by, and distances between two sets of features.

The metrics know no model: they take features `(B, F)` of real and of generated examples, whoever made them.
"""

from lit_bottleneck.metrics.features import CodeFeatures, FeatureExtractor, InceptionFeatures, RawFeatures
from lit_bottleneck.metrics.mode_coverage import ModeCoverage
from lit_bottleneck.metrics.sample_quality import FrechetDistance, KernelDistance, PrecisionRecall

__all__ = [
    "CodeFeatures",
    "FeatureExtractor",
    "FrechetDistance",
    "InceptionFeatures",
    "KernelDistance",
    "ModeCoverage",
    "PrecisionRecall",
    "RawFeatures",
]
