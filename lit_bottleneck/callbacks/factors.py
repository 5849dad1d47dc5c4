"""Scores of codes against known factors of variation."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor

from lit_bottleneck.callbacks.code_measurement import CodeFunction, CodeMeasurement
from lit_bottleneck.callbacks.run import of_data, share
from lit_bottleneck.checks import ConfigurationError, one_of, whole_number
from lit_bottleneck.metrics import DCI, MIG, SAP, FactorProbe
from lit_bottleneck.metrics.factor_metric import FactorError, FactorMetric
from lit_bottleneck.metrics.factor_probe import ProbeKind


class Factors(CodeMeasurement):
    """Compare mean codes with known factors, in test and, if ``every_n_epochs`` is set, in validation.

    For any module with ``encode(x, sample=False) -> Code``, with a bottleneck after its ``encoder`` or a
    ``BottleneckLayer`` at the encoder's end, or with codes that ``code`` returns. With a mask, an example's code is the
    average over its unmasked positions. Logged as ``test/...`` (and ``val/...``) are, for a factor ``rotation``,
    ``probe_linear_rotation`` and ``probe_mlp_rotation`` (see ``metrics.FactorProbe``; for classes also
    ``probe_linear_rotation_chance``), and for all factors together ``mig``, ``sap``, each also by factor as
    ``mig_rotation``, and ``dci_disentanglement``, ``dci_completeness``, ``dci_informativeness`` (see ``metrics.MIG``,
    ``metrics.SAP`` and ``metrics.DCI``).

    Factors ``(B, F)`` or ``(B,)`` are the third element of a batch ``(x, y, factors)``, or ``factors`` of a dictionary,
    or the second of a batch ``(x, factors)`` if they are floating-point and ``(B, F)``. Their names are the
    datamodule's ``factor_names``, if it has them. If it has ``factor_indices`` (as ``data.Shapes``), this turns numbers
    into classes; otherwise floating-point factors are numbers, and integer ones classes.

    Args:
        probes: any of ``"linear"`` and ``"mlp"``.
        disentanglement: whether to measure ``mig``, ``sap`` and ``dci_...``, which needs 2 factors.
        max_rows: number of examples, over all processes: the first of the first dataloader.
        every_n_epochs: epochs between two measurements in validation; the last epoch is measured too. 0: in test only.
        code: from module and batch to a ``Code``, or to ``(Code, mask)`` with a mask ``(B, *positions)``; in a recipe
            its import path. Default: see above.
        dim: dimension of the K numbers of codes with a mask, as in ``bottleneck``: -1 for sequences ``(B, T, K)``.
        name: of these codes, where several are measured; then results are logged as ``test/name/...``.

    Raises:
        ConfigurationError: for arguments out of range; for codes that do not fit, see ``CodeMeasurement``; in
            ``setup``, for a datamodule whose ``factor_names`` are empty; at the first batch, if it has no factors.
    """

    def __init__(
        self,
        probes: Sequence[ProbeKind] = ("linear", "mlp"),
        disentanglement: bool = True,
        max_rows: int = 10_000,
        every_n_epochs: int = 0,
        code: CodeFunction | None = None,
        dim: int = 1,
        name: str = "",
    ) -> None:
        super().__init__(every_n_epochs, code, dim, name)
        self.probes = tuple(one_of("probes", kind, ("linear", "mlp")) for kind in probes)
        self.disentanglement = disentanglement
        self.max_rows = whole_number("max_rows", max_rows, at_least=4)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse modules without codes and data without factors."""
        super().setup(trainer, pl_module, stage)
        if stage != "predict" and _names(trainer) == ():
            data = type(trainer.datamodule).__name__  # type: ignore[attr-defined]
            way_out = "take data.Shapes, or give images a nuisance (--data.init_args.nuisance)"
            raise ConfigurationError(f"Factors needs data of known factors, and {data} has factor_names=(): {way_out}")

    def check_batch(self, trainer: Trainer, module: LightningModule, batch: Any) -> None:
        """Refuse a batch without codes, or, if validation is measured, without factors."""
        super().check_batch(trainer, module, batch)
        if self.every_n_epochs:
            self._rows(trainer, module, batch)

    def reset(self, trainer: Trainer, module: LightningModule) -> None:
        """Drop all codes."""
        self._codes: list[Tensor] = []  # of this process
        self._factors: list[Tensor] = []

    def update(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Add the codes of a batch."""
        wanted = share(trainer, self.max_rows) - sum(map(len, self._codes))
        if wanted > 0:
            codes, factors = self._rows(trainer, module, batch)
            self._codes.append(codes[:wanted])
            self._factors.append(factors[:wanted])

    def compute(self, trainer: Trainer, module: LightningModule) -> dict[str, Tensor]:
        """Return the scores of all metrics that the factors allow."""
        results: dict[str, Tensor] = {}
        names = _names(trainer)
        metrics: list[tuple[str, FactorMetric]] = [
            (f"probe_{kind}_", FactorProbe(kind, names=names, max_rows=self.max_rows)) for kind in self.probes
        ]
        if self.disentanglement:
            metrics += [("", MIG(names=names)), ("", SAP(names=names)), ("dci_", DCI(names=names))]
        for prefix, metric in metrics:
            metric.to(trainer.strategy.root_device)
            if self._codes:
                metric.update(torch.cat(self._codes), torch.cat(self._factors))
            try:
                results |= {f"{prefix}{name}": score for name, score in metric.compute().items()}
            except FactorError as error:  # on all processes, since each has gathered all rows by now
                rank_zero_warn(f"Factors logs no {prefix or type(metric).__name__}: {error}")
        return results

    def _rows(self, trainer: Trainer, module: LightningModule, batch: Any) -> tuple[Tensor, Tensor]:
        """Return the mean codes of a batch and its factors, of those examples that have a code."""
        factors = _factors(trainer, batch)
        code, mask = self.codes(trainer, module, batch)
        if len(code.mean) != len(factors):
            raise ConfigurationError(
                f"{self._who} needs a code for each of {len(factors)} factors; got {len(code.mean)}"
            )
        if mask is None:
            return code.mean.detach(), factors
        means = code.mean.detach().movedim(self.dim, -1).masked_fill(~mask[..., None], 0)
        counts = mask.view(len(mask), -1).sum(1)
        means = means.reshape(len(mask), -1, means.shape[-1]).sum(1) / counts[:, None]
        return means[counts > 0], factors[counts > 0]


def _factors(trainer: Trainer, batch: Any) -> Tensor:
    """Return the factors of a batch, as classes if the datamodule has ``factor_indices``."""
    if isinstance(batch, Mapping) and "factors" in batch:
        batch = (None, None, batch["factors"])
    parts = batch if isinstance(batch, (tuple, list)) else [batch]
    if len(parts) > 2 and isinstance(parts[2], Tensor) and parts[2].dim() in (1, 2):
        factors = parts[2]
    elif len(parts) == 2 and isinstance(parts[1], Tensor) and parts[1].dim() == 2 and parts[1].is_floating_point():
        factors = parts[1]
    else:
        kinds = [f"{p.dtype} {tuple(p.shape)}" if isinstance(p, Tensor) else type(p).__name__ for p in parts]
        needed = "batches (x, y, factors), {'factors': ...}, or (x, factors) with floating (B, F), as of data.Shapes"
        raise ConfigurationError(f"Factors needs {needed}; got ({', '.join(kinds)})")
    names = _names(trainer)
    if names is not None and len(names) != (factors.shape[1] if factors.dim() == 2 else 1):
        raise ConfigurationError(f"the data's factor_names={names} need as many factors; got {tuple(factors.shape)}")
    indices = of_data(trainer, "factor_indices")
    return factors if indices is None or not factors.is_floating_point() else indices(factors)


def _names(trainer: Trainer) -> tuple[str, ...] | None:
    names = of_data(trainer, "factor_names")
    return None if names is None else tuple(names)
