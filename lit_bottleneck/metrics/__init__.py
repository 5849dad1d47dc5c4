"""Metrics of codes (information, factors, paths) and of generated samples.

The metrics know no model: they take codes (means and log-variances), features or predictions of any model.

- Information, in nats: ``Rate``, ``MarginalMoments``, ``MutualInformation``, ``ClassConditionalTotalCorrelation``.
- Bounds of the log-likelihood: ``ELBO``, ``ImportanceWeightedBound``.
- Known factors: ``MIG``, ``SAP``, ``DCI``, and ``FactorProbe``.
- Paths between codes: ``PathQuality``.
- Samples: ``FrechetDistance``, ``KernelDistance``, ``PrecisionRecall`` by the features of a ``FeatureExtractor``, and
  ``ModeCoverage``.
"""

from lit_bottleneck.metrics.class_conditional_total_correlation import ClassConditionalTotalCorrelation
from lit_bottleneck.metrics.dci import DCI
from lit_bottleneck.metrics.elbo import ELBO, ImportanceWeightedBound
from lit_bottleneck.metrics.factor_probe import FactorProbe
from lit_bottleneck.metrics.features import CodeFeatures, FeatureExtractor, InceptionFeatures, RawFeatures
from lit_bottleneck.metrics.frechet_distance import FrechetDistance
from lit_bottleneck.metrics.gaps import MIG, SAP
from lit_bottleneck.metrics.marginal_moments import MarginalMoments
from lit_bottleneck.metrics.mode_coverage import ModeCoverage
from lit_bottleneck.metrics.mutual_information import MutualInformation
from lit_bottleneck.metrics.path_quality import PathQuality
from lit_bottleneck.metrics.rate import Rate
from lit_bottleneck.metrics.sample_quality import KernelDistance, PrecisionRecall

__all__ = [
    "DCI", "ELBO", "MIG", "SAP", "ClassConditionalTotalCorrelation", "CodeFeatures", "FactorProbe", "FeatureExtractor",
    "FrechetDistance", "ImportanceWeightedBound", "InceptionFeatures", "KernelDistance", "MarginalMoments",
    "ModeCoverage", "MutualInformation", "PathQuality", "PrecisionRecall", "Rate", "RawFeatures",
]  # fmt: skip
