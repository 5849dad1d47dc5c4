"""Base of the models: encoder, optimizer, the sum of a loss, and metrics of a split."""

import math
from collections.abc import Mapping, Sized
from copy import deepcopy
from functools import partial, reduce
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self, cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.plugins import DoublePrecision
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric

from lit_bottleneck.beta import BetaController
from lit_bottleneck.bottleneck import GaussianBottleneck
from lit_bottleneck.checks import ConfigurationError, whole_number
from lit_bottleneck.code import Code, Scale
from lit_bottleneck.models.batch import BatchReader, batch_names, described
from lit_bottleneck.models.export_parts import ExportPart, mean_code
from lit_bottleneck.models.setup_checks import OF_THE_MACHINE, WITHOUT_A_BATCH
from lit_bottleneck.models.stored_arguments import StoredArguments
from lit_bottleneck.models.terms import broken_networks, check_finite
from lit_bottleneck.models.training_checks import (
    check_last_batch,
    refuse_clipping_fused,
    refuse_one_example,
    warn_of_warmup,
)
from lit_bottleneck.training.compilation import uncompiled
from lit_bottleneck.training.precision import Mean, Move, without_casts


class BottleneckModule(BatchReader, GaussianBottleneck, StoredArguments):
    """Base of the library's models: an encoder and a ``GaussianBottleneck`` over a LightningModule.

    The constructor's arguments are in the checkpoint, see ``StoredArguments``.

    Args:
        encoder: any module from inputs to ``2 * latent_dim`` numbers per example: means and raw scales.
        latent_dim: width K of the code.
        beta: price of a nat, see ``GaussianBottleneck``.
        optimizer: makes the optimizer of the parameters. Default: Adam with a learning rate of 1e-3.
        lr_scheduler: makes the learning-rate scheduler of the optimizer. Default: none.
        lr_scheduler_interval: whether it moves after every ``"epoch"`` or every optimizer ``"step"``.
        deterministic: the plain twin of the model: the code is the mean, at no cost.
        scale: how a raw scale becomes a log-variance: ``"bounded"`` (sigma = 1 at 0), ``"softplus"`` (the VIB paper's
            ``softplus(raw - 5)``), ``"exp"`` (the VDB authors'), or a function.
        batch_keys: the names of inputs and labels in a batch that is a dictionary. Default: those of the class,
            ``("x", "y")``.

    Raises:
        ConfigurationError: for a ``latent_dim`` below 1, ``batch_keys`` that are not two names, or an encoder that
            returns another number than ``2 * latent_dim``: at construction where the encoder has ``out_features``, else
            at the first batch.

    Attributes:
        log_names: other names for what is logged, such as ``{"val/loss": "val_loss"}``: for callbacks' metrics of this
            module, too. A subclass or an instance sets it; ``monitor`` then takes the new name.
        mean_names: what ``measure`` averages over a split, whichever batches there are.
        codes_per_example: codes of ``latent_dim`` that the encoder's output holds.
        progress_bar_metric: which metric of the validation the progress bar shows.
        lr: the learning rate of the optimizer, in place of its own, set by ``LearningRateFinder`` or by hand.
        stops_at_non_finite_loss: see ``training_loss``; ``callbacks.SkipNonFinite`` sets it to False.
    """

    log_names: Mapping[str, str] = MappingProxyType({})
    mean_names: ClassVar[tuple[str, ...]] = ()
    progress_bar_metric: ClassVar[str] = ""
    codes_per_example: ClassVar[int] = 1
    lr: float | None = None
    stops_at_non_finite_loss = True
    _dataloader_idx = 0  # of those of an evaluation

    def __init__(
        self,
        encoder: nn.Module,
        latent_dim: int,
        beta: float | BetaController,
        *,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_scheduler_interval: Literal["epoch", "step"] = "epoch",
        deterministic: bool = False,
        scale: Scale = "bounded",
        batch_keys: tuple[str, str] | None = None,
    ) -> None:
        super().__init__(beta=beta, deterministic=deterministic, scale=scale)
        if batch_keys is not None:
            self.batch_keys = batch_names(batch_keys)
        self.encoder = encoder
        self.latent_dim = whole_number("latent_dim", latent_dim, at_least=1)
        self._check_width(output_width(encoder))
        self.optimizer, self.lr_scheduler, self.lr_scheduler_interval = optimizer, lr_scheduler, lr_scheduler_interval
        splits = {stage: SplitMetrics({name: Mean() for name in self.mean_names}) for stage in ("val", "test")}
        self.metrics = nn.ModuleDict(splits)

    def encode(self, x: Tensor, sample: bool | None = None) -> Code:
        """Code a batch of inputs; ``sample`` as in ``bottleneck``.

        Raises:
            ConfigurationError: if the encoder does not return ``2 * latent_dim`` numbers per example, or takes floats
                and ``x`` is of whole numbers.
        """
        x = self.encoder_inputs(x)
        try:
            moments = self.encoder(x)
        except ValueError:  # such as that of a batch normalisation
            refuse_one_example(self.encoder, len(x))
            raise
        except (RuntimeError, IndexError, TypeError) as error:
            if x.is_floating_point() or isinstance(error, OF_THE_MACHINE):
                raise
            refuses = f"encoder={type(self.encoder).__name__} does not take these whole numbers"
            raise ConfigurationError(f"{refuses}, {described(x)}: {error}") from error
        if moments.dim() < 2 or len(moments) != len(x):
            returns = f"encoder={type(self.encoder).__name__} must return (B, {2 * self.latent_dim}) for x (B, ...)"
            raise ConfigurationError(f"{returns}; got {tuple(moments.shape)} for {described(x)}{WITHOUT_A_BATCH}")
        self._check_width(moments.shape[1])
        return self.bottleneck(moments, sample)

    def configure_optimizers(self) -> Any:
        """Make the optimizer, and the scheduler if there is one."""
        make = self.optimizer or partial(torch.optim.Adam, lr=1e-3)
        optimizer = self.at_lr(make(self.parameters()))
        if self.lr_scheduler is None:
            return optimizer
        scheduler = self.lr_scheduler(optimizer)
        configuration = {"scheduler": scheduler, "interval": self.lr_scheduler_interval}
        if hasattr(scheduler, "monitor"):  # ReduceLROnPlateau of Lightning's CLI
            configuration["monitor"] = scheduler.monitor
        return {"optimizer": optimizer, "lr_scheduler": configuration}

    def at_lr(self, optimizer: Optimizer) -> Optimizer:
        """Return an optimizer at the learning rate ``lr``, if that is set."""
        for group in [] if self.lr is None else optimizer.param_groups:
            group["lr"] = self.lr
        return optimizer

    def training_loss(self, network: str = "", /, **terms: Tensor) -> Tensor:
        """Add up the terms of the loss; log them and their sum, and stop if one is not finite.

        Args:
            network: whose loss it is, where there are several.
            **terms: scalars. All but ``rate_penalty`` (whose rate and price are logged by themselves) are logged under
                their names as ``train/...``, and their sum, unless there is one only, as ``train/loss``.

        Returns:
            Their sum.

        Raises:
            FloatingPointError: if a term is not finite, with its name; see ``checks_values``. Not if
                ``stops_at_non_finite_loss`` is False: then the gradient is NaN wherever the loss is not finite.
        """
        loss = reduce(torch.add, terms.values())
        if not self.stops_at_non_finite_loss:
            loss = loss * torch.where(loss.isfinite(), 1.0, math.nan)  # and so is the gradient, on all processes
        elif self.checks_values(loss):
            check_finite(self, loss, terms, network)
        if self.logs_this_step:
            if len(terms) > 1:
                self.log("train/loss", loss, prog_bar=True)
            self.log_dict({f"train/{name}": term for name, term in terms.items() if name != "rate_penalty"})
        return loss

    def checks_values(self, values: Tensor) -> bool:
        """Return whether to check values; in training on an accelerator, which a check stalls, only in logged steps."""
        return not self.training or values.device.type == "cpu" or self.logs_this_step

    def measure(self, stage: str, rows: int, **values: Tensor) -> None:
        """Take values into the means of a split, and log these as ``val/...`` or ``test/...``.

        Args:
            stage: ``"val"`` or ``"test"``.
            rows: examples of the batch.
            **values: by name: ``(rows,)``, or a mean over the examples.
        """
        means = self.split_metrics(stage)
        for name, value in values.items():
            if name not in means:
                means[name] = Mean().to(self.device)
            mean = cast(Mean, means[name])
            mean.update(value, weight=1.0 if value.dim() else rows)
            self.log_metric(stage, name)

    def log_metric(self, stage: str, name: str) -> None:
        """Log a metric of a split as ``val/...`` or ``test/...``."""
        shown, place = (stage, name) == ("val", self.progress_bar_metric), f"metrics.{self._split(stage)}.{name}"
        metric = cast(Metric, self.split_metrics(stage)[name])
        self.log(f"{stage}/{name}", metric, prog_bar=shown, metric_attribute=place)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def log(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Log a value under its name in ``log_names``; everything that is logged comes through here.

        Raises:
            ConfigurationError: if ``log_names`` gives several values one name.
        """
        named = self.log_names.get(name, name)
        others = [ours for ours, theirs in self.log_names.items() if theirs == named and ours != name]
        if others:
            raise ConfigurationError(
                f"log_names must give each value its own name; got {named!r} for {name}, {others[0]}"
            )
        super().log(named, *args, **kwargs)

    def split_metrics(self, stage: str) -> "SplitMetrics":
        """Return the metrics of the split ``"val"`` or ``"test"``; each of several dataloaders has its own."""
        split = self._split(stage)
        if split not in self.metrics:
            self.metrics[split] = deepcopy(self.metrics[stage]).train()  # as they are between evaluations
            for metric in cast(SplitMetrics, self.metrics[split]).values():
                cast(Metric, metric).reset()
        return cast(SplitMetrics, self.metrics[split])

    def on_validation_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Note the dataloader, whose metrics the batch goes into."""
        self._dataloader_idx = dataloader_idx

    on_test_batch_start = on_validation_batch_start

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to write weights that are not finite, perhaps over the last good ones.

        Raises:
            FloatingPointError: with the names of the networks.
        """
        super().on_save_checkpoint(checkpoint)
        broken = broken_networks(self)
        if broken:
            raise FloatingPointError(
                f"the weights of {broken} are not finite: the last checkpoint is kept, and no other written"
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Cast to float64 under ``precision="64-true"``, which Lightning does only after it has loaded the weights."""
        super().on_load_checkpoint(checkpoint)
        if self._trainer is not None and isinstance(self._trainer.precision_plugin, DoublePrecision):
            self.double()

    def on_fit_start(self) -> None:
        """Reset all metrics, and warn of a warm-up that is longer than the training.

        ``validate`` leaves metrics with tensors of its inference mode, which training cannot change.
        """
        super().on_fit_start()
        for metric in (part for part in self.modules() if isinstance(part, Metric)):
            metric.reset()
        warn_of_warmup(self)
        if self.lr is not None and self.trainer.lr_scheduler_configs:  # which a finder leaves at the old rate
            self.trainer.strategy.setup_optimizers(self.trainer)

    def on_train_start(self) -> None:
        """Refuse a loader whose last batch is one example, if a layer normalises by the batch; and see the checks."""
        check_last_batch(self)
        refuse_clipping_fused(self)

    @property
    def dataset_size(self) -> int | None:
        """Number of training examples, if the trainer has them in one loader."""
        dataset = None if self._trainer is None else getattr(self._trainer.train_dataloader, "dataset", None)
        return len(dataset) if isinstance(dataset, Sized) else None

    def export_parts(self) -> dict[str, ExportPart]:
        """Return the parts that can be exported, by name."""
        return {"code": ExportPart(mean_code, unused=("decoder", "metrics"))}

    def _split(self, stage: str) -> str:
        """Return the name of the metrics of a split: those of a second dataloader are ``val_1``."""
        return f"{stage}_{self._dataloader_idx}" if self._dataloader_idx else stage

    def _check_width(self, width: int | None) -> None:
        if width not in (None, numbers := 2 * self.latent_dim * self.codes_per_example):
            needs = f"needs an encoder that returns {numbers} numbers per example"
            raise ConfigurationError(f"latent_dim={self.latent_dim} {needs}; got {width}")


def output_width(network: nn.Module) -> int | None:
    """Return the width of a network's output, where it has ``out_features``."""
    network = uncompiled(network)
    if isinstance(network, nn.Sequential) and len(network) and not hasattr(network, "out_features"):
        return output_width(network[-1])
    width = getattr(network, "out_features", None)
    return width if isinstance(width, int) else None


class SplitMetrics(nn.ModuleDict):
    """Metrics over a whole split, by name. They keep dtype and value when the module around them is cast."""

    def _apply(self, fn: Move, recurse: bool = True) -> Self:
        return super()._apply(without_casts(fn), recurse)  # type: ignore[no-any-return, no-untyped-call]
