"""What codes carry, what they are about, and how good drawn examples are.

The metrics know no model: they take codes (means and log-variances), features or predictions, whoever made them.

- Information, in nats: `Rate`, `MarginalMoments`, `MutualInformation`, `ClassConditionalTotalCorrelation`.
- Bounds of a density: `ELBO`, `ImportanceWeightedBound`.
- Known factors: `MIG`, `SAP`, `DCI`, and `FactorProbe`.
- Paths between codes: `PathQuality`.
- Samples: `FrechetDistance`, `KernelDistance`, `PrecisionRecall` by the features of a `FeatureExtractor`, and
  `ModeCoverage`.
"""

from lit_bottleneck.metrics.bounds import ELBO, ImportanceWeightedBound
from lit_bottleneck.metrics.class_conditional import ClassConditionalTotalCorrelation
from lit_bottleneck.metrics.disentanglement import DCI, MIG, SAP
from lit_bottleneck.metrics.features import CodeFeatures, FeatureExtractor, InceptionFeatures, RawFeatures
from lit_bottleneck.metrics.marginal_moments import MarginalMoments
from lit_bottleneck.metrics.mode_coverage import ModeCoverage
from lit_bottleneck.metrics.mutual_information import MutualInformation
from lit_bottleneck.metrics.paths import PathQuality
from lit_bottleneck.metrics.probes import FactorProbe
from lit_bottleneck.metrics.rate import Rate
from lit_bottleneck.metrics.sample_quality import FrechetDistance, KernelDistance, PrecisionRecall

__all__ = [
    "DCI",
    "ELBO",
    "MIG",
    "SAP",
    "ClassConditionalTotalCorrelation",
    "CodeFeatures",
    "FactorProbe",
    "FeatureExtractor",
    "FrechetDistance",
    "ImportanceWeightedBound",
    "InceptionFeatures",
    "KernelDistance",
    "MarginalMoments",
    "ModeCoverage",
    "MutualInformation",
    "PathQuality",
    "PrecisionRecall",
    "Rate",
    "RawFeatures",
]
