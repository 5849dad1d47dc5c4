"""Training objectives of a VAE: ELBO, importance-weighted bound, and a penalty on total correlation.

An objective maps a ``CodedBatch`` to the terms of the loss, and knows no model.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lit_bottleneck.checks import ConfigurationError, not_negative, whole_number
from lit_bottleneck.code import Code
from lit_bottleneck.functional import log_density, log_ratio
from lit_bottleneck.hparams import RecordsArguments, from_config
from lit_bottleneck.training.distributed import gather_rows


@dataclass(frozen=True, eq=False, slots=True)
class CodedBatch:
    """An encoded training batch with the distortion of its draws.

    Attributes:
        code: the code of B examples.
        draws: ``(S, B, K)``, the number S of draws per example that the objective asks for.
        distortion: ``(S, B)``, ``-log q(x|z)`` of every draw, in nats.
        rate_penalty: the beta controller's penalty for the rate, a scalar.
        beta: the current beta.
        dataset_size: number of training examples, or None if unknown.
    """

    code: Code
    draws: Tensor
    distortion: Tensor
    rate_penalty: Tensor
    beta: float
    dataset_size: int | None = None


class Objective(RecordsArguments, ABC):
    """Base of the objectives.

    Attributes:
        num_samples: number of draws per example.
        needs_noise: whether it is undefined for a deterministic code.
        needs_linear_price: whether it uses beta itself instead of the controller's penalty.
    """

    num_samples: int = 1
    needs_noise: bool = False
    needs_linear_price: bool = False

    @abstractmethod
    def __call__(self, batch: CodedBatch) -> dict[str, Tensor]:
        """Return the terms of the loss by name, scalars."""

    def check(self, controller: Any, deterministic: bool, free_bits: float) -> None:
        """Refuse a model that the objective is undefined for.

        Raises:
            ConfigurationError: with the settings that do not go together.
        """
        name = type(self).__name__
        if deterministic and self.needs_noise:
            raise ConfigurationError(f"objective={name} is undefined without noise, as with deterministic=True")
        if free_bits and self.needs_linear_price:
            raise ConfigurationError(f"free_bits={free_bits} applies to the KL itself, which objective={name} samples")
        if self.needs_linear_price and not controller.linear:
            price = type(controller).__name__
            raise ConfigurationError(f"objective={name} needs a penalty of beta times the rate, which {price} has not")


class ELBO(Objective):
    """``D + beta R``: the negative ELBO at ``beta = 1`` (arXiv 1312.6114), the beta-VAE otherwise."""

    def __call__(self, batch: CodedBatch) -> dict[str, Tensor]:
        """Return distortion and rate penalty."""
        return {"distortion": batch.distortion.mean(), "rate_penalty": batch.rate_penalty}


class IWAE(Objective):
    """``-log 1/k sum_k q(x|z_k) (q(z_k) / p(z_k|x))^beta``: the importance-weighted bound (arXiv 1509.00519).

    At ``beta = 1`` its negative is a lower bound on ``log q(x)`` that tightens with every sample.

    Args:
        num_samples: draws per example, k.

    Raises:
        ConfigurationError: if ``num_samples`` is less than 1.
    """

    needs_noise = True
    needs_linear_price = True

    def __init__(self, num_samples: int) -> None:
        self.num_samples = whole_number("num_samples", num_samples, at_least=1)

    def __call__(self, batch: CodedBatch) -> dict[str, Tensor]:
        """Return the negative bound."""
        ratio = log_ratio(batch.draws, batch.code.mean, batch.code.log_var)
        log_weights = -batch.distortion - batch.beta * ratio
        return {"negative_iwae": (math.log(self.num_samples) - log_weights.logsumexp(0)).mean()}


class BetaTC(ELBO):
    """``D + beta R + gamma TC``: an extra penalty on total correlation (beta-TCVAE, arXiv 1802.04942).

    The paper's beta is ``beta + gamma`` here; its alpha and gamma are both our beta. ``total_correlation`` estimates
    the total correlation of the aggregate code from the batches of all processes together; each accumulated batch has
    its own estimate. Time and memory grow with the square of that batch up to ``max_codes``, linearly from there on.

    Args:
        gamma: the extra weight of total correlation.
        dataset_size: number of training examples. Default: the size of the training set.
        max_codes: examples that are compared with each other. A larger batch, that of all processes together, is cut
            into equal parts, whose estimates are averaged.

    Raises:
        ConfigurationError: for a gamma that is negative or not finite, a ``dataset_size`` below 1 or ``max_codes``
            below 3; at a batch if the size of the training set is unknown.
    """

    needs_noise = True

    def __init__(self, gamma: float, dataset_size: int | None = None, max_codes: int = 1024) -> None:
        self.gamma = not_negative("gamma", gamma)
        self.dataset_size = None if dataset_size is None else whole_number("dataset_size", dataset_size, at_least=1)
        self.max_codes = whole_number("max_codes", max_codes, at_least=3)  # so that a part has at least two

    def __call__(self, batch: CodedBatch) -> dict[str, Tensor]:
        """Return distortion, rate penalty and total correlation penalty."""
        dataset_size = self.dataset_size or batch.dataset_size
        if dataset_size is None:
            raise ConfigurationError("BetaTC(dataset_size=...) must be given if the training data set has no length")
        posteriors, first = gather_rows(torch.stack([batch.code.mean, batch.code.log_var], dim=1))
        codes, count = batch.draws[0], len(posteriors)
        if count > dataset_size:
            raise ConfigurationError(f"dataset_size must be at least the batch size, {count}; got {dataset_size}")
        correlation = codes.sum() * 0  # keeps the graph
        for part in posteriors.tensor_split(max(1, -(-count // self.max_codes))):
            ours = codes[max(0, -first) : max(0, len(part) - first)]  # those of the part that are on this process
            if len(ours):
                mean, log_var = part.unbind(1)
                estimate = total_correlation(ours, mean, log_var, dataset_size, max(0, first))
                correlation = correlation + len(ours) / len(codes) * estimate
            first -= len(part)
        return super().__call__(batch) | {"total_correlation_penalty": self.gamma * correlation}


def objective_from(objective: Objective | Mapping[str, Any]) -> Objective:
    """Return an objective as it is, or build one from its description in a checkpoint.

    Raises:
        ConfigurationError: for anything else.
        ValueError: for the description of a class that is not an imported ``Objective``.
    """
    if not isinstance(objective, (Objective, Mapping)):
        raise ConfigurationError(f"objective must be an Objective, such as ELBO(); got {objective!r}")
    return from_config(Objective, "objective", objective)  # type: ignore[type-abstract]


def total_correlation(z: Tensor, mean: Tensor, log_var: Tensor, dataset_size: int, first: int = 0) -> Tensor:
    """Total correlation ``E[log p(z) - sum_j log p(z_j)]`` of the aggregate code, estimated from a batch, in nats.

    Minibatch-stratified sampling (arXiv 1802.04942) estimates the densities of the mixture over all N examples from the
    M examples of the batch: an example's own posterior has the weight ``1 / N``, each of the others
    ``(N - 1) / (N (M - 1))``. The estimate of ``p(z)`` is then unbiased. Time and memory grow with L M K.

    Args:
        z: ``(L, K)``, one code each of L of the examples, L at most M.
        mean: ``(M, K)``.
        log_var: ``(M, K)``.
        dataset_size: N.
        first: index among the M examples that the first code belongs to.

    Returns:
        A scalar; 0 for a collapsed encoder, and for a single example.

    Raises:
        ConfigurationError: if the batch is larger than the data set.
    """
    codes, batch_size = len(z), len(mean)
    if batch_size > dataset_size:
        raise ConfigurationError(f"dataset_size must be at least the batch size, {batch_size}; got {dataset_size}")
    if batch_size < 2:
        return mean.sum() * 0  # keeps the graph
    # Differences instead of matrix products, which would need float64 (and the marginals need every dimension anyway).
    log_densities = log_density(z[:, None], mean[None], log_var[None])  # (L, M, K): code i under posterior j
    log_weight = math.log((dataset_size - 1) / (dataset_size * (batch_size - 1)))
    log_weights = log_densities.new_full((codes, batch_size), log_weight)
    log_weights[:, first : first + codes].fill_diagonal_(-math.log(dataset_size))
    joint = torch.logsumexp(log_densities.sum(2) + log_weights, dim=1)
    marginals = torch.logsumexp(log_densities + log_weights[:, :, None], dim=1)
    return (joint - marginals.sum(1)).mean()
