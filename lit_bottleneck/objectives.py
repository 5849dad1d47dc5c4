"""What a VAE minimises: the ELBO with a priced rate, the importance-weighted bound, or a price on total correlation.

An objective sees what one batch came to (`CodedBatch`) and returns the terms of the loss. It knows no model.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lit_bottleneck.checks import not_negative, whole_number
from lit_bottleneck.code import Code
from lit_bottleneck.functional import log_density, log_ratio
from lit_bottleneck.hparams import Described, from_description
from lit_bottleneck.training.distributed import gather_rows


@dataclass(frozen=True, eq=False, slots=True)
class CodedBatch:
    """A training batch, coded and read.

    Attributes:
        code: of B examples.
        draws: ``(S, B, K)``, as many codes of every example as the objective asks for.
        distortion: ``(S, B)``, ``-log q(x|z)`` of every draw, in nats.
        rate_penalty: what the controller of beta asks for the rate, a scalar.
        beta: the current price of a nat.
        dataset_size: number of training examples, where it is known.
    """

    code: Code
    draws: Tensor
    distortion: Tensor
    rate_penalty: Tensor
    beta: float
    dataset_size: int | None = None


class Objective(Described, ABC):
    """Base of the objectives.

    Attributes:
        num_samples: codes per example that it needs.
        needs_noise: whether it has no meaning for a deterministic code.
        needs_linear_price: whether it uses beta itself and not the penalty that the controller makes of it.
    """

    num_samples: int = 1
    needs_noise: bool = False
    needs_linear_price: bool = False

    @abstractmethod
    def __call__(self, batch: CodedBatch) -> dict[str, Tensor]:
        """The terms of the loss by name, scalars."""


class ELBO(Objective):
    """``D + beta R``: the negative evidence lower bound at ``beta = 1`` (arXiv 1312.6114), beta-VAE else."""

    def __call__(self, batch: CodedBatch) -> dict[str, Tensor]:
        """Distortion, and the price of the rate."""
        return {"distortion": batch.distortion.mean(), "rate_penalty": batch.rate_penalty}


class IWAE(Objective):
    """``-log 1/k sum_k q(x|z_k) (q(z_k) / p(z_k|x))^beta``: the importance-weighted bound (arXiv 1509.00519).

    At ``beta = 1`` a lower bound of ``log q(x)`` that becomes tighter with every sample.

    Args:
        num_samples: draws per example, k.

    Raises:
        ValueError: if ``num_samples`` is less than 1.
    """

    needs_noise = True
    needs_linear_price = True

    def __init__(self, num_samples: int) -> None:
        self.num_samples = whole_number("num_samples", num_samples, at_least=1)

    def __call__(self, batch: CodedBatch) -> dict[str, Tensor]:
        """The negative bound."""
        ratio = log_ratio(batch.draws, batch.code.mean, batch.code.log_var)
        log_weights = -batch.distortion - batch.beta * ratio
        return {"negative_iwae": (math.log(self.num_samples) - log_weights.logsumexp(0)).mean()}


class BetaTC(Objective):
    """``D + beta R + gamma TC``: an extra price on the total correlation of the code (beta-TCVAE, arXiv 1802.04942).

    What the paper calls beta, the whole price of a nat of total correlation, is ``beta + gamma`` here, and its alpha
    and gamma are both our beta. The total correlation of the aggregate code is estimated by `total_correlation` from
    the batches of all processes together; accumulated batches are estimated from one by one.

    Args:
        gamma: the extra price of a nat of total correlation.
        dataset_size: number of training examples. Default: that of the training set.

    Raises:
        ValueError: for a gamma that is negative or not finite, or a ``dataset_size`` below 1.
    """

    needs_noise = True

    def __init__(self, gamma: float, dataset_size: int | None = None) -> None:
        self.gamma = not_negative("gamma", gamma)
        self.dataset_size = None if dataset_size is None else whole_number("dataset_size", dataset_size, at_least=1)

    def __call__(self, batch: CodedBatch) -> dict[str, Tensor]:
        """Distortion, the price of the rate, and the extra price of total correlation."""
        dataset_size = self.dataset_size or batch.dataset_size
        if dataset_size is None:
            raise ValueError(
                "BetaTC needs the number of training examples, and the data set does not tell it: BetaTC(gamma, "
                "dataset_size=...)"
            )
        posteriors, first = gather_rows(torch.stack([batch.code.mean, batch.code.log_var], dim=1))
        mean, log_var = posteriors.unbind(1)
        correlation = total_correlation(batch.draws[0], mean, log_var, dataset_size, first)
        return {
            "distortion": batch.distortion.mean(),
            "rate_penalty": batch.rate_penalty,
            "total_correlation_penalty": self.gamma * correlation,
        }


def objective_from(objective: Objective | Mapping[str, Any]) -> Objective:
    """Take an objective, or the description of one, as checkpoints keep it.

    Raises:
        ValueError: for a description of a class that is not an `Objective` imported by now.
        TypeError: for anything else.
    """
    if isinstance(objective, Mapping):
        return from_description(Objective, "objective", objective)  # type: ignore[type-abstract]
    if not isinstance(objective, Objective):
        raise TypeError(f"objective must be an Objective, such as ELBO(); got {objective!r}")
    return objective


def total_correlation(z: Tensor, mean: Tensor, log_var: Tensor, dataset_size: int, first: int = 0) -> Tensor:
    """Total correlation ``E[log p(z) - sum_j log p(z_j)]`` of the aggregate code, from a batch, in nats.

    The densities of the mixture over all N examples are estimated from the M of the batch by minibatch-stratified
    sampling (arXiv 1802.04942): the example's own posterior has the weight ``1 / N``, each of the others
    ``(N - 1) / (N (M - 1))``, which makes the estimate of ``p(z)`` unbiased.

    Args:
        z: ``(L, K)``, one code of each of L of the examples, L at most M.
        mean: ``(M, K)``.
        log_var: ``(M, K)``.
        dataset_size: N.
        first: which of the M examples the first code is of.

    Returns:
        A scalar. 0 for a collapsed encoder, and for a single example, which tells nothing.

    Raises:
        ValueError: for a batch that is larger than the data set.
    """
    codes, batch_size = len(z), len(mean)
    if batch_size > dataset_size:
        raise ValueError(f"dataset_size={dataset_size} is less than the {batch_size} examples of the batch")
    if batch_size < 2:
        return mean.sum() * 0  # keeps the graph
    # Differences, not matrix products: these would need float64 (and the marginals need every dimension anyway).
    log_densities = log_density(z[:, None], mean[None], log_var[None])  # (L, M, K): code i under posterior j
    log_weights = log_densities.new_full(
        (codes, batch_size), math.log((dataset_size - 1) / (dataset_size * (batch_size - 1)))
    )
    log_weights[:, first : first + codes].fill_diagonal_(-math.log(dataset_size))
    joint = torch.logsumexp(log_densities.sum(2) + log_weights, dim=1)
    marginals = torch.logsumexp(log_densities + log_weights[:, :, None], dim=1)
    return (joint - marginals.sum(1)).mean()
