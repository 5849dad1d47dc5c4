"""Quality of samples: features of samples against features of real examples."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor
from torchmetrics import MetricCollection

from lit_bottleneck.callbacks.measurement import Measurement
from lit_bottleneck.callbacks.run import inputs_of, of_data, share, value_range
from lit_bottleneck.checks import ConfigurationError, whole_number
from lit_bottleneck.metrics import (
    FeatureExtractor,
    FrechetDistance,
    InceptionFeatures,
    KernelDistance,
    ModeCoverage,
    PrecisionRecall,
)
from lit_bottleneck.models.setup_checks import dummy_batch, try_forward


class SampleQuality(Measurement):
    """Compare samples with as many real examples, in test and every few epochs in validation.

    Without validation, the training examples of the epoch are used, and the scores logged as ``train/...``.

    For any module with ``sample(n)``. Logged as ``val/...`` and ``test/...`` are ``frechet_distance``,
    ``kernel_distance``, ``precision`` and ``recall``, each with name and version of the features and the number of
    samples: ``test/frechet_distance_vibclassifier-3f2a1c9e_10000``. Scores of different names cannot be compared. If
    the datamodule has ``modes`` and their ``std`` (``data.Ring``), also ``coverage_good``, ``coverage_modes``, ..., see
    ``metrics.mode_coverage``.

    Samples are drawn in the trainer's precision, from the same noise in every epoch, without using the random numbers
    of the training. The features' network is neither in the checkpoint nor seen by DDP. Pixels are mapped from the
    ``value_range`` of the datamodule (or else the module), if it has one, to that of the features.

    Args:
        features: map from examples to the features that are compared. Default: ``InceptionFeatures``, whose weights are
            downloaded; offline, ``CodeFeatures`` of a classifier of this library, or ``RawFeatures``.
        num_samples: number of real examples, and of samples, over all processes: the first of the first dataloader.
        every_n_epochs: epochs between two measurements in validation; the last epoch is measured too. 0: in test only.
        neighbours: of ``metrics.PrecisionRecall``.

    Raises:
        ConfigurationError: for numbers out of range, or no more samples than ``neighbours``. In ``setup``: for a module
            without ``sample``, or features that do not take examples of the datamodule's ``dims``.
        RuntimeError: in ``setup``, if the features cannot be built.
    """

    def __init__(
        self,
        features: FeatureExtractor | None = None,
        num_samples: int = 10_000,
        every_n_epochs: int = 10,
        neighbours: int = 3,
    ) -> None:
        super().__init__(every_n_epochs)
        self.features = InceptionFeatures() if features is None else features
        self.neighbours = whole_number("neighbours", neighbours, at_least=1)
        self.num_samples = whole_number("num_samples", num_samples, at_least=self.neighbours + 1)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module without ``sample``, build the features, and dry-run them."""
        super().setup(trainer, pl_module, stage)
        self.reset(trainer, pl_module)
        if stage == "predict":
            return
        if not hasattr(pl_module, "sample"):
            model = type(pl_module).__name__
            raise ConfigurationError(f"SampleQuality needs a module with sample(n); {model} has none")
        device, examples = trainer.strategy.root_device, dummy_batch(pl_module)
        with isolate_rng():  # a new network draws initial weights
            if self.every_n_epochs or stage == "test":
                self.features.build()
            self.features.to(device)
            if examples is not None and self.features.is_built:
                shape = tuple(examples.shape[1:])
                complaint = f"features={self.features.name} cannot be had of examples of the shape {shape}"
                try_forward(complaint, self.features, examples.to(device))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the examples of a batch, if there is no validation."""
        if self.is_under_way(trainer):
            real = inputs_of(pl_module, batch)[: share(trainer, self.num_samples) - sum(map(len, self._kept))]
            if len(real):
                self._kept.append(real.cpu())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the scores of this epoch, if there is no validation."""
        if self.is_under_way(trainer):
            with torch.no_grad():
                for batch_idx, real in enumerate(self._kept):
                    self._compare(trainer, pl_module, real.to(trainer.strategy.root_device), batch_idx)
                self.log_results(trainer, pl_module, "train")

    def is_under_way(self, trainer: Trainer) -> bool:
        """Whether training examples of this epoch are kept, which no checkpoint holds (see ``RandomStates``)."""
        return not sum(trainer.num_val_batches) and self.is_due(trainer)

    def reset(self, trainer: Trainer, module: LightningModule) -> None:
        """Drop all features."""
        self._real: list[Tensor] = []  # features, of this process
        self._generated: list[Tensor] = []
        self._points: list[Tensor] = []  # the samples themselves, if the modes are known
        self._kept: list[Tensor] = []  # training examples, to compare at the end of the epoch

    def update(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Add the features of a batch and of as many samples."""
        self._compare(trainer, module, inputs_of(module, batch), batch_idx)

    def _compare(self, trainer: Trainer, module: LightningModule, real: Tensor, batch_idx: int) -> None:
        real = real[: share(trainer, self.num_samples) - sum(map(len, self._real))]
        if not len(real):
            return
        with isolate_rng():
            torch.manual_seed(batch_idx * trainer.world_size + trainer.global_rank)
            with trainer.precision_plugin.val_step_context():
                generated: Tensor = module.sample(len(real))  # type: ignore[operator]
            if generated.dim() == 2:  # a decoder may return flat ones
                generated = generated.reshape(real.shape)
            pixels = value_range(trainer, module)
            self._real.append(self.features(self.features.mapped(real, pixels)))
            self._generated.append(self.features(self.features.mapped(generated, pixels)))
        if of_data(trainer, "modes") is not None:
            self._points.append(generated)

    def compute(self, trainer: Trainer, module: LightningModule) -> dict[str, Tensor]:
        """Return the scores, none with too few examples."""
        device = trainer.strategy.root_device
        mine = torch.tensor([sum(map(len, self._real)), self._real[0].shape[1] if self._real else 0], device=device)
        counts, widths = trainer.strategy.all_gather(mine).view(-1, 2).unbind(1)  # a process may have none
        count, width = int(counts.sum()), int(widths.max())
        if count <= self.neighbours:
            needed = f"more real examples than neighbours={self.neighbours}"
            rank_zero_warn(f"SampleQuality needs {needed}; got {count}: nothing logged")
            return {}
        metrics: dict[str, Any] = {"frechet_distance": FrechetDistance(width), "kernel_distance": KernelDistance()}
        metrics["precision_recall"] = PrecisionRecall(self.neighbours)
        scores = MetricCollection(metrics, compute_groups=False).to(device)
        scores.update(_joined(self._real, width, device), real=True)
        scores.update(_joined(self._generated, width, device), real=False)
        results = {f"{name}_{self.features.name}_{count}": score for name, score in scores.compute().items()}
        modes = of_data(trainer, "modes")
        if modes is not None:
            coverage = ModeCoverage(modes, of_data(trainer, "std")).to(device)
            coverage.update(_joined(self._points, modes.shape[1], device))
            results |= {f"coverage_{name}": value for name, value in coverage.compute().items()}
        return results


def _joined(parts: list[Tensor], width: int, device: torch.device) -> Tensor:
    """Concatenate parts ``(B, width)``; there may be none."""
    return torch.cat([torch.zeros(0, width, device=device), *parts])
