"""How good the samples of a model are, by the features of them and of real examples."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torchmetrics import MetricCollection

from lit_bottleneck.arguments import whole_number
from lit_bottleneck.metrics import (
    FeatureExtractor,
    FrechetDistance,
    InceptionFeatures,
    KernelDistance,
    ModeCoverage,
    PrecisionRecall,
)


class SampleQuality(Callback):
    """Compare as many samples of a model as there are real examples, in validation every few epochs and in test.

    For any module with ``sample(n)``. Logged as ``val/...`` and ``test/...`` are ``frechet_distance``,
    ``kernel_distance``, ``precision`` and ``recall``, each with the features' name and version and the number of samples
    behind it: ``test/frechet_distance_vibclassifier-3f2a1c9e_10000``. Scores of different names cannot be compared. Where
    the datamodule knows its ``modes`` and their ``std`` (`data.Ring`), also ``coverage_good``, ``coverage_modes``, ...,
    see `metrics.mode_coverage`.

    The scores and the network of the features are the callback's own: neither in the checkpoint nor seen by DDP. The
    noise is the same in every epoch, and none of it is taken from that of the training.

    Args:
        features: what examples are compared by. Default: `InceptionFeatures`, whose weights are downloaded; offline,
            `CodeFeatures` of a classifier of this library, or `RawFeatures`.
        num_samples: real examples (and as many samples), over all processes, or as many as the split has.
        every_n_epochs: in validation; the last epoch is measured too. 0: in test only.
        neighbours: of `metrics.PrecisionRecall`.

    Raises:
        ValueError: for numbers out of range.
    """

    def __init__(
        self,
        features: FeatureExtractor | None = None,
        num_samples: int = 10_000,
        every_n_epochs: int = 10,
        neighbours: int = 3,
    ) -> None:
        self.features = InceptionFeatures() if features is None else features
        self.num_samples = whole_number("num_samples", num_samples, at_least=2)
        self.every_n_epochs = whole_number("every_n_epochs", every_n_epochs, at_least=0)
        self.neighbours = whole_number("neighbours", neighbours, at_least=1)
        self._scores: MetricCollection | None = None
        self._coverage: ModeCoverage | None = None
        self._count = 0

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take in the features of a batch and of as many samples."""
        if self._is_due(trainer):
            self._add(trainer, pl_module, batch, batch_idx)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take in the features of a batch and of as many samples."""
        self._add(trainer, pl_module, batch, batch_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what the samples of this epoch are like."""
        if self._is_due(trainer):
            self._log(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what the samples are like."""
        self._log(trainer, pl_module, "test")

    def _is_due(self, trainer: Trainer) -> bool:
        if trainer.sanity_checking:
            return False
        epoch, every = trainer.current_epoch + 1, self.every_n_epochs
        return trainer.state.fn != TrainerFn.FITTING or (every > 0 and (epoch % every == 0 or epoch == trainer.max_epochs))

    def _add(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        if not hasattr(module, "sample"):
            raise TypeError(f"SampleQuality needs a module with sample(n); {type(module).__name__} has none")
        if batch_idx == 0:
            self._begin(trainer, module)
        real: Tensor = batch[0] if isinstance(batch, (tuple, list)) else batch
        real = real[: max(0, -(-self.num_samples // trainer.world_size) - self._count)]
        if not len(real) or self._scores is None:
            return
        self._count += len(real)
        with isolate_rng():
            torch.manual_seed(batch_idx * trainer.world_size + trainer.global_rank)
            generated = module.sample(len(real))  # type: ignore[operator]
        if self._coverage is not None:
            self._coverage.update(generated)
        for examples, is_real in ((real, True), (generated, False)):
            features = self.features(self._in_range(trainer, module, examples))
            if not self._scores:
                self._scores.add_metrics(
                    {
                        "frechet_distance": FrechetDistance(features.shape[1]),
                        "kernel_distance": KernelDistance(),
                        "neighbours": PrecisionRecall(self.neighbours),
                    }
                )
                self._scores.to(module.device)
            self._scores.update(features, real=is_real)

    def _begin(self, trainer: Trainer, module: LightningModule) -> None:
        self.features.to(module.device)
        self._count, self._scores = 0, MetricCollection({}, compute_groups=False)
        data = getattr(trainer, "datamodule", None)
        modes = getattr(data, "modes", None)
        self._coverage = None if modes is None else ModeCoverage(modes, data.std).to(module.device)

    def _in_range(self, trainer: Trainer, module: LightningModule, examples: Tensor) -> Tensor:
        """Map the range of the data to that which the features are of."""
        theirs = getattr(getattr(trainer, "datamodule", None), "value_range", None) or getattr(module, "value_range", None)
        ours = self.features.value_range
        if theirs is None or ours is None or tuple(theirs) == ours:
            return examples
        return (examples.float() - theirs[0]) / (theirs[1] - theirs[0]) * (ours[1] - ours[0]) + ours[0]

    def _log(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        if self._scores is None:
            return
        count = int(trainer.strategy.reduce(torch.tensor(float(self._count), device=module.device), reduce_op="sum"))
        scores = {f"{name}_{self.features.name}_{count}": score for name, score in self._scores.compute().items()}
        if self._coverage is not None:
            scores |= {f"coverage_{name}": value for name, value in self._coverage.compute().items()}
        module.log_dict({f"{stage}/{name}": score for name, score in scores.items()}, sync_dist=trainer.world_size > 1)
        self._scores = self._coverage = None
