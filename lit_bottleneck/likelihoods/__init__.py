"""Likelihoods ``q(x|z)`` of a decoder: true log-densities in nats, summed over the outputs.

For ``x`` of shape ``(B, D1, ...)`` a decoder returns ``(B, n D1, ...)``, where n is the likelihood's
``numbers_per_output``: all means first, then all scales, and so on.
"""

from collections.abc import Mapping
from typing import Any

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.hparams import from_config
from lit_bottleneck.likelihoods.base import Likelihood as Likelihood
from lit_bottleneck.likelihoods.bernoulli import Bernoulli as Bernoulli
from lit_bottleneck.likelihoods.bernoulli import ContinuousBernoulli as ContinuousBernoulli
from lit_bottleneck.likelihoods.discrete import Categorical as Categorical
from lit_bottleneck.likelihoods.discrete import DiscretizedLogistic as DiscretizedLogistic
from lit_bottleneck.likelihoods.gaussian import Gaussian as Gaussian
from lit_bottleneck.likelihoods.gaussian import LearnedGaussian as LearnedGaussian
from lit_bottleneck.likelihoods.gaussian import OptimalGaussian as OptimalGaussian
from lit_bottleneck.likelihoods.gaussian import PerOutputGaussian as PerOutputGaussian

_BY_NAME: dict[str, type[Likelihood]] = {
    "bernoulli": Bernoulli,
    "categorical": Categorical,
    "continuous_bernoulli": ContinuousBernoulli,
    "discretized_logistic": DiscretizedLogistic,
    "gaussian": Gaussian,
    "gaussian_learned": LearnedGaussian,
    "gaussian_optimal": OptimalGaussian,
    "gaussian_per_output": PerOutputGaussian,
}

for _kind in (Likelihood, *_BY_NAME.values()):
    _kind.__module__ = __name__  # the path under which recipes and checkpoints name it


def likelihood_from(likelihood: str | Likelihood | Mapping[str, Any]) -> Likelihood:
    """Return a likelihood as it is, or build one from its name or its description in a checkpoint.

    Raises:
        ConfigurationError: for an unknown name, listing the known ones, and for anything else.
        ValueError: for the description of a class that is not an imported ``Likelihood``.
    """
    if isinstance(likelihood, (Likelihood, Mapping)):
        return from_config(Likelihood, "likelihood", likelihood)  # type: ignore[type-abstract]
    if not isinstance(likelihood, str) or likelihood not in _BY_NAME:
        raise ConfigurationError(f"likelihood must be a Likelihood or one of {', '.join(_BY_NAME)}; got {likelihood!r}")
    return _BY_NAME[likelihood]()
