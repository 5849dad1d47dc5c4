"""What the codes of a model say of the factors that the examples were made by."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor

from lit_bottleneck.arguments import one_of, whole_number
from lit_bottleneck.metrics._factors import FactorError, FactorMetric
from lit_bottleneck.metrics.disentanglement import DCI, MIG, SAP
from lit_bottleneck.metrics.probes import FactorProbe, ProbeKind


class Factors(Callback):
    """Compare mean codes with known factors, in test and, if asked for, in validation every few epochs.

    For any module with ``encode(x, sample=False) -> Code``. Logged as ``test/...`` (and ``val/...``) are, for a factor
    ``rotation``, ``probe_linear_rotation`` and ``probe_mlp_rotation`` (see `metrics.probes.probe`; for classes also
    ``probe_linear_rotation_chance``), and of all factors together ``mig``, ``sap``, each also by factor as
    ``mig_rotation``, and ``dci_disentanglement``, ``dci_completeness``, ``dci_informativeness`` (see
    `metrics.disentanglement`).

    Factors ``(B, F)`` or ``(B,)`` are the third of a batch ``(x, y, factors)``, or the second of a batch ``(x,
    factors)`` if they are floating and ``(B, F)``. Their names are the datamodule's ``factor_names``, where it has
    them. Where it has ``factor_indices`` (`data.Shapes`), this turns numbers into classes; else floating factors are
    numbers, and integer ones classes.

    Args:
        probes: which there are: ``"linear"``, ``"mlp"``, both or none.
        disentanglement: whether ``mig``, ``sap`` and ``dci_...`` are measured. The last needs 2 factors.
        max_rows: examples, over all processes: the first of the first dataloader, or all of it if there are less.
        every_n_epochs: epochs from one measurement in training to the next; the last is measured too. 0: in test only.

    Raises:
        ValueError: for arguments out of range; in the first batch, if it has no factors.
        TypeError: in ``setup``, for a module without ``encode``.
    """

    def __init__(
        self,
        probes: Sequence[ProbeKind] = ("linear", "mlp"),
        disentanglement: bool = True,
        max_rows: int = 10_000,
        every_n_epochs: int = 0,
    ) -> None:
        self.probes = tuple(one_of("probes", kind, ("linear", "mlp")) for kind in probes)
        self.disentanglement = disentanglement
        self.max_rows = whole_number("max_rows", max_rows, at_least=4)
        self.every_n_epochs = whole_number("every_n_epochs", every_n_epochs, at_least=0)
        self._measured = 0
        self._forget()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module that codes nothing, before there is something to lose."""
        if stage != "predict" and not hasattr(pl_module, "encode"):
            raise TypeError(f"Factors needs a module with encode(x, sample=False); {type(pl_module).__name__} has none")
        self._measured = 0

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self._forget()

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self._forget()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take in the codes of a batch."""
        if dataloader_idx == 0 and self.every_n_epochs and trainer.sanity_checking:
            _factors(trainer, batch)  # if it has none, this is the time to say so
        if dataloader_idx == 0 and self._is_due(trainer):
            self._add(trainer, pl_module, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take in the codes of a batch."""
        if dataloader_idx == 0:
            self._add(trainer, pl_module, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what the codes of this epoch say."""
        if self._is_due(trainer):
            self._log(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what the codes say."""
        self._log(trainer, pl_module, "test")

    def _forget(self) -> None:
        self._codes: list[Tensor] = []  # of this process
        self._factors: list[Tensor] = []

    def _is_due(self, trainer: Trainer) -> bool:
        """Whether codes are looked at in this epoch."""
        if trainer.sanity_checking or not self.every_n_epochs:
            return False
        epoch = trainer.current_epoch + 1
        last = epoch == trainer.max_epochs or 0 <= trainer.max_steps <= trainer.global_step
        fitting = trainer.state.fn == TrainerFn.FITTING
        return not fitting or last or epoch - self._measured >= self.every_n_epochs

    def _add(self, trainer: Trainer, module: LightningModule, batch: Any) -> None:
        factors = _factors(trainer, batch)
        share = self.max_rows // trainer.world_size + (trainer.global_rank < self.max_rows % trainer.world_size)
        wanted = share - sum(map(len, self._codes))
        if wanted <= 0:
            return
        with trainer.precision_plugin.val_step_context():
            mean: Tensor = module.encode(batch[0], sample=False).mean  # type: ignore[operator]
        self._codes.append(mean[:wanted].detach())
        self._factors.append(factors[:wanted])

    def _log(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        self._measured = trainer.current_epoch + 1
        for prefix, metric in self._metrics(_names(trainer)):
            metric.to(trainer.strategy.root_device)
            if self._codes:
                metric.update(torch.cat(self._codes), torch.cat(self._factors))
            try:
                scores = metric.compute()
            except FactorError as error:  # in all processes, since all of them have all rows by now
                rank_zero_warn(f"Factors logs no {prefix or type(metric).__name__}: {error}")
                continue
            scores = {f"{stage}/{prefix}{name}": score for name, score in scores.items()}
            module.log_dict(scores, sync_dist=trainer.world_size > 1)
        self._forget()

    def _metrics(self, names: Sequence[str] | None) -> list[tuple[str, FactorMetric]]:
        """What is measured, each with what its names begin with."""
        metrics: list[tuple[str, FactorMetric]] = [
            (f"probe_{kind}_", FactorProbe(kind, names=names, max_rows=self.max_rows)) for kind in self.probes
        ]
        if self.disentanglement:
            metrics += [("", MIG(names=names)), ("", SAP(names=names)), ("dci_", DCI(names=names))]
        return metrics


def _factors(trainer: Trainer, batch: Any) -> Tensor:
    """The factors of a batch, as classes where the datamodule knows these."""
    parts = batch if isinstance(batch, (tuple, list)) else [batch]
    if len(parts) > 2 and isinstance(parts[2], Tensor) and parts[2].dim() in (1, 2):
        factors = parts[2]
    elif len(parts) == 2 and isinstance(parts[1], Tensor) and parts[1].dim() == 2 and parts[1].is_floating_point():
        factors = parts[1]
    else:
        found = ", ".join(
            f"{part.dtype} {tuple(part.shape)}" if isinstance(part, Tensor) else type(part).__name__ for part in parts
        )
        raise ValueError(
            "Factors needs batches (x, y, factors), or (x, factors) with floating factors (B, F), as of data.Shapes; "
            f"got ({found})"
        )
    names = _names(trainer)
    if names is not None and len(names) != (factors.shape[1] if factors.dim() == 2 else 1):
        raise ValueError(f"the datamodule's factor_names={names} need as many factors; got {tuple(factors.shape)}")
    indices = getattr(getattr(trainer, "datamodule", None), "factor_indices", None)
    if indices is None or not factors.is_floating_point():
        return factors
    classes: Tensor = indices(factors)
    return classes


def _names(trainer: Trainer) -> tuple[str, ...] | None:
    names = getattr(getattr(trainer, "datamodule", None), "factor_names", None)
    return None if names is None else tuple(names)
