"""How good the samples of a model are, by the features of them and of real examples."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor
from torchmetrics import MetricCollection

from lit_bottleneck.callbacks.measurement import Measurement
from lit_bottleneck.callbacks.value_range import value_range
from lit_bottleneck.checks import whole_number
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
    """Compare as many samples of a model as there are real examples, in validation every few epochs and in test.

    Where nothing is validated, they are compared with the training examples of the epoch, and logged as ``train/...``.

    For any module with ``sample(n)``. Logged as ``val/...`` and ``test/...`` are ``frechet_distance``,
    ``kernel_distance``, ``precision`` and ``recall``, each with the features' name and version and the number of
    samples behind it: ``test/frechet_distance_vibclassifier-3f2a1c9e_10000``. Scores of different names cannot be
    compared. Where the datamodule knows its ``modes`` and their ``std`` (`data.Ring`), also ``coverage_good``,
    ``coverage_modes``, ..., see `metrics.mode_coverage`.

    Samples are drawn in the trainer's precision, from the same noise in every epoch, and none of it is taken from that
    of the training. The network of the features is the callback's own: neither in the checkpoint nor seen by DDP. Where
    the datamodule (or else the module) tells its ``value_range``, this is mapped to that of the features.

    Args:
        features: what examples are compared by. Default: `InceptionFeatures`, whose weights are downloaded; offline,
            `CodeFeatures` of a classifier of this library, or `RawFeatures`.
        num_samples: real examples (and as many samples), over all processes: the first of the first dataloader, or all
            of it if there are less.
        every_n_epochs: epochs from one measurement in training to the next; the last is measured too. 0: in test only.
        neighbours: of `metrics.PrecisionRecall`.

    Raises:
        ValueError: for numbers out of range; there must be more samples than ``neighbours``. In ``setup``, where the
            datamodule tells the ``dims`` of its examples: for features that these do not have.
        TypeError: in ``setup``, for a module without ``sample``.
        RuntimeError: in ``setup``, if `InceptionFeatures` cannot be built.
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
        """Refuse a module that draws nothing, and have the features ready, before there is something to lose."""
        super().setup(trainer, pl_module, stage)
        self.begin(trainer, pl_module)
        if stage == "predict":
            return
        if not hasattr(pl_module, "sample"):
            raise TypeError(f"SampleQuality needs a module with sample(n); {type(pl_module).__name__} has none")
        if self.every_n_epochs or stage == "test":
            with isolate_rng():  # a new network draws its first weights
                self.features.build()
        self.features.to(trainer.strategy.root_device)
        examples = dummy_batch(pl_module)
        if examples is not None and self.features.is_built:
            complaint = (
                f"features={self.features.name} cannot be had of examples of the shape {tuple(examples.shape[1:])}"
            )
            try_forward(complaint, self.features, examples.to(trainer.strategy.root_device))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self.begin(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the examples of a batch, where nothing is validated."""
        if self.is_under_way(trainer):
            real = _examples(batch)[: self._share(trainer) - sum(map(len, self._kept))]
            if len(real):
                self._kept.append(real.cpu())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what the samples of this epoch are like, where nothing was validated."""
        if self.is_under_way(trainer):
            with torch.no_grad():
                for batch_idx, real in enumerate(self._kept):
                    self.take_in(trainer, pl_module, real.to(trainer.strategy.root_device), batch_idx)
                self.log_results(trainer, pl_module, "train")

    def is_under_way(self, trainer: Trainer) -> bool:
        """Whether the training examples of this epoch are kept, which are in no checkpoint."""
        return not sum(trainer.num_val_batches) and self.is_due(trainer)

    def begin(self, trainer: Trainer, module: LightningModule) -> None:
        """Forget all features."""
        self._real: list[Tensor] = []  # features, of this process
        self._generated: list[Tensor] = []
        self._points: list[Tensor] = []  # samples themselves, where the modes are known
        self._kept: list[Tensor] = []  # training examples, to be compared at the end of the epoch

    def _share(self, trainer: Trainer) -> int:
        """How many examples are looked at by this process."""
        return self.num_samples // trainer.world_size + (trainer.global_rank < self.num_samples % trainer.world_size)

    def take_in(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Take in the features of a batch, and of as many samples."""
        real = _examples(batch)[: self._share(trainer) - sum(map(len, self._real))]
        if not len(real):
            return
        with isolate_rng():
            torch.manual_seed(batch_idx * trainer.world_size + trainer.global_rank)
            with trainer.precision_plugin.val_step_context():
                generated: Tensor = module.sample(len(real))  # type: ignore[operator]
            if generated.dim() == 2:  # those of a decoder may be flat
                generated = generated.reshape(real.shape)
            theirs = value_range(trainer, module)
            self._real.append(self.features(self.features.mapped(real, theirs)))
            self._generated.append(self.features(self.features.mapped(generated, theirs)))
        if _modes(trainer) is not None:
            self._points.append(generated)

    def results(self, trainer: Trainer, module: LightningModule) -> dict[str, Tensor]:
        """What the samples are like."""
        device = trainer.strategy.root_device
        mine = torch.tensor([sum(map(len, self._real)), self._real[0].shape[1] if self._real else 0], device=device)
        counts, widths = trainer.strategy.all_gather(mine).view(-1, 2).unbind(1)  # a process may have seen nothing
        count, width = int(counts.sum()), int(widths.max())
        if count <= self.neighbours:
            rank_zero_warn(
                f"SampleQuality needs more real examples than neighbours={self.neighbours}; got {count}: nothing logged"
            )
            return {}
        scores = MetricCollection(
            {
                "frechet_distance": FrechetDistance(width),
                "kernel_distance": KernelDistance(),
                "precision_recall": PrecisionRecall(self.neighbours),
            },
            compute_groups=False,
        ).to(device)
        scores.update(_joined(self._real, width, device), real=True)
        scores.update(_joined(self._generated, width, device), real=False)
        found = {f"{name}_{self.features.name}_{count}": score for name, score in scores.compute().items()}
        modes = _modes(trainer)
        if modes is not None:
            coverage = ModeCoverage(modes, trainer.datamodule.std).to(device)  # type: ignore[attr-defined]
            coverage.update(_joined(self._points, modes.shape[1], device))
            found |= {f"coverage_{name}": value for name, value in coverage.compute().items()}
        return found


def _examples(batch: Any) -> Tensor:
    examples: Tensor = batch[0] if isinstance(batch, (tuple, list)) else batch
    return examples


def _modes(trainer: Trainer) -> Tensor | None:
    """The means of the mixture that the data are of, where the datamodule tells."""
    modes: Tensor | None = getattr(getattr(trainer, "datamodule", None), "modes", None)
    return modes


def _joined(parts: list[Tensor], width: int, device: torch.device) -> Tensor:
    """Parts ``(B, width)`` as one, of which there may be none."""
    return torch.cat([torch.zeros(0, width, device=device), *parts])
