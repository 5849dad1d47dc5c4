"""What the codes of a model say of the factors that the examples were made by."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor

from lit_bottleneck.callbacks.measurement import Measurement, check_codes, code_of
from lit_bottleneck.checks import one_of, whole_number
from lit_bottleneck.metrics.disentanglement import DCI, MIG, SAP
from lit_bottleneck.metrics.factor_metric import FactorError, FactorMetric
from lit_bottleneck.metrics.probes import FactorProbe, ProbeKind


class Factors(Measurement):
    """Compare mean codes with known factors, in test and, if asked for, in validation every few epochs.

    For any module with ``encode(x, sample=False) -> Code``, or with a bottleneck after its ``encoder``. Logged as
    ``test/...`` (and ``val/...``) are, for a factor
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
        ValueError: for arguments out of range; in ``setup``, for a datamodule whose ``factor_names`` are none; in the
            first batch, if it has no factors.
        TypeError: in ``setup``, for a module of which the codes cannot be had.
    """

    def __init__(
        self,
        probes: Sequence[ProbeKind] = ("linear", "mlp"),
        disentanglement: bool = True,
        max_rows: int = 10_000,
        every_n_epochs: int = 0,
    ) -> None:
        super().__init__(every_n_epochs)
        self.probes = tuple(one_of("probes", kind, ("linear", "mlp")) for kind in probes)
        self.disentanglement = disentanglement
        self.max_rows = whole_number("max_rows", max_rows, at_least=4)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module that codes nothing, and data that tell of no factors, before there is something to lose."""
        super().setup(trainer, pl_module, stage)
        if stage == "predict":
            return
        check_codes(self, pl_module)
        if _names(trainer) == ():
            raise ValueError(
                f"Factors needs data of known factors, and {type(_data(trainer)).__name__} has factor_names=(): take "
                "data.Shapes, or give images a nuisance (--data.init_args.nuisance)"
            )

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take in the codes of a batch, in the epochs that are measured."""
        if dataloader_idx == 0 and self.every_n_epochs and trainer.sanity_checking:
            _factors(trainer, batch)  # if it has none, this is the time to say so
        super().on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def begin(self, trainer: Trainer, module: LightningModule) -> None:
        """Forget all codes."""
        self._codes: list[Tensor] = []  # of this process
        self._factors: list[Tensor] = []

    def take_in(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Take in the codes of a batch."""
        factors = _factors(trainer, batch)
        share = self.max_rows // trainer.world_size + (trainer.global_rank < self.max_rows % trainer.world_size)
        wanted = share - sum(map(len, self._codes))
        if wanted <= 0:
            return
        with trainer.precision_plugin.val_step_context():
            mean = code_of(module, batch[0]).mean
        self._codes.append(mean[:wanted].detach())
        self._factors.append(factors[:wanted])

    def results(self, trainer: Trainer, module: LightningModule) -> dict[str, Tensor]:
        """What the codes say."""
        found: dict[str, Tensor] = {}
        for prefix, metric in self._metrics(_names(trainer)):
            metric.to(trainer.strategy.root_device)
            if self._codes:
                metric.update(torch.cat(self._codes), torch.cat(self._factors))
            try:
                found |= {f"{prefix}{name}": score for name, score in metric.compute().items()}
            except FactorError as error:  # in all processes, since all of them have all rows by now
                rank_zero_warn(f"Factors logs no {prefix or type(metric).__name__}: {error}")
        return found

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
    indices = getattr(_data(trainer), "factor_indices", None)
    if indices is None or not factors.is_floating_point():
        return factors
    classes: Tensor = indices(factors)
    return classes


def _names(trainer: Trainer) -> tuple[str, ...] | None:
    names = getattr(_data(trainer), "factor_names", None)
    return None if names is None else tuple(names)


def _data(trainer: Trainer) -> Any:
    """The datamodule, where there is one."""
    return getattr(trainer, "datamodule", None)
