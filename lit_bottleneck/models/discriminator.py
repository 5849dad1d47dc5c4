"""A discriminator that reads "real or generated" from a Gaussian code."""

from collections.abc import Collection
from contextlib import nullcontext
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm

from lit_bottleneck.adversarial import AdversarialLoss, GradientPenalty, input_gradient
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.code import Code
from lit_bottleneck.functional import at_least_float32
from lit_bottleneck.models.base import BottleneckModule
from lit_bottleneck.training.compilation import is_compiled, run_as_written
from lit_bottleneck.training.evaluating import evaluating

Offsets = tuple[Tensor | float, Tensor | float]
_NO_OFFSETS: Offsets = (0.0, 0.0)


class BottleneckDiscriminator(BottleneckModule):
    """Base of models with a discriminator: an encoder to a code, and a head from the code to a logit.

    Attributes:
        halves: names of the two kinds of examples, the one with the positive logit first.
        head: any module from codes to one logit per example.
        loss: see ``adversarial.adversarial_loss``.
        gradient_penalty: on the gradient of the logit, or None.
        rate_per: whether the rate counts an ``"image"`` or a ``"position"`` of a spatial code.
    """

    halves: ClassVar[tuple[str, str]] = ("real", "generated")
    head: nn.Module
    loss: AdversarialLoss
    gradient_penalty: GradientPenalty | None
    rate_per: str

    @property
    def discriminator(self) -> list[nn.Module]:
        """Encoder and head."""
        return [self.encoder, self.head]

    def discriminate(self, x: Tensor) -> Tensor:
        """Return the logits at the mean code, ``(B,)``: positive for what looks real."""
        return self.logits(self.encode(x, sample=False).z)

    def discriminator_loss(self, real: Tensor, generated: Tensor, offsets: Offsets = _NO_OFFSETS) -> Tensor:
        """Return the loss of the discriminator: both halves, the price of the rate, and the gradient penalty.

        Args:
            real: ``(B, ...)``.
            generated: ``(M, ...)``, without a graph; ``CapacityBeta(reduction="sample")`` needs ``M = B``.
            offsets: what is added to the logits of both halves, numbers or ``(B,)`` and ``(M,)``; the gradient penalty
                takes it for constant.
        """
        look_at_gradient = self.gradient_penalty is not None or self.logs_this_step
        real = real.detach().requires_grad_(look_at_gradient)
        with run_as_written(*self.discriminator) if look_at_gradient else nullcontext():
            code = self.encode(real)
            logit = self.logits(code.z) + offsets[0]
        codes = code, self.encode(generated)
        logits = logit, self.logits(codes[1].z) + offsets[1]
        rates = self.rate(codes[0]), self.rate(codes[1])
        losses = self.loss.real(logits[0]).mean(), self.loss.generated(logits[1]).mean()
        terms = {f"{half}_loss": loss for half, loss in zip(self.halves, losses, strict=True)}
        terms["rate_penalty"] = self.rate_penalty(mixture(*rates), distortion=losses[0] + losses[1])
        if self.gradient_penalty is not None:
            points = self.gradient_penalty.points(real, generated)
            at_points = logits[0] if points is real else self.logits(self.encode(points).z)
            terms["gradient_penalty"] = self.gradient_penalty.forward(input_gradient(at_points, points, True))
        if self.logs_this_step:
            gradient = input_gradient(logits[0], real, False)
            self.log("train/gradient_norm", torch.linalg.vector_norm(gradient, dim=1).mean())
            known = self.knowledge(codes, rates, logits, offsets)
            self.log_dict({f"train/{name}": value for name, value in known.items()})
        return self.training_loss("discriminator", **terms)

    def measure_halves(self, stage: str, real: Tensor, generated: Tensor, offsets: Offsets = _NO_OFFSETS) -> None:
        """Take a batch of a split into the metrics, at sampled codes; arguments as for ``discriminator_loss``."""
        codes = self.encode(real, sample=True), self.encode(generated, sample=True)
        logits = self.logits(codes[0].z) + offsets[0], self.logits(codes[1].z) + offsets[1]
        rates = self.rate(codes[0]), self.rate(codes[1])
        losses = self.loss.real(logits[0]).mean() + self.loss.generated(logits[1]).mean()
        joined = mixture(*rates)
        measured = {"loss": losses + self.rate_penalty(joined), "rate": joined.mean()}
        measured |= self.knowledge(codes, rates, logits, offsets)
        self.measure(stage, len(real), **measured)

    def check_compilable(self, names: Collection[str] = ()) -> None:
        """Refuse encoder or head if they are compiled (or in ``names``, to be compiled) and cannot be.

        Raises:
            ConfigurationError: with a gradient penalty or a spectral norm.
        """
        whole = self._compiler_ctx is not None  # trainer.fit(torch.compile(model)); Lightning has no public name for it
        networks = {"encoder": self.encoder, "head": self.head}
        compiled = [name for name, network in networks.items() if whole or name in names or is_compiled(network)]
        what = "the whole model" if whole else " and ".join(compiled)
        leave = f"do not compile {what} (the callback Compile: networks=['generator'])"
        if compiled and self.gradient_penalty is not None:
            penalty = f"gradient_penalty={type(self.gradient_penalty).__name__}"
            needs = f"{penalty} needs the gradient of a gradient, which compilation lacks"
            raise ConfigurationError(f"{needs}: {leave}, or set gradient_penalty=None")
        if any(isinstance(part, _SpectralNorm) for name in compiled for part in networks[name].modules()):
            changes = "a spectral norm changes its state in each pass, after which a compiled network has no gradient"
            raise ConfigurationError(f"{changes}: {leave}, or set spectral_norm=False")

    def default_head(self) -> nn.Module:
        """Return one linear layer on the flattened code."""
        positions = torch.Size(getattr(self.encoder, "out_dims", ())[1:]).numel()
        return nn.Sequential(nn.Flatten(), nn.Linear(self.latent_dim * positions, 1))

    def logits(self, z: Tensor) -> Tensor:
        """Return the head's logits of codes, ``(B,)``, at least float32."""
        logits: Tensor = self.head(z)
        if logits.numel() != len(z):
            raise ConfigurationError(f"head must return one logit per example; got {tuple(logits.shape)} for {len(z)}")
        return at_least_float32(logits.reshape(-1))

    def rate(self, code: Code) -> Tensor:
        """Return nats per image or per position, ``(B,)``."""
        positions = code.mean.shape[2:].numel() if self.rate_per == "position" else 1
        return code.rate / positions

    @torch.no_grad()
    def knowledge(
        self,
        codes: tuple[Code, Code],
        rates: tuple[Tensor, Tensor],
        logits: tuple[Tensor, Tensor],
        offsets: Offsets = _NO_OFFSETS,
    ) -> dict[str, Tensor]:
        """Return rates and accuracies, from codes, rates and sampled logits of both halves."""
        with evaluating(self.head):
            at_mean = [self.logits(code.mean.to(code.z.dtype)) for code in codes]
        return {
            **{f"rate_{half}": rate.mean() for half, rate in zip(self.halves, rates, strict=True)},
            "accuracy": _accuracy(at_mean[0] + offsets[0], at_mean[1] + offsets[1]),
            "accuracy_sampled": _accuracy(*logits),
        }


def mixture(real: Tensor, generated: Tensor) -> Tensor:
    """Join rates ``(B,)`` and ``(M,)`` to ``(B + M,)``, weighted so that their mean is the mean of both means."""
    total = len(real) + len(generated)
    return torch.cat([real * (total / (2 * len(real))), generated * (total / (2 * len(generated)))])


def _accuracy(real_logits: Tensor, generated_logits: Tensor) -> Tensor:
    return ((real_logits > 0).float().mean() + (generated_logits <= 0).float().mean()) / 2
