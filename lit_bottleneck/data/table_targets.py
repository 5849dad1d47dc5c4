"""Targets of a model from columns of a table, by plain values that were fitted to the training rows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data.table_columns import Column, Columns, as_text, is_text, reads_as_number
from lit_bottleneck.data.table_inputs import LARGEST, in_float32, standard_scaler


@dataclass(frozen=True)
class TargetEncoding:
    """Encoding of targets, fitted to the training rows.

    Args:
        task: "regression", "classification" or "multilabel".
        names: names of the T columns.
        means: mean of each in the training rows (regression).
        scales: standard deviation of each.
        classes: the classes in the order of their indices (classification).
    """

    task: str
    names: list[str]
    means: list[float] = field(default_factory=list)
    scales: list[float] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)

    @classmethod
    def fit(cls, task: str, columns: Columns, rows: NDArray[np.int64], standardize: bool) -> "TargetEncoding":
        """Return the encoding of targets: classes of all rows, means and deviations of the training rows alone.

        Args:
            task: see the class.
            columns: the targets of all rows.
            rows: the training rows.
            standardize: False keeps regression targets in their units.

        Raises:
            ConfigurationError: for targets that are missing, infinite or constant, or that the task does not fit.
        """
        names = list(columns)
        if task == "classification":
            return cls(task, names, classes=_classes(columns))
        values = _target_numbers(task, columns)
        fitted = values if task == "multilabel" else values[rows]  # a label may be too rare for the training rows
        for name, column in zip(names, fitted.T, strict=True):
            if np.ptp(column) == 0:
                told = f"target {name!r} is constant, {column[0]:g} in all {len(column)} rows"
                raise ConfigurationError(f"{told} to learn from: choose another target")
        if task == "multilabel":
            return cls(task, names)
        if not standardize:
            return cls(task, names, [0.0] * len(names), [1.0] * len(names))
        scaler = StandardScaler().fit(values[rows])
        for name, scale in zip(names, scaler.scale_.tolist(), strict=True):
            if not 1e-30 < scale < 1e30:  # float32, in which models keep it
                told = f"target {name!r} has a standard deviation of {scale:g}"
                raise ConfigurationError(f"{told}: give it in other units, so that it is between 1e-30 and 1e30")
        return cls(task, names, scaler.mean_.tolist(), scaler.scale_.tolist())

    def encode(self, columns: Columns) -> Tensor:
        """Return regression targets, float32 ``(N, T)``, classes, int64 ``(N,)``, or labels, int64 ``(N, T)``.

        Raises:
            ConfigurationError: see ``fit``; also for a class that is not among ``classes``.
        """
        columns = {name: columns[name] for name in self.names}
        if self.task == "classification":
            return _class_indices(columns, self.classes)
        values = _target_numbers(self.task, columns)
        if self.task == "multilabel":
            return torch.from_numpy(values).to(torch.int64)
        return in_float32(standard_scaler(self.means, self.scales).transform(values), self.names)

    def state(self) -> dict[str, Any]:
        """Return its arguments, as plain values."""
        return asdict(self)


def _check_targets(name: str, column: Column) -> None:
    rows = np.flatnonzero(column == "" if is_text(column) else ~(np.abs(column) <= LARGEST))
    if len(rows):
        came = "no value" if is_text(column) or np.isnan(column[rows[0]]) else f"{column[rows[0]]}"
        told = f"target {name!r} must have a finite value in each row; got {came} in row {rows[0]}"
        raise ConfigurationError(f"{told} ({len(rows)} such rows): leave them out")


def _target_numbers(task: str, columns: Columns) -> NDArray[np.float64]:
    """Return targets that are numbers as ``(N, T)``."""
    for name, column in columns.items():
        if is_text(column) and task == "multilabel":
            columns = columns | {name: (column := _bits(column))}
        if is_text(column):
            advice = "task='classification' reads classes" if task == "regression" else "write 0 and 1"
            raise ConfigurationError(f"target {name!r} holds text, such as {column[0]!r}: {advice}")
        _check_targets(name, column)
        if task == "multilabel" and not np.isin(column, (0, 1)).all():
            came = column[~np.isin(column, (0, 1))][0]
            raise ConfigurationError(f"task='multilabel' needs targets of 0 and 1; got {came:g} in {name!r}")
    return np.stack(list(columns.values()), 1)


def _bits(column: Column) -> Column:
    """Return text of "True" and "False" as numbers; other text as it is."""
    bits = {"True": 1.0, "False": 0.0, "": np.nan}
    return np.array([bits[text] for text in column]) if set(column) <= bits.keys() else column


def _labels(columns: Columns) -> tuple[str, Column]:
    """Return name and text of the one target of a classification."""
    [(name, column)] = columns.items()
    _check_targets(name, column)
    if not is_text(column) and (column % 1).any():
        came = column[column % 1 != 0][0]
        told = f"task='classification' needs a target of whole numbers or text; got {came:g} in {name!r}"
        raise ConfigurationError(f"{told}; task='regression' reads numbers")
    return name, as_text(column)


def _classes(columns: Columns) -> list[str]:
    name, labels = _labels(columns)
    classes = sorted(set(labels), key=lambda text: (float(text), text) if reads_as_number(text) else (np.inf, text))
    if len(classes) < 2:
        raise ConfigurationError(f"target {name!r} is constant, {classes[0]!r} in all rows: choose another target")
    if len(classes) >= len(labels):
        told = f"target {name!r} has {len(classes)} classes in {len(labels)} rows"
        raise ConfigurationError(f"{told}: choose another target, or task='regression'")
    return classes


def _class_indices(columns: Columns, classes: Sequence[str]) -> Tensor:
    name, labels = _labels(columns)
    indices = {text: index for index, text in enumerate(classes)}
    unknown = [label for label in labels if label not in indices]
    if unknown:
        raise ConfigurationError(f"target {name!r} must be one of the classes {list(classes)[:10]}; got {unknown[0]!r}")
    return torch.tensor([indices[label] for label in labels], dtype=torch.int64)
