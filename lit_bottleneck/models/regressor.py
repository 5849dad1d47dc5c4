"""The variational information bottleneck regressor."""

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric

from lit_bottleneck.beta import BetaController
from lit_bottleneck.checks import ConfigurationError, whole_number, whole_numbers
from lit_bottleneck.code import Code
from lit_bottleneck.functional import at_least_float32
from lit_bottleneck.likelihoods import LearnedGaussian, Likelihood, likelihood_from
from lit_bottleneck.models.base import BottleneckModule, output_width
from lit_bottleneck.models.batch import described, label_of
from lit_bottleneck.models.draws import decode_draws
from lit_bottleneck.models.export_parts import ExportPart, call, mean_code
from lit_bottleneck.models.setup_checks import check_decoder, check_kind, dummy_batch, dummy_code, try_decode
from lit_bottleneck.models.targets import R2, TargetUnits, targets_from
from lit_bottleneck.training.evaluating import evaluating

_OF_PREDICTIONS = ("rmse", "mae", "r2")


class VIBRegressor(BottleneckModule):
    """Regressor that reads one or several targets from a Gaussian code (VIB, arXiv 1612.00410).

    ``loss = -log q(y|z) + beta * KL(p(z|x) || N(0, I))``, with one draw of ``z`` per example in training. ``q`` is one
    of ``lit_bottleneck.likelihoods``: a Gaussian for numbers, ``"bernoulli"`` for 0 and 1, ``"continuous_bernoulli"``
    for shares. For jointly Gaussian ``x`` and ``y``, linear networks and the default likelihood reach the curve of the
    Gaussian information bottleneck (JMLR 6:165-188).

    Targets are ``(B, *target_dims)``, or ``(B,)`` for one. Override ``labelled`` for other batches. A datamodule that
    standardises the targets tells their units as ``target_mean`` and ``target_scale``. Then ``forward``, predictions,
    RMSE and MAE are in those units; the likelihood, and so ``nll`` and ``loss``, is of the standardised targets.

    In evaluation the code is its mean, or ``eval_samples`` draws, whose *densities* are averaged. Logged, each as
    ``val/...`` and ``test/...``: ``loss``, ``nll`` (negative log-likelihood, nats per example, summed over the targets;
    ``train/nll`` is of one draw), ``rate`` (nats), and of the predicted means ``rmse`` and ``mae`` (over the numbers of
    all targets together) and ``r2`` (the mean over the targets that vary). ``test/nll_sampled`` is the ``nll`` of one
    draw: with the rate it is at least the differential entropy of the targets.

    Args:
        encoder: any module from inputs to ``2 * latent_dim`` numbers per example: means and raw scales.
        latent_dim: width K of the code.
        likelihood: meaning of the decoder's output, by name or as a ``Likelihood``. The default learns one standard
            deviation for each target.
        target_dims: shape of an example's targets, ``(D1, ...)``.
        beta: price of a nat: a number, or a ``BetaController``.
        eval_samples: draws per example in evaluation; 0 is the mean code.
            Many draws cost little for a decoder of one linear layer, see ``models.draws.decode_draws``.
        decoder: any module from codes ``(B, K)`` to the parameters of the likelihood: ``target_dims`` with the first
            multiplied by ``likelihood.numbers_per_output``, or flat. Default: one linear layer.
        optimizer: makes the optimizer of the parameters. Default: Adam with a learning rate of 1e-3.
        lr_scheduler: makes the learning-rate scheduler of the optimizer. Default: none.
        **kwargs: ``lr_scheduler_interval``, ``deterministic``, ``scale`` and ``batch_keys`` of ``BottleneckModule``.

    Raises:
        ConfigurationError: for sizes below 1, an unknown likelihood or one of other ``target_dims``, an encoder that
            returns another number than ``2 * latent_dim``, or a decoder that does not fit: at construction where they
            have ``out_features``, else in ``setup`` where the datamodule has the ``dims`` of an example, else at the
            first batch. In ``setup``, too: for a datamodule of other ``target_dims``, or of classes under a Gaussian.
            At a batch: for targets of another shape, that are not finite, or outside the support of the likelihood.

    >>> from lit_bottleneck.networks import MLP
    >>> model = VIBRegressor(MLP(10, [32], 2 * 8), latent_dim=8, target_dims=(2,))
    >>> model(torch.zeros(5, 10)).shape
    torch.Size([5, 2])

    The same in a module of your own, in ten lines:

    >>> import lightning, lit_bottleneck
    >>> class Regressor(lit_bottleneck.GaussianBottleneck, lightning.LightningModule):
    ...     def __init__(self):
    ...         super().__init__(beta=1e-3)
    ...         self.encoder, self.decoder, self.likelihood = MLP(10, [32], 16), nn.Linear(8, 2), LearnedGaussian((2,))
    ...     def training_step(self, batch, batch_idx):
    ...         code = self.bottleneck(self.encoder(batch[0]))
    ...         nll = -self.likelihood.log_prob(self.decoder(code.z), batch[1]).mean()
    ...         return nll + self.rate_penalty(code.rate)
    ...     def configure_optimizers(self):
    ...         return torch.optim.Adam(self.parameters(), lr=1e-3)
    >>> Regressor().training_step((torch.zeros(5, 10), torch.zeros(5, 2)), 0).shape
    torch.Size([])
    """

    mean_names = ("loss", "nll", "nll_sampled", "rate")
    progress_bar_metric = "rmse"

    def __init__(
        self,
        encoder: nn.Module,
        latent_dim: int,
        likelihood: Likelihood | str = "gaussian_learned",
        target_dims: Sequence[int] = (1,),
        beta: float | BetaController = 1e-3,
        eval_samples: int = 0,
        decoder: nn.Module | None = None,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            encoder=encoder,
            latent_dim=latent_dim,
            beta=beta,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            **kwargs,
        )
        self.target_dims = whole_numbers("target_dims", target_dims, at_least=1)
        if not self.target_dims:
            raise ConfigurationError("target_dims must be one size or more, such as (1,); got ()")
        is_default = isinstance(likelihood, str) and likelihood == "gaussian_learned"
        self.likelihood = LearnedGaussian(self.target_dims) if is_default else likelihood_from(likelihood)
        self.eval_samples = whole_number("eval_samples", eval_samples, at_least=0)
        self._check_likelihood()
        parameters = math.prod(self._parameter_dims)
        self.decoder = nn.Linear(self.latent_dim, parameters) if decoder is None else decoder
        check_decoder(self.decoder, self.latent_dim, self.likelihood)
        self._check_decoder_width(output_width(self.decoder))
        self.units = TargetUnits(self.target_dims)
        for stage in ("val", "test"):
            metrics = self.split_metrics(stage)
            metrics["rmse"] = MeanSquaredError(squared=False).set_dtype(torch.float64)
            metrics["mae"] = MeanAbsoluteError().set_dtype(torch.float64)
            metrics["r2"] = R2(math.prod(self.target_dims))

    def forward(self, x: Tensor) -> Tensor:
        """Predict from the mean code: inputs ``(B, ...)`` to means of the targets ``(B, *target_dims)``."""
        parameters = self._read(self.encode(x, sample=False).z)
        return self.units.restore(self.likelihood.mean(parameters))

    def setup(self, stage: str) -> None:
        """Compare ``target_dims`` with the datamodule's, take its units, and dry-run the networks on its ``dims``."""
        data: Any = getattr(self.trainer, "datamodule", None)
        if self.likelihood.support == Likelihood.support:  # the others look at the values
            check_kind(self, VIBRegressor, "target_dims", "num_classes", "VIBClassifier reads classes")
        dims = tuple(getattr(data, "target_dims", self.target_dims))
        if dims != self.target_dims:
            name = type(data).__name__
            raise ConfigurationError(f"target_dims={self.target_dims}, but the targets of {name} need {dims}")
        if hasattr(data, "target_scale") and (stage == "fit" or not self.units.are_given):
            self.units.take(data.target_mean, data.target_scale)
        x = dummy_batch(self)
        if x is None:
            return
        with torch.no_grad(), evaluating(self):
            self.likelihood.mean(try_decode(self.decoder, self._read, dummy_code(self, x).z))

    def labelled(self, batch: Any) -> tuple[Any, Any]:
        """Return inputs and targets of a batch ``(x, y, ...)`` or ``{"x": x, "y": y, ...}``.

        Override it for batches of another form (and ``inputs``, for predictions). What it returns is converted and
        checked afterwards: inputs as by ``encoder_inputs``, targets as by ``targets.targets_from``.

        Raises:
            ConfigurationError: if the batch has no targets.
        """
        x, targets = self.inputs(batch), label_of(batch, self.batch_keys[1])
        if targets is None:
            form = "(x, y, ...) or {{{!r}: x, {!r}: y, ...}}".format(*self.batch_keys)
            raise ConfigurationError(f"a regressor needs batches with targets, {form}; got {described(batch)}")
        return x, targets

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the negative log-likelihood of one draw, plus the price of its rate."""
        x, y = self._examples(batch)
        code = self.encode(x)
        nll = self._nll(self._read(code.z), y, draws=1).mean()
        return self.training_loss(nll=nll, rate_penalty=self.rate_penalty(code.rate, distortion=nll))

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Take a batch into the metrics."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Take a batch into the metrics."""
        code, y = self._evaluate(batch, "test")
        drawn = self._read(code.sample(1)[0])
        self.measure("test", len(y), nll_sampled=self._nll(drawn, y, draws=1))

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Return the distribution of the targets, rate and code, and ``label`` if given.

        Returns:
            ``mean`` and ``deviation`` ``(B, *target_dims)``, mean and standard deviation of the targets over draws of
            the code and the likelihood (law of total variance); ``rate (B,)`` in nats; ``code (B, K)``, its mean;
            ``label``, in the units of ``mean``.
        """
        code = self.encode(self.encoder_inputs(self.inputs(batch)), sample=False)
        parameters, draws = self._at_draws(code)
        shape = draws, len(code.rate)
        means = self.likelihood.mean(parameters).unflatten(0, shape)
        variance = self.likelihood.variance_of(parameters).unflatten(0, shape).mean(0) + means.var(0, correction=0)
        mean, scale = self.units.restore(means.mean(0)), self.units.scale.to(variance.dtype)
        found = {"mean": mean, "deviation": scale * variance.sqrt(), "rate": code.rate, "code": code.mean}
        prediction = self.with_label(found, batch)
        if "label" in prediction and self.units.are_given:
            label = targets_from(prediction["label"], self.target_dims, len(mean))
            prediction["label"] = self.units.restore(label.to(mean.device))
        return prediction

    def export_parts(self) -> dict[str, ExportPart]:
        """Return ``code`` (the mean) and ``prediction`` (means of the targets at the mean code)."""
        return {
            "code": ExportPart(mean_code, unused=("decoder", "likelihood", "metrics", "units")),
            "prediction": ExportPart(call, unused=("metrics",)),
        }

    @property
    def _parameter_dims(self) -> tuple[int, ...]:
        """Shape of the likelihood's parameters of an example."""
        first, *others = self.target_dims
        return (self.likelihood.numbers_per_output * first, *others)

    def _read(self, z: Tensor) -> Tensor:
        """Return the likelihood's parameters for codes ``(B, K)``, at least float32."""
        return self._as_parameters(self.decoder(z))

    def _as_parameters(self, output: Tensor) -> Tensor:
        """Return outputs of the decoder, checked, in the shape of the parameters and at least float32."""
        dims = tuple(output.shape[1:])
        if dims not in (self._parameter_dims, (math.prod(self._parameter_dims),)):
            self._refuse_decoder(dims)
        return at_least_float32(output).reshape(len(output), *self._parameter_dims)

    def _at_draws(self, code: Code) -> tuple[Tensor, int]:
        """Return the parameters at the codes of an evaluation, ``(S * B, ...)``, and the number S of draws."""
        if self.deterministic or not self.eval_samples:
            return self._read(code.z), 1
        return self._as_parameters(decode_draws(self.decoder, code, self.eval_samples)), self.eval_samples

    def _nll(self, parameters: Tensor, y: Tensor, draws: int) -> Tensor:
        """Return ``-log 1/S sum_s q(y | z_s)`` in nats, ``(B,)``, for the parameters ``(S * B, ...)`` of S draws."""
        copies = y.to(parameters.dtype).expand(draws, *y.shape).flatten(0, 1)
        log_density: Tensor = self.likelihood.log_prob(parameters, copies).unflatten(0, (draws, len(y)))
        return math.log(draws) - log_density.logsumexp(0)

    def _evaluate(self, batch: Any, stage: str) -> tuple[Code, Tensor]:
        x, y = self._examples(batch)
        code = self.encode(x, sample=False)
        parameters, draws = self._at_draws(code)
        nll = self._nll(parameters, y, draws)
        loss = nll.mean() + self.rate_penalty(code.rate)
        self.measure(stage, len(y), loss=loss, nll=nll, rate=code.rate)
        mean = self.likelihood.mean(parameters).unflatten(0, (draws, len(y))).mean(0)
        predictions, targets = (self.units.restore(values.double()).flatten(1) for values in (mean, y))
        for name in _OF_PREDICTIONS:
            cast(Metric, self.split_metrics(stage)[name]).update(predictions, targets)
            self.log_metric(stage, name)
        return code, y

    def _examples(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of a batch, converted and checked."""
        x, targets = self.labelled(batch)
        x = self.encoder_inputs(x)
        dtype = torch.promote_types(self.weights_dtype, torch.float32)
        y = targets_from(targets, self.target_dims, len(x)).to(x.device, dtype)
        if self.checks_values(y):
            scaled = " (standardised; data.Table leaves them in their units with standardize_target=False)"
            self.likelihood.check(y, f"targets{scaled if self.units.are_given else ''}")
        return x, y

    def _check_likelihood(self) -> None:
        """Refuse a likelihood of targets of another shape."""
        parameters = torch.zeros(1, *self._parameter_dims)
        try:
            self.likelihood.distribution(parameters)
        except ConfigurationError as error:
            raise ConfigurationError(f"target_dims={self.target_dims} does not fit the likelihood: {error}") from error

    def _check_decoder_width(self, width: int | None) -> None:
        flat = math.prod(self._parameter_dims)
        if width is not None and width not in (flat, self._parameter_dims[-1]):
            self._refuse_decoder((width,))

    def _refuse_decoder(self, dims: tuple[int, ...]) -> None:
        kind, numbers = type(self.likelihood).__name__, self.likelihood.numbers_per_output
        needs = f"target_dims={self.target_dims} under {kind}, with numbers_per_output={numbers},"
        wanted = f"needs a decoder that returns {self._parameter_dims}, or as many flat, per example"
        raise ConfigurationError(f"{needs} {wanted}; got {dims}")
