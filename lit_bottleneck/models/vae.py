"""The variational autoencoder."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from lit_bottleneck.beta import BetaController
from lit_bottleneck.checks import not_negative, whole_number
from lit_bottleneck.code import Code
from lit_bottleneck.functional import InterpolationMode, free_bits_rate, interpolate, log_ratio
from lit_bottleneck.likelihoods import Likelihood, likelihood_from
from lit_bottleneck.models import setup_checks
from lit_bottleneck.models.base import BottleneckModule
from lit_bottleneck.models.export_parts import ExportPart, call, mean_code
from lit_bottleneck.models.terms import check_terms
from lit_bottleneck.objectives import ELBO, CodedBatch, Objective, objective_from
from lit_bottleneck.training.distributed import mean_over_processes
from lit_bottleneck.training.evaluating import evaluating

_NUMBERS_AT_ONCE = 2**23  # of the decoder's output, when an example is decoded from many codes


class VAE(BottleneckModule):
    """Variational autoencoder: a model of the density of ``x`` by a Gaussian code (arXiv 1312.6114).

    ``loss = -log q(x|z) + beta * KL(p(z|x) || N(0, I))``, with one draw of ``z`` per example in training. Of a batch
    ``(x, y, ...)`` only ``x`` is used. Override ``extra_terms`` for further terms, such as those of a head on the code.

    Logged as ``train/...``, ``val/...`` and ``test/...``, in nats per example and unweighted: ``elbo``, ``distortion``
    and ``rate``. ``elbo = -(distortion + rate)`` is a lower bound of ``log q(x)`` whatever beta is, and chooses
    checkpoints. ``test/log_likelihood`` estimates ``log q(x)`` itself by importance sampling. (Of a deterministic model
    the rate is 0, and ``elbo`` is minus the distortion and no bound.)

    Args:
        encoder: any module from inputs to ``2 * latent_dim`` numbers per example: means and raw scales.
        decoder: any module from codes ``(B, latent_dim)`` to the parameters of the likelihood: the shape of ``x`` with
            its first dimension after the batch multiplied by ``likelihood.numbers_per_output``, or flat.
        latent_dim: width K of the code.
        likelihood: meaning of the decoder's output, by name or as a ``Likelihood``; there is no default.
        beta: price of a nat: a number, or a ``BetaController``.
        objective: ``ELBO`` (the default), ``IWAE`` or ``BetaTC``.
        free_bits: nats per dimension of the code that cost nothing, see ``functional.free_bits_rate``. They apply to
            the mean over the batches of all processes, and to each accumulated batch by itself.
        eval_samples: draws per example in validation and test.
        likelihood_samples: draws per example for the log-likelihood in test and predict; 0 leaves it out.
        **kwargs: ``optimizer``, ``lr_scheduler``, ``lr_scheduler_interval``, ``deterministic`` (the plain autoencoder),
            ``scale`` and ``batch_keys`` of ``BottleneckModule``.

    Raises:
        ConfigurationError: for sizes out of range, an unknown likelihood, an encoder that returns another number than
            ``2 * latent_dim``, or an objective that does not fit the price or a deterministic code. For a decoder that
            does not fit code, likelihood or data: at construction where it has ``latent_dim`` or
            ``numbers_per_output``, in ``setup`` where the datamodule has ``dims``, else at the first batch. At the
            first batch: for data outside the support of the likelihood.

    >>> from lit_bottleneck.networks import MLP
    >>> vae = VAE(MLP(64, [32], 2 * 8), MLP(8, [32], 64), latent_dim=8, likelihood="bernoulli")
    >>> vae(torch.zeros(5, 1, 8, 8)).shape, vae.sample(3).shape
    (torch.Size([5, 1, 8, 8]), torch.Size([3, 64]))
    """

    mean_names = ("loss", "elbo", "distortion", "rate", "log_likelihood")
    progress_bar_metric = "elbo"

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent_dim: int,
        likelihood: Likelihood | str,
        beta: float | BetaController = 1.0,
        objective: Objective | None = None,
        *,
        free_bits: float = 0.0,
        eval_samples: int = 1,
        likelihood_samples: int = 16,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoder=encoder, latent_dim=latent_dim, beta=beta, **kwargs)
        self.decoder = decoder
        self.likelihood = likelihood_from(likelihood)
        self.objective = ELBO() if objective is None else objective_from(objective)
        self.free_bits = not_negative("free_bits", free_bits)
        self.eval_samples = whole_number("eval_samples", eval_samples, at_least=1)
        self.likelihood_samples = whole_number("likelihood_samples", likelihood_samples, at_least=0)
        setup_checks.check_decoder(decoder, self.latent_dim, self.likelihood)
        self.objective.check(self.beta_controller, self.deterministic, self.free_bits)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct from the mean code: the means of the outputs, in the shape of ``x``."""
        return self.likelihood.mean(self._decoded(self.encode(x, sample=False).z, x.shape[1:]))

    def decode(self, z: Tensor) -> Tensor:
        """Return the means of the outputs for codes ``(B, K)``."""
        return self.likelihood.mean(self.decoder(z))

    def distortion(self, z: Tensor, x: Tensor) -> Tensor:
        """Return the reconstruction error ``-log q(x|z)``, in nats.

        Args:
            z: ``(B, K)``, or ``(S, B, K)``: several codes of every example.
            x: ``(B, ...)``.

        Returns:
            ``(B,)`` or ``(S, B)``.

        Raises:
            ConfigurationError: if the decoder's output does not fit ``x``.
        """
        if z.dim() == 3:
            copies = x.expand(len(z), *x.shape).flatten(0, 1)
            distortion: Tensor = self.distortion(z.flatten(0, 1), copies).unflatten(0, z.shape[:2])
            return distortion
        return -self.likelihood.log_prob(self._decoded(z, x.shape[1:]), x)

    @torch.no_grad()
    def sample(self, n: int, draw_outputs: bool = False) -> Tensor:
        """Decode ``n`` draws of the prior: ``(n, ...)``, the means of the outputs.

        Args:
            n: how many.
            draw_outputs: draw the outputs too, from the likelihood: then these are draws of the model's density.

        Raises:
            ValueError: if ``n`` is less than 1.
        """
        whole_number("n", n, at_least=1)
        with evaluating(self):
            z = torch.randn(n, self.latent_dim, device=self.device).to(self.dtype)
            parameters = self.decoder(z)
            return self.likelihood.sample(parameters) if draw_outputs else self.likelihood.mean(parameters)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """Code and decode a batch, as ``forward`` in evaluation mode and without a graph."""
        with evaluating(self):
            return cast(Tensor, self(x))

    @torch.no_grad()
    def interpolate(self, x1: Tensor, x2: Tensor, steps: int, mode: InterpolationMode = "linear") -> Tensor:
        """Decode the codes between those of two batches.

        Args:
            x1: ``(B, ...)``, where the paths begin.
            x2: ``(B, ...)``, where they end.
            steps: points on each path, both ends included.
            mode: see ``functional.interpolate``.

        Returns:
            ``(steps, B, ...)``: means of the outputs; the first and the last are the reconstructions of both batches.

        Raises:
            ValueError: for batches of different length, fewer than two steps, or an unknown mode.
        """
        whole_number("steps", steps, at_least=2)
        x1, x2 = self.encoder_inputs(x1), self.encoder_inputs(x2)
        if x1.shape != x2.shape:
            raise ValueError(f"x1 and x2 need the same shape; got {tuple(x1.shape)} and {tuple(x2.shape)}")
        with evaluating(self):
            with setup_checks.refusing("x1 and x2 must be batches (B, ...) of what the encoder takes", x1):
                first, last = self.encode(x1, sample=False).mean, self.encode(x2, sample=False).mean
            at = torch.linspace(0, 1, steps, device=first.device, dtype=first.dtype)
            path = torch.stack([interpolate(first, last, t, mode) for t in at]).to(self.weights_dtype)
            parameters = self._decoded(path.flatten(0, 1), x1.shape[1:])
            return self.likelihood.mean(parameters).reshape(steps, *x1.shape)

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, num_samples: int) -> Tensor:
        """Estimate ``log q(x)`` by importance sampling from the posterior (arXiv 1509.00519), in nats.

        ``log 1/S sum_s q(x|z_s) q(z_s) / p(z_s|x)``: in expectation a lower bound, tighter with every sample.

        Args:
            x: ``(B, ...)``.
            num_samples: draws per example, S.

        Returns:
            ``(B,)``, at least float32.

        Raises:
            ValueError: if ``num_samples`` is less than 1.
            RuntimeError: for a deterministic model, which has no density.
        """
        whole_number("num_samples", num_samples, at_least=1)
        if self.deterministic:
            raise RuntimeError("a deterministic model has no density: log_likelihood needs deterministic=False")
        with evaluating(self):
            rows = max(1, _NUMBERS_AT_ONCE // (x[:1].numel() * self.likelihood.numbers_per_output or 1))
            return torch.cat([self._log_likelihood(part, num_samples, rows) for part in x.split(rows)])

    def setup(self, stage: str) -> None:
        """Dry-run the networks on the ``dims`` of the datamodule."""
        x = setup_checks.dummy_batch(self)
        if x is not None:
            with torch.no_grad(), evaluating(self):
                z, decode = setup_checks.dummy_code(self, x).z, partial(self._decoded, dims=x.shape[1:])
                self.likelihood.mean(setup_checks.try_decode(self.decoder, decode, z))

    def extra_terms(self, code: Code, batch: Any) -> dict[str, Tensor]:
        """Return further terms of the loss by name, scalars; override it, for a head on the code and the like.

        They are part of the loss in training, validation and test, and logged as ``train/...``, ``val/...`` and
        ``test/...`` (there as means over the split).

        Args:
            code: of the examples of the batch; its ``z`` is a draw in validation, too.
            batch: as it came.
        """
        return {}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        x = self._supported(batch)
        code = self.encode(x)
        draws = code.z[None] if self.objective.num_samples == 1 else code.sample(self.objective.num_samples)
        distortion = self.distortion(draws, x)
        penalty = self._price(code, distortion.mean(0))
        terms = self.objective(CodedBatch(code, draws, distortion, penalty, self.beta, self.dataset_size))
        if self.logs_this_step:
            mean = distortion.mean()
            measured = {"elbo": -(mean + code.rate.mean()), "distortion": mean}
            self.log_dict({f"train/{name}": value for name, value in measured.items() if name not in terms})
        extra = check_terms("extra_terms", self.extra_terms(code, batch), {*self.mean_names, *terms})
        return self.training_loss(**terms, **extra)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Take a batch into the metrics."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Take a batch into the metrics."""
        x = self._evaluate(batch, "test")
        if self.likelihood_samples and not self.deterministic:
            self.measure("test", len(x), log_likelihood=self.log_likelihood(x, self.likelihood_samples))

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Return ``mean (B, K)``, ``rate``, ``elbo`` and ``log_likelihood (B,)`` in nats, and ``label`` if given."""
        x = self._supported(batch)
        code = self.encode(x, sample=True)
        distortion = self.distortion(self._draws(code), x).mean(0)
        prediction = {"mean": code.mean, "rate": code.rate, "elbo": -(distortion + code.rate)}
        if self.likelihood_samples and not self.deterministic:
            prediction["log_likelihood"] = self.log_likelihood(x, self.likelihood_samples)
        return self.with_label(prediction, batch)

    def export_parts(self) -> dict[str, ExportPart]:
        """Return ``code`` (the mean), ``reconstruction`` and ``decoder`` (means of the outputs)."""

        def draw_codes(n: int, generator: torch.Generator) -> Tensor:
            return torch.randn(n, self.latent_dim, generator=generator).to(self.device).to(self.dtype)

        return {
            "code": ExportPart(mean_code, unused=("decoder", "likelihood", "metrics")),
            "reconstruction": ExportPart(call, unused=("metrics",)),
            "decoder": ExportPart(type(self).decode, ("encoder", "metrics"), "z", draw_codes),
        }

    def _evaluate(self, batch: Any, stage: str) -> Tensor:
        x = self._supported(batch)
        code = self.encode(x, sample=True)
        distortion = self.distortion(self._draws(code), x).mean(0)
        extra = check_terms("extra_terms", self.extra_terms(code, batch), self.mean_names)
        elbo, loss = -(distortion + code.rate), distortion.mean() + self._price(code, distortion) + sum(extra.values())
        self.measure(stage, len(x), loss=loss, elbo=elbo, distortion=distortion, rate=code.rate, **extra)
        return x

    def _price(self, code: Code, distortion: Tensor) -> Tensor:
        priced_rate = None
        if self.free_bits:
            mean_kl = mean_over_processes(code.kl) if self.training else None
            priced_rate = free_bits_rate(code.kl, self.free_bits, mean_kl)
        penalty: Tensor = self.rate_penalty(code.rate, distortion, priced_rate)
        return penalty

    def _draws(self, code: Code) -> Tensor:
        """Return codes of every example for evaluation, ``(S, B, K)``."""
        return code.z[None] if self.eval_samples == 1 or self.deterministic else code.sample(self.eval_samples)

    def _decoded(self, z: Tensor, dims: Sequence[int]) -> Tensor:
        """Decode codes into the parameters of the likelihood of data of shape ``dims``."""
        return setup_checks.likelihood_parameters(self.decoder(z), self.likelihood, dims)

    def _log_likelihood(self, x: Tensor, num_samples: int, rows: int) -> Tensor:
        code = self.encode(x, sample=False)
        total = code.rate.new_full(code.rate.shape, -torch.inf)
        for draws in torch.arange(num_samples).split(max(1, rows // max(1, len(x)))):
            z = code.sample(len(draws))
            log_weights = -self.distortion(z, x) - log_ratio(z, code.mean, code.log_var)
            total = torch.logaddexp(total, log_weights.logsumexp(0))
        return total - math.log(num_samples)

    def _supported(self, batch: Any) -> Tensor:
        x = self.encoder_inputs(self.inputs(batch))
        if self.checks_values(x):
            self.likelihood.check(x)
        return x
