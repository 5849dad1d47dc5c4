"""The GAN with a variational discriminator bottleneck."""

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from lit_bottleneck.adversarial import GradientPenalty, LossName, adversarial_loss, penalty_from
from lit_bottleneck.beta import BetaController, DualBeta
from lit_bottleneck.checks import one_of, whole_number
from lit_bottleneck.functional import InterpolationMode, interpolate
from lit_bottleneck.models import gan_checks
from lit_bottleneck.models.alternating import AlternatingModule
from lit_bottleneck.models.export_parts import ExportPart, mean_code
from lit_bottleneck.models.training_checks import refuse_one_example
from lit_bottleneck.networks.layers import add_spectral_norm
from lit_bottleneck.training.distributed import rank_and_world_size
from lit_bottleneck.training.evaluating import evaluating

_PAPER_CAPACITY = 0.1  # nats, of the paper's CIFAR-10


class VDBGAN(AlternatingModule):
    """GAN whose discriminator reads "real or generated" from a Gaussian code (VDB, arXiv 1810.00821).

    The discriminator is an encoder to a code and a head on it. It minimises ``E_real[loss(z)] + E_generated[loss(z)] +
    beta * R``, where the rate ``R`` is the mean of the rates of real and of generated examples; beta moves once per
    discriminator step. From ``beta = 2`` on the collapsed code (rate 0) is optimal for the cross-entropy. The generator
    plays against the logit at the mean code, at no price. ``deterministic=True`` is the plain GAN of the same networks.

    Logged as ``train/...``: ``loss`` (the discriminator's), ``real_loss``, ``generated_loss``, ``gradient_penalty``,
    ``generator_loss``; ``rate``, ``rate_real``, ``rate_generated`` (nats), ``beta``, ``accuracy`` (at the mean code,
    against a logit of 0), ``accuracy_sampled`` (at a draw), ``gradient_norm`` (of the logit, at real examples);
    ``discriminator_steps`` and ``generator_steps``. As ``val/...`` and ``test/...``, against samples of the averaged
    generator: ``loss``, the rates and the accuracies.

    Both networks train alternately, see ``AlternatingModule``: clipping and accumulation are arguments of the model,
    not of the trainer, which counts the steps of both optimizers. Several processes need the strategy
    ``ddp_find_unused_parameters_true``.

    Args:
        generator: any module from noise ``(B, noise_dim)`` to examples.
        encoder: any module from examples to ``(B, 2 * latent_dim)``, or ``(B, 2 * latent_dim, h, w)`` for a code of
            each position: means and raw scales.
        latent_dim: width K of the code (channels of a spatial one).
        noise_dim: width of the standard normal noise.
        head: any module from codes to one logit per example. Default: one linear layer on the flattened code.
        beta: price of a nat: a number, or a ``BetaController``. Default: the paper's, ``DualBeta.paper(capacity=0.1)``.
        loss: ``"non_saturating"`` (cross-entropy), ``"hinge"`` or ``"wasserstein"``.
        gradient_penalty: of the discriminator: the weight of ``adversarial.R1`` (zero-centred, on real examples,
            through the sampled code), or a ``adversarial.GradientPenalty``. Default: none.
        discriminator_steps: per generator step, each on a batch of its own.
        generator_sees: the logit at the ``"mean"`` code (the paper) or at a ``"sample"`` of it (its authors' code).
        generator_ema: decay of the moving average of the generator's weights, with which it is used and evaluated.
        rate_per: whether the rate, and so the capacity, counts an ``"image"`` or a ``"position"`` of a spatial code
            (the authors' code: a capacity of .1 on 4 x 4 positions is 1.6 nats an image).
        spectral_norm: put a spectral norm on the linear and convolutional layers of encoder and head, in place, see
            ``networks.add_spectral_norm``.
        **kwargs: those of ``AlternatingModule`` (``discriminator_optimizer``, ``gradient_clip_val``,
            ``gradient_clip_algorithm``, ``accumulate_grad_batches``) and of ``BottleneckModule`` (``optimizer``,
            ``lr_scheduler``, ``lr_scheduler_interval``, ``deterministic``, ``scale``, ``batch_keys``).

    Raises:
        ConfigurationError: for sizes out of range or unknown names. For networks that do not fit each other, the noise,
            the code or the data: at construction where they have widths, else in ``setup`` (where the datamodule has
            ``dims`` and ``value_range``) or at the first batch. In ``setup``: for a trainer that clips or accumulates
            itself, strategies that cannot train two networks, and a compiled encoder or head with a gradient penalty
            or a spectral norm.
        FloatingPointError: when a loss is not finite, with the network's name, before its step.

    >>> from lit_bottleneck.networks import MLP, MLPDecoder
    >>> gan = VDBGAN(MLPDecoder(4, [32], dims=[2]), MLP(2, [32], 2 * 8), latent_dim=8, noise_dim=4)
    >>> gan.sample(5).shape, gan.discriminate(gan.sample(5)).shape
    (torch.Size([5, 2]), torch.Size([5]))
    """

    mean_names = ("loss", "rate", "rate_real", "rate_generated", "accuracy", "accuracy_sampled")

    def __init__(
        self,
        generator: nn.Module,
        encoder: nn.Module,
        latent_dim: int,
        noise_dim: int,
        head: nn.Module | None = None,
        beta: float | BetaController | None = None,
        loss: LossName = "non_saturating",
        gradient_penalty: float | GradientPenalty | None = None,
        discriminator_steps: int = 1,
        generator_sees: Literal["mean", "sample"] = "mean",
        generator_ema: float = 0.999,
        *,
        rate_per: Literal["image", "position"] = "image",
        spectral_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            generator=generator,
            encoder=encoder,
            latent_dim=latent_dim,
            beta=DualBeta.paper(_PAPER_CAPACITY) if beta is None else beta,
            discriminator_steps=discriminator_steps,
            generator_ema=generator_ema,
            **kwargs,
        )
        self.noise_dim = whole_number("noise_dim", noise_dim, at_least=1)
        gan_checks.check_noise(self.noise_dim, generator)
        self.head = self.default_head() if head is None else head
        gan_checks.check_head(self.head)
        self.loss = adversarial_loss(loss)
        self.gradient_penalty = penalty_from(gradient_penalty)
        self.generator_sees = one_of("generator_sees", generator_sees, ("mean", "sample"))
        self.rate_per = one_of("rate_per", rate_per, ("image", "position"))
        self.spectral_norm = spectral_norm
        if spectral_norm:
            add_spectral_norm(self.encoder, self.head)
        self._example_dims: tuple[int, ...] | None = None
        self._range_is_checked = False

    def forward(self, noise: Tensor) -> Tensor:
        """Generate with the current weights: noise ``(B, noise_dim)`` to examples ``(B, ...)``."""
        return cast(Tensor, self.generator(noise))

    def draw_noise(self, n: int) -> Tensor:
        """Draw ``n`` rows of standard normal noise, ``(n, noise_dim)``, different ones on every process."""
        # Processes with the same seed draw the same: each takes its part of what one process would have drawn.
        rank, processes = rank_and_world_size()
        noise = torch.randn(processes * n, self.noise_dim, device=self.device)
        return noise[rank * n : (rank + 1) * n].to(self.dtype)

    def sample(self, n: int) -> Tensor:
        """Generate ``n`` examples with the averaged generator, ``(n, ...)``.

        Raises:
            ValueError: if ``n`` is less than 1.
        """
        return self._generated(self.draw_noise(whole_number("n", n, at_least=1)))

    def interpolate(
        self, noise1: Tensor, noise2: Tensor, steps: int, mode: InterpolationMode = "variance_preserving"
    ) -> Tensor:
        """Generate with the averaged generator from the noise between two batches of it.

        Args:
            noise1: ``(B, noise_dim)``, where the paths begin, such as ``draw_noise(B)``.
            noise2: ``(B, noise_dim)``, where they end.
            steps: points on each path, both ends included.
            mode: see ``functional.interpolate``.

        Returns:
            ``(steps, B, ...)``.

        Raises:
            ValueError: for noise of different shapes or another width, fewer than two steps, or an unknown mode.
        """
        whole_number("steps", steps, at_least=2)
        noise1, noise2 = (gan_checks.noise_from(z, self.noise_dim).to(self.device) for z in (noise1, noise2))
        at = torch.linspace(0, 1, steps, device=noise1.device)
        path = torch.stack([interpolate(noise1, noise2, t, mode) for t in at])
        return cast(Tensor, self._generated(path.flatten(0, 1)).unflatten(0, path.shape[:2]))

    @property
    def value_range(self) -> tuple[float, float] | None:
        """The range of the generated values, if it is known."""
        return gan_checks.output_range(self.generator)

    def training_examples(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return the real examples of a batch, and as many generated ones."""
        real = self._real(batch)
        refuse_one_example(self, len(real))
        if not self._range_is_checked:
            gan_checks.check_values(self.value_range, real)
            self._range_is_checked = True
        return real, self.generator(self.draw_noise(len(real)))

    def generator_loss(self, n: int) -> Tensor:
        """Return the loss of the generator on ``n`` draws of noise."""
        code = self.encode(self.generator(self.draw_noise(n)), sample=self.generator_sees == "sample")
        return self.training_loss("generator", generator_loss=self.loss.generator(self.logits(code.z)).mean())

    def setup(self, stage: str) -> None:
        """Dry-run the networks, and compare them with ``dims`` and ``value_range`` of the datamodule."""
        super().setup(stage)
        if stage == "fit":
            self.check_compilable()
        self._range_is_checked = False
        with torch.no_grad(), evaluating(self):
            data = getattr(self.trainer, "datamodule", None)
            self._example_dims = gan_checks.check_networks(self, data)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Take a batch into the metrics."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Take a batch into the metrics."""
        self._evaluate(batch, "test")

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Return ``logit (B,)`` at the mean code, ``rate (B,)``, the flattened ``mean``, and ``label`` if given."""
        code = self.encode(self._real(batch), sample=False)
        prediction = {"logit": self.logits(code.z), "rate": self.rate(code), "mean": code.mean.flatten(1)}
        return self.with_label(prediction, batch)

    def export_parts(self) -> dict[str, ExportPart]:
        """Return ``code`` (the mean), ``logits`` (at the mean code) and ``generator`` (the averaged one)."""

        def draw_noise(n: int, generator: torch.Generator) -> Tensor:
            return torch.randn(n, self.noise_dim, generator=generator).to(self.device).to(self.dtype)

        def draw_examples(n: int, generator: torch.Generator) -> Tensor:
            return self._generated(draw_noise(n, generator))

        def generate(model: VDBGAN, noise: Tensor) -> Tensor:
            return cast(Tensor, model.averaged_generator(noise)).to(model.dtype)

        of_examples = ("generator", "averaged_generator", "metrics")
        return {
            "code": ExportPart(mean_code, (*of_examples, "head"), draw=draw_examples),
            "logits": ExportPart(type(self).discriminate, of_examples, draw=draw_examples),
            "generator": ExportPart(generate, ("generator", "encoder", "head", "metrics"), "noise", draw_noise),
        }

    @torch.no_grad()
    def _generated(self, noise: Tensor) -> Tensor:
        with evaluating(self.averaged_generator):
            return cast(Tensor, self.averaged_generator(noise)).to(self.dtype)

    def _real(self, batch: Any) -> Tensor:
        """Return the real examples of a batch, as the encoder takes them."""
        real = self.encoder_inputs(self.inputs(batch))
        gan_checks.check_examples(real, self._example_dims)
        return real

    def _evaluate(self, batch: Any, stage: str) -> None:
        real = self._real(batch)
        self.measure_halves(stage, real, self.sample(len(real)))
