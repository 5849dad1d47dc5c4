"""GAN losses of logits, and penalties on the discriminator's gradient."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_bottleneck.checks import ConfigurationError, is_number, one_of, positive
from lit_bottleneck.functional import at_least_float32
from lit_bottleneck.hparams import RecordsArguments, from_config

LossName = Literal["non_saturating", "hinge", "wasserstein"]


class AdversarialLoss(NamedTuple):
    """Losses of generator and discriminator, each a function of logits ``(B,)`` with one value per logit.

    Attributes:
        real: the discriminator's loss of real examples.
        generated: the discriminator's loss of generated examples.
        generator: the generator's loss.
    """

    real: Callable[[Tensor], Tensor]
    generated: Callable[[Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


_LOSSES: dict[LossName, AdversarialLoss] = {
    # cross-entropy in nats; the generator's -log D(z), arXiv 1406.2661
    "non_saturating": AdversarialLoss(lambda x: F.softplus(-x), F.softplus, lambda x: F.softplus(-x)),
    "hinge": AdversarialLoss(lambda x: F.relu(1 - x), lambda x: F.relu(1 + x), torch.neg),  # arXiv 1705.02894
    "wasserstein": AdversarialLoss(torch.neg, lambda x: x, torch.neg),  # arXiv 1701.07875
}


def adversarial_loss(name: LossName) -> AdversarialLoss:
    """Return the loss of that name.

    >>> adversarial_loss("hinge").real(torch.tensor([-1.0, 0.5, 3.0])).tolist()
    [2.0, 0.5, 0.0]
    """
    return _LOSSES[one_of("loss", name, tuple(_LOSSES))]


class GradientPenalty(RecordsArguments, ABC):
    """Base of penalties on the gradient of the discriminator's logit with respect to its input, per example.

    Undefined for a discriminator whose logits depend on other examples (batch normalisation).

    Args:
        weight: weight of the penalty in the discriminator's loss, positive.

    Raises:
        ConfigurationError: for a weight that is not positive and finite.
    """

    def __init__(self, weight: float = 10.0) -> None:
        self.weight = positive("weight of gradient_penalty", weight)

    def points(self, real: Tensor, generated: Tensor) -> Tensor:
        """Return the points ``(B, ...)`` where the gradient is taken: by default ``real``, at no further pass."""
        return real

    @abstractmethod
    def forward(self, gradient: Tensor) -> Tensor:
        """Return the penalty, a scalar, for gradients ``(B, D)``."""


class R1(GradientPenalty):
    """Zero-centred penalty on real examples, ``weight * E_real |gradient|^2`` (arXiv 1801.04406).

    The paper writes the weight as gamma / 2.

    >>> R1(weight=10.0).forward(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).item()
    125.0
    """

    def forward(self, gradient: Tensor) -> Tensor:
        """Return the mean squared norm, times the weight."""
        return self.weight * gradient.square().sum(1).mean()


class WGANGP(GradientPenalty):
    """Penalty ``weight * E (|gradient| - 1)^2`` at points between real and generated examples (arXiv 1704.00028).

    >>> WGANGP(weight=10.0).forward(torch.tensor([[3.0, 4.0], [0.0, 1.0]])).item()
    80.0
    """

    def points(self, real: Tensor, generated: Tensor) -> Tensor:
        """Draw one point uniformly on the line between each real and a generated example."""
        pairs = min(len(real), len(generated))
        share = torch.rand(pairs, *[1] * (real.dim() - 1), dtype=real.dtype, device=real.device)
        between = torch.lerp(real[:pairs], generated[:pairs].to(real.dtype), share)
        return between.detach().requires_grad_()

    def forward(self, gradient: Tensor) -> Tensor:
        """Return the mean squared distance of the norm from 1, times the weight."""
        norm: Tensor = torch.linalg.vector_norm(gradient, dim=1)
        return self.weight * (norm - 1).square().mean()


def penalty_from(penalty: float | GradientPenalty | Mapping[str, Any] | None) -> GradientPenalty | None:
    """Build the penalty from a model's ``gradient_penalty``: a number is the weight of ``R1``, 0 means no penalty.

    Raises:
        ConfigurationError: for a negative number, and for anything else.
        ValueError: for the description of a class that is not an imported ``GradientPenalty``.
    """
    if isinstance(penalty, (GradientPenalty, Mapping)):
        return from_config(GradientPenalty, "gradient_penalty", penalty)  # type: ignore[type-abstract]
    if penalty is not None and not is_number(penalty):
        raise ConfigurationError(f"gradient_penalty must be a number, a GradientPenalty or None; got {penalty!r}")
    return R1(float(penalty)) if penalty else None


def input_gradient(logits: Tensor, x: Tensor, differentiable: bool) -> Tensor:
    """Return the gradient of each logit with respect to its own input.

    Args:
        logits: ``(B,)``; each depends on its own row of ``x`` alone.
        x: ``(B, ...)``, the input that the logits were computed from.
        differentiable: whether to keep the graph, so that the gradient itself can be differentiated.

    Returns:
        ``(B, D)``, at least float32.
    """
    [gradient] = torch.autograd.grad(logits.sum(), x, create_graph=differentiable, retain_graph=True)
    return at_least_float32(gradient.flatten(1))
