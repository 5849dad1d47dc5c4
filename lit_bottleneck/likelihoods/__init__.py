"""What a decoder's output means: likelihoods ``q(x|z)``, true densities in nats, summed over the outputs.

A decoder returns ``numbers_per_output`` numbers for every output: the shape of ``x`` with its first dimension after the
batch multiplied by that, ``(B, n D1, ...)``, all means first, then all scales, and so on.
"""

from collections.abc import Mapping
from typing import Any

from lit_bottleneck.hparams import from_description
from lit_bottleneck.likelihoods.base import Likelihood
from lit_bottleneck.likelihoods.bernoulli import Bernoulli, ContinuousBernoulli
from lit_bottleneck.likelihoods.discrete import Categorical, DiscretizedLogistic
from lit_bottleneck.likelihoods.gaussian import Gaussian, LearnedGaussian, OptimalGaussian, PerOutputGaussian

__all__ = [
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "Gaussian",
    "LearnedGaussian",
    "Likelihood",
    "OptimalGaussian",
    "PerOutputGaussian",
    "likelihood_from",
]

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
    """Take a likelihood by its name, as an object, or as the description of one that checkpoints keep.

    Raises:
        ValueError: for an unknown name, with the known ones, or for a description of another class.
        TypeError: for anything else.
    """
    if isinstance(likelihood, Likelihood):
        return likelihood
    if isinstance(likelihood, Mapping):
        return from_description(Likelihood, "likelihood", likelihood)  # type: ignore[type-abstract]
    if not isinstance(likelihood, str):
        raise TypeError(f"likelihood must be a name or a Likelihood; got {likelihood!r}")
    if likelihood not in _BY_NAME:
        raise ValueError(f"likelihood={likelihood!r} is unknown; it is one of {', '.join(_BY_NAME)}, or a Likelihood")
    return _BY_NAME[likelihood]()
