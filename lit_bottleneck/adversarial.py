"""What generator and discriminator play for: losses of logits, and penalties on the discriminator's gradient."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_bottleneck.checks import one_of, positive
from lit_bottleneck.functional import at_least_float32
from lit_bottleneck.hparams import Described, from_description

LossName = Literal["non_saturating", "hinge", "wasserstein"]


class AdversarialLoss(NamedTuple):
    """Three functions of logits ``(B,)``, each to one number per logit."""

    real: Callable[[Tensor], Tensor]
    """The discriminator's, of real examples."""
    generated: Callable[[Tensor], Tensor]
    """The discriminator's, of generated examples."""
    generator: Callable[[Tensor], Tensor]
    """The generator's, of generated examples."""


_LOSSES: dict[LossName, AdversarialLoss] = {
    # cross-entropy in nats; the generator's -log D(z), arXiv 1406.2661
    "non_saturating": AdversarialLoss(lambda x: F.softplus(-x), F.softplus, lambda x: F.softplus(-x)),
    "hinge": AdversarialLoss(lambda x: F.relu(1 - x), lambda x: F.relu(1 + x), torch.neg),  # arXiv 1705.02894
    "wasserstein": AdversarialLoss(torch.neg, lambda x: x, torch.neg),  # arXiv 1701.07875
}


def adversarial_loss(name: LossName) -> AdversarialLoss:
    """The loss of that name.

    >>> adversarial_loss("hinge").real(torch.tensor([-1.0, 0.5, 3.0])).tolist()
    [2.0, 0.5, 0.0]
    """
    return _LOSSES[one_of("loss", name, tuple(_LOSSES))]


class GradientPenalty(Described, ABC):
    """Base of penalties on the gradient of the discriminator's logit by its input, one example at a time.

    It has no meaning for a discriminator in which examples see one another (batch normalisation).

    Args:
        weight: of the penalty in the discriminator's loss, positive.

    Raises:
        ValueError: for a weight that is not positive and finite.
    """

    def __init__(self, weight: float = 10.0) -> None:
        self.weight = positive("weight of gradient_penalty", weight)

    @abstractmethod
    def points(self, real: Tensor, generated: Tensor) -> Tensor:
        """Where the gradient is looked at, ``(B, ...)``; ``real`` itself costs no further pass."""

    @abstractmethod
    def forward(self, gradient: Tensor) -> Tensor:
        """The penalty, a scalar, for gradients ``(B, D)``."""


class R1(GradientPenalty):
    """``weight * E_real |gradient|^2``: centred at zero, on real examples (arXiv 1801.04406).

    There the weight is called gamma / 2.

    >>> R1(weight=10.0).forward(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).item()
    125.0
    """

    def points(self, real: Tensor, generated: Tensor) -> Tensor:
        """Real examples."""
        return real

    def forward(self, gradient: Tensor) -> Tensor:
        """Mean squared norm, times the weight."""
        return self.weight * gradient.square().sum(1).mean()


class WGANGP(GradientPenalty):
    """``weight * E (|gradient| - 1)^2`` at random points between real and generated examples (arXiv 1704.00028).

    >>> WGANGP(weight=10.0).forward(torch.tensor([[3.0, 4.0], [0.0, 1.0]])).item()
    80.0
    """

    def points(self, real: Tensor, generated: Tensor) -> Tensor:
        """One point on the line between each real and a generated example, uniformly drawn."""
        pairs = min(len(real), len(generated))
        share = torch.rand(pairs, *[1] * (real.dim() - 1), dtype=real.dtype, device=real.device)
        between = torch.lerp(real[:pairs], generated[:pairs].to(real.dtype), share)
        return between.detach().requires_grad_()

    def forward(self, gradient: Tensor) -> Tensor:
        """Mean squared distance of the norm from 1, times the weight."""
        norm: Tensor = torch.linalg.vector_norm(gradient, dim=1)
        return self.weight * (norm - 1).square().mean()


def penalty_from(penalty: float | GradientPenalty | Mapping[str, Any] | None) -> GradientPenalty | None:
    """Make a penalty of what a model takes as ``gradient_penalty``: a number is the weight of `R1`, 0 is none.

    Raises:
        ValueError: for a negative number, or a description of a class that is not a `GradientPenalty`.
        TypeError: for anything else.
    """
    if penalty is None or isinstance(penalty, GradientPenalty):
        return penalty
    if isinstance(penalty, Mapping):
        return from_description(GradientPenalty, "gradient_penalty", penalty)  # type: ignore[type-abstract]
    if isinstance(penalty, bool) or not isinstance(penalty, Real):
        raise TypeError(f"gradient_penalty must be a number, a GradientPenalty or None; got {penalty!r}")
    return R1(float(penalty)) if penalty else None


def input_gradient(logits: Tensor, x: Tensor, differentiable: bool) -> Tensor:
    """Gradient of each logit by its own input.

    Args:
        logits: ``(B,)``, each of which depends on its own row of ``x`` alone.
        x: ``(B, ...)``, what the logits were computed from.
        differentiable: keep the graph, so that the gradient itself can be differentiated.

    Returns:
        ``(B, D)``, at least float32.
    """
    [gradient] = torch.autograd.grad(logits.sum(), x, create_graph=differentiable, retain_graph=True)
    return at_least_float32(gradient.flatten(1))
