"""Inputs of a model from columns of a table, by plain values that were fitted to the training rows."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data.table_columns import Column, Columns, as_numbers, as_text, is_text, reads_as_number

LARGEST = 1e150  # of a number in a table: its square is finite


@dataclass(frozen=True)
class InputEncoding:
    """Encoding of inputs, fitted to the training rows.

    The inputs are, in this order: the numbers, missing ones imputed with the median, standardised; a mask for each
    number in ``masked``, 1 where it is missing; and for each text one column a category, and one for all unknown ones.

    Args:
        numbers: names of the columns of numbers.
        medians: their medians.
        means: their means, once imputed.
        scales: their standard deviations; 1 for a constant column.
        masked: those of which values were missing.
        categories: the known categories of each column of text.
    """

    numbers: list[str] = field(default_factory=list)
    medians: list[float] = field(default_factory=list)
    means: list[float] = field(default_factory=list)
    scales: list[float] = field(default_factory=list)
    masked: list[str] = field(default_factory=list)
    categories: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def fit(cls, columns: Columns, min_frequency: int, max_categories: int = 1000) -> "InputEncoding":
        """Return the encoding of training rows.

        Args:
            columns: the inputs of the training rows.
            min_frequency: a category in fewer rows counts as unknown.
            max_categories: of each column; less frequent ones count as unknown.

        Raises:
            ConfigurationError: for a column without any value, or of as many categories as rows.
        """
        texts = {name: values for name, values in columns.items() if is_text(values)}
        categories = {name: _known(name, values, min_frequency, max_categories) for name, values in texts.items()}
        numbers = [name for name in columns if name not in categories]
        if not numbers:
            return cls(categories=categories)
        missing = {name: np.isnan(columns[name]) for name in numbers}
        for name in numbers:
            if missing[name].all():
                raise ConfigurationError(f"column {name!r} has no value in the training rows: leave it out (ignore)")
        values = _stacked(columns, numbers)
        imputer = SimpleImputer(strategy="median").fit(values)
        scaler = StandardScaler().fit(imputer.transform(values))
        masked = [name for name in numbers if missing[name].any()]
        fitted = (imputer.statistics_.tolist(), scaler.mean_.tolist(), scaler.scale_.tolist())
        return cls(numbers, *fitted, masked, categories)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns that it reads."""
        return (*self.numbers, *self.categories)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the F inputs of a model."""
        texts = [f"{name}={value}" for name, known in self.categories.items() for value in known]
        unknown = [f"{name} unknown" for name in self.categories]
        return (*self.numbers, *(f"{name} missing" for name in self.masked), *texts, *unknown)

    def encode(self, columns: Columns) -> Tensor:
        """Return the inputs of a model, float32 ``(N, F)``.

        Raises:
            ConfigurationError: for text where numbers were, infinite values, or rows without any value.
        """
        columns = {name: as_text(columns[name]) for name in self.categories} | {
            name: as_numbers(name, columns[name]) for name in self.numbers
        }
        check_inputs(columns)
        numbers = self._numbers(columns)
        rows = len(next(iter(columns.values())))
        encoded = torch.zeros(rows, len(self.feature_names), dtype=torch.float32)
        encoded[:, : numbers.shape[1]] = numbers
        place, unknown = numbers.shape[1], encoded.shape[1] - len(self.categories)
        for name, known in self.categories.items():
            places = {value: place + index for index, value in enumerate(known)}
            chosen = torch.tensor([places.get(text, unknown) for text in columns[name]], dtype=torch.int64)
            encoded.scatter_(1, chosen[:, None], 1.0)
            place, unknown = place + len(known), unknown + 1
        return encoded

    def _numbers(self, columns: Columns) -> Tensor:
        """Return the inputs that stand for numbers: their values and masks."""
        if not self.numbers:
            return torch.zeros(len(next(iter(columns.values()))), 0, dtype=torch.float32)
        values = _stacked(columns, self.numbers)
        missing = torch.from_numpy(np.isnan(values[:, [self.numbers.index(name) for name in self.masked]]))
        imputer = SimpleImputer(strategy="median").fit([self.medians])
        scaled = standard_scaler(self.means, self.scales).transform(imputer.transform(values))
        return torch.cat([in_float32(scaled, self.numbers), missing.float()], 1)

    def state(self) -> dict[str, Any]:
        """Return its arguments, as plain values."""
        return asdict(self)


def standard_scaler(means: Sequence[float], scales: Sequence[float]) -> StandardScaler:
    """Return scikit-learn's scaler, fitted to these means and standard deviations."""
    scaler = StandardScaler()
    scaler.mean_, scaler.scale_, scaler.n_features_in_ = np.array(means), np.array(scales), len(means)
    return scaler


def in_float32(values: NDArray[np.float64], names: Sequence[str]) -> Tensor:
    """Return values ``(N, F)`` in float32.

    Raises:
        ConfigurationError: if one is too large for it, with its column's name.
    """
    converted = torch.from_numpy(values).float()
    if not converted.isfinite().all():
        row, place = (~converted.isfinite()).nonzero()[0].tolist()
        told = f"column {names[place]!r} has {values[row, place]:g} in row {row}, in the units of its training rows"
        raise ConfigurationError(f"{told}, too much for float32: correct the value, or leave out the row")
    return converted


def check_inputs(columns: Columns) -> None:
    """Refuse infinite numbers, and rows without any value.

    Raises:
        ConfigurationError: with column and row.
    """
    for name, column in columns.items():
        large = np.flatnonzero(np.abs(column) > LARGEST) if not is_text(column) else np.array([])
        if len(large):
            what = f"{column[large[0]]} in row {large[0]}"
            advice = "leave out the row, or the value (a missing input is imputed)"
            raise ConfigurationError(f"column {name!r} must hold numbers up to {LARGEST:g}; got {what}: {advice}")
    missing = [column == "" if is_text(column) else np.isnan(column) for column in columns.values()]
    rows = np.flatnonzero(np.all(missing, axis=0))
    if len(rows):
        raise ConfigurationError(f"{len(rows)} rows have no value in any column, such as row {rows[0]}: leave them out")


def check_mixed(columns: Columns, categorical: Collection[str]) -> None:
    """Refuse numbers with some text among them, other than in the ``categorical`` columns.

    Raises:
        ConfigurationError: with column and text.
    """
    for name in columns.keys() - set(categorical):
        found = set(columns[name]) - {""} if is_text(columns[name]) else set()
        others = sorted(text for text in found if not reads_as_number(text))
        if others and 2 * len(others) <= len(found):
            advice = f"leave a missing number empty, or say that all is text: categorical=[{name!r}]"
            raise ConfigurationError(f"column {name!r} mixes numbers and text such as {others[0]!r}: {advice}")


def _stacked(columns: Columns, names: Sequence[str]) -> NDArray[np.float64]:
    """Return columns of numbers as ``(N, F)``."""
    return np.stack([columns[name] for name in names], 1)


def _known(name: str, column: Column, min_frequency: int, max_categories: int) -> list[str]:
    """Return the categories that occur often enough, sorted; a missing value is the category of no text."""
    found = Counter(column.tolist())
    known = [text for text, count in sorted(found.items()) if count >= min_frequency]
    if not known or len(found) >= len(column):
        told = f"column {name!r} has {len(found)} categories in {len(column)} training rows"
        raise ConfigurationError(f"{told}, too many to learn from: leave it out (ignore=[{name!r}])")
    return sorted(sorted(known, key=lambda text: -found[text])[:max_categories])
