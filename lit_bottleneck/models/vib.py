"""The variational information bottleneck classifier."""

from typing import Any, cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import Metric

from lit_bottleneck.beta import BetaController
from lit_bottleneck.checks import ConfigurationError, whole_number
from lit_bottleneck.code import Code
from lit_bottleneck.functional import at_least_float32
from lit_bottleneck.models.base import BottleneckModule, output_width
from lit_bottleneck.models.batch import described, label_of
from lit_bottleneck.models.draws import decode_draws
from lit_bottleneck.models.export_parts import ExportPart, call
from lit_bottleneck.models.labels import OneClass, SeveralLabels
from lit_bottleneck.models.setup_checks import check_kind, dummy_batch, dummy_code, try_decode
from lit_bottleneck.training.evaluating import evaluating

_NUMBERS_AT_ONCE = 2**22  # of the codes that are drawn for an evaluation: 16 MiB, also faster than all at once


class VIBClassifier(BottleneckModule):
    """Classifier that reads one class, or several labels, from a Gaussian code (VIB, arXiv 1612.00410).

    ``loss = cross-entropy(y | z) + beta * KL(p(z|x) || N(0, I))``, with one draw of ``z`` per example in training. Keep
    beta well below 1: from there on the collapsed code (rate 0, chance accuracy) is a global optimum.

    Labels are indices of classes, or soft labels ``(B, num_classes)``, which accuracy and calibration take for the
    class of their largest entry. With ``multilabel=True`` they are 0 or 1 for each of the classes ``(B, num_classes)``
    (or between), and the cross-entropy is that of one Bernoulli distribution a class, summed over the classes.
    Override ``labelled`` for other batches, ``classification_loss`` for another loss.

    In evaluation the code is its mean, or ``eval_samples`` draws, whose *probabilities* are averaged: of each label by
    itself, under ``multilabel=True``. Logged, each as ``val/...`` and ``test/...``: ``loss``, ``cross_entropy`` (nats
    per example; the negative log-likelihood, if labels are not soft), ``rate`` (nats) and ``accuracy``; of one class
    ``calibration_error`` (expected, 15 bins); of several labels ``f1`` (at a probability of one half) and
    ``average_precision``. ``test/cross_entropy_sampled`` is that of one draw: with the rate it is at least the entropy
    of the labels.

    The accuracy of several labels is over all of them together (one minus the Hamming loss). F1 and average precision
    are means over the labels (macro), since a rare label, which accuracy hardly sees, then counts as much as a frequent
    one: over those that occur in the split or are predicted, and those that occur.

    Args:
        encoder: any module from inputs to ``2 * latent_dim`` numbers per example: means and raw scales.
        latent_dim: width K of the code.
        num_classes: number of classes.
        beta: price of a nat: a number, or a ``BetaController``.
        eval_samples: draws per example in evaluation; 0 is the mean code.
            Many draws cost little for a decoder of one linear layer, see ``models.draws.decode_draws``.
        decoder: any module from codes ``(B, K)`` to logits ``(B, num_classes)``. Default: one linear layer.
        optimizer: makes the optimizer of the parameters. Default: Adam with a learning rate of 1e-3.
        lr_scheduler: makes the learning-rate scheduler of the optimizer. Default: none.
        multilabel: whether an example may have any number of the classes.
        **kwargs: ``lr_scheduler_interval``, ``deterministic``, ``scale`` and ``batch_keys`` of ``BottleneckModule``.

    Raises:
        ConfigurationError: for sizes below 1, or an encoder that returns another number than ``2 * latent_dim`` or a
            decoder that returns another than ``num_classes``: at construction where they have ``out_features``, else
            in ``setup`` where the datamodule has the ``dims`` of an example, else at the first batch. In ``setup``,
            too: for a datamodule of other classes, and for networks that do not take what they get.

    >>> from lit_bottleneck.networks import MLP
    >>> model = VIBClassifier(MLP(64, [32], 2 * 8), latent_dim=8, num_classes=10, beta=1e-3)
    >>> model(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])

    The same in a module of your own, in ten lines:

    >>> import torch.nn.functional as F
    >>> from lightning import LightningModule
    >>> from lit_bottleneck import GaussianBottleneck
    >>> class Classifier(GaussianBottleneck, LightningModule):
    ...     def __init__(self):
    ...         super().__init__(beta=1e-3)
    ...         self.encoder, self.decoder = MLP(64, [32], 2 * 8), nn.Linear(8, 10)
    ...     def training_step(self, batch, batch_idx):
    ...         code = self.bottleneck(self.encoder(batch[0]))
    ...         cross_entropy = F.cross_entropy(self.decoder(code.z), batch[1])
    ...         return cross_entropy + self.rate_penalty(code.rate)
    ...     def configure_optimizers(self):
    ...         return torch.optim.Adam(self.parameters(), lr=1e-3)
    >>> Classifier().training_step((torch.zeros(5, 64), torch.arange(5)), 0).shape
    torch.Size([])

    And with several labels for each example:

    >>> class Labeller(GaussianBottleneck, LightningModule):
    ...     def __init__(self):
    ...         super().__init__(beta=1e-3)
    ...         self.encoder, self.decoder = MLP(64, [32], 2 * 8), nn.Linear(8, 10)
    ...     def training_step(self, batch, batch_idx):
    ...         code = self.bottleneck(self.encoder(batch[0]))
    ...         each = F.binary_cross_entropy_with_logits(self.decoder(code.z), batch[1], reduction="none")
    ...         return each.sum(1).mean() + self.rate_penalty(code.rate)
    ...     def configure_optimizers(self):
    ...         return torch.optim.Adam(self.parameters(), lr=1e-3)
    >>> Labeller().training_step((torch.zeros(5, 64), torch.ones(5, 10)), 0).shape
    torch.Size([])
    """

    mean_names = ("loss", "cross_entropy", "cross_entropy_sampled", "rate")
    progress_bar_metric = "accuracy"

    def __init__(
        self,
        encoder: nn.Module,
        latent_dim: int,
        num_classes: int,
        beta: float | BetaController = 1e-3,
        eval_samples: int = 0,
        decoder: nn.Module | None = None,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        multilabel: bool = False,
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
        if not isinstance(multilabel, bool):
            raise ConfigurationError(f"multilabel must be True or False; got {multilabel!r}")
        self.multilabel = multilabel
        self.num_classes = whole_number("num_classes", num_classes, at_least=1 if multilabel else 2)
        self._labels = SeveralLabels(self.num_classes) if multilabel else OneClass(self.num_classes)
        self.eval_samples = whole_number("eval_samples", eval_samples, at_least=0)
        self.decoder = nn.Linear(self.latent_dim, self.num_classes) if decoder is None else decoder
        self._check_logits(output_width(self.decoder))
        for stage in ("val", "test"):
            self.split_metrics(stage).update(self._labels.metrics())

    def forward(self, x: Tensor) -> Tensor:
        """Classify by the mean code: inputs ``(B, ...)`` to logits ``(B, num_classes)``."""
        logits: Tensor = self.decoder(self.encode(x, sample=False).z)
        return logits

    def log_probabilities(self, code: Code) -> Tensor:
        """Return log-probabilities ``(B, num_classes)``: at the mean code, or averaged over ``eval_samples`` draws."""
        return self._labels.log_probabilities(self._evaluation_logits(code))

    def setup(self, stage: str) -> None:
        """Compare ``num_classes`` with that of the datamodule, and dry-run the networks on its ``dims``."""
        data = getattr(self.trainer, "datamodule", None)
        check_kind(self, VIBClassifier, "num_classes", "target_dims", "VIBRegressor reads numbers")
        self._labels.check_number(getattr(data, "num_classes", self.num_classes), type(data).__name__)
        x = dummy_batch(self)
        if x is None:
            return
        with torch.no_grad(), evaluating(self):
            z = dummy_code(self, x).z
            self._check_logits(try_decode(self.decoder, self.decoder, z).shape[-1])

    def labelled(self, batch: Any) -> tuple[Any, Any]:
        """Return inputs and labels of a batch ``(x, y, ...)`` or ``{"x": x, "y": y, ...}``.

        Override it for batches of another form (and ``inputs``, for predictions). What it returns is converted and
        checked afterwards: inputs as by ``encoder_inputs``, labels as by ``labels_from`` of ``models.labels``.

        Raises:
            ConfigurationError: if the batch has no labels.
        """
        x, labels = self.inputs(batch), label_of(batch, self.batch_keys[1])
        if labels is None:
            form = "(x, y, ...) or {{{!r}: x, {!r}: y, ...}}".format(*self.batch_keys)
            raise ConfigurationError(f"a classifier needs batches with labels, {form}; got {described(batch)}")
        return x, labels

    def classification_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of each example; override it for class weights, smoothing or another loss.

        It is the loss in training, and what validation and test log as ``cross_entropy``.

        Args:
            logits: ``(B, num_classes)``, at least float32. In evaluation: those of the probabilities averaged over
                ``eval_samples`` draws (of one class log-probabilities, which are logits of themselves).
            labels: indices of classes ``(B,)``, or soft labels ``(B, num_classes)``, whose rows sum to 1. Under
                ``multilabel=True``: ``(B, num_classes)`` in [0, 1], floating.

        Returns:
            ``(B,)``, or a scalar: the mean over the batch, which a split averages by the number of examples.
        """
        return self._labels.cross_entropy(logits, labels)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the cross-entropy of one draw, plus the price of its rate."""
        x, labels = self._examples(batch)
        code = self.encode(x)
        logits = self._logits(code.z)
        if self.logs_this_step:
            self.log("train/accuracy", (self._labels.predicted(logits) == self._labels.hard(labels)).float().mean())
        cross_entropy = self._cross_entropy(logits, labels).mean()
        penalty = self.rate_penalty(code.rate, distortion=cross_entropy)
        return self.training_loss(cross_entropy=cross_entropy, rate_penalty=penalty)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Take a batch into the metrics."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Take a batch into the metrics."""
        code, labels = self._evaluate(batch, "test")
        drawn = self._logits(code.sample(1)[0])
        self.measure("test", len(labels), cross_entropy_sampled=self._cross_entropy(drawn, labels))

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Return ``probabilities (B, num_classes)``, ``rate (B,)`` in nats, ``mean (B, K)``, and ``label`` if given."""
        code = self.encode(self.encoder_inputs(self.inputs(batch)), sample=False)
        prediction = {"probabilities": self.log_probabilities(code).exp(), "rate": code.rate, "mean": code.mean}
        return self.with_label(prediction, batch)

    def export_parts(self) -> dict[str, ExportPart]:
        """Return ``code`` (the mean) and ``logits`` (of the mean code)."""
        return super().export_parts() | {"logits": ExportPart(call, unused=("metrics",))}

    def _logits(self, z: Tensor) -> Tensor:
        """Return logits ``(B, num_classes)``, at least float32, for codes ``(B, K)``."""
        return self._as_logits(self.decoder(z))

    def _as_logits(self, logits: Tensor) -> Tensor:
        """Return outputs of the decoder, checked, in at least float32."""
        self._check_logits(logits.shape[-1])
        return at_least_float32(logits)

    def _evaluation_logits(self, code: Code) -> Tensor:
        """Return the logits of an evaluation, ``(B, num_classes)``, as ``classification_loss`` has them."""
        if not self.eval_samples:
            return self._labels.average(self._logits(code.z)[None])
        size = max(1, _NUMBERS_AT_ONCE // (self.eval_samples * self.latent_dim))
        some = torch.arange(len(code.z)).split(size)
        return torch.cat([self._drawn_logits(cast(Code, code[rows])) for rows in some])

    def _drawn_logits(self, code: Code) -> Tensor:
        """Return the logits of the mean probabilities of ``eval_samples`` draws, ``(B, num_classes)``."""
        logits = self._as_logits(decode_draws(self.decoder, code, self.eval_samples))
        return self._labels.average(logits.unflatten(0, (self.eval_samples, len(code.z))))

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of the hook, ``(B,)`` or a scalar."""
        if labels.is_floating_point():
            labels = labels.to(logits.dtype)
        loss = self.classification_loss(logits, labels)
        if loss.shape not in ((), logits.shape[:1]):
            wanted = f"classification_loss must return a scalar or ({len(logits)},)"
            raise ConfigurationError(f"{wanted}, one number per example; got {described(loss)}")
        return loss

    def _check_logits(self, width: int | None) -> None:
        if width not in (None, self.num_classes):
            raise ConfigurationError(f"num_classes={self.num_classes} needs a decoder of as many logits; got {width}")

    def _evaluate(self, batch: Any, stage: str) -> tuple[Code, Tensor]:
        x, labels = self._examples(batch)
        code = self.encode(x, sample=False)
        logits = self._evaluation_logits(code)
        cross_entropy = self._cross_entropy(logits, labels)
        loss = cross_entropy.mean() + self.rate_penalty(code.rate)
        self.measure(stage, len(labels), loss=loss, cross_entropy=cross_entropy, rate=code.rate)
        probabilities, hard = self._labels.log_probabilities(logits).exp(), self._labels.hard(labels)
        for name in self._labels.metric_names:
            cast(Metric, self.split_metrics(stage)[name]).update(probabilities, hard)
            self.log_metric(stage, name)
        return code, labels

    def _examples(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return inputs and labels of a batch, converted and checked."""
        x, labels = self.labelled(batch)
        x = self.encoder_inputs(x)
        labels = self._labels.labels_from(labels, len(x)).to(x.device)
        if self.checks_values(labels):
            self._labels.check(labels)
        return x, labels
