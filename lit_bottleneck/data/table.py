"""Rows of a table: a CSV or Parquet file, a pandas frame, arrays, or scikit-learn's bundled sets."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from lit_bottleneck.checks import ConfigurationError, one_of, whole_number
from lit_bottleneck.data.base import ExamplesDataModule
from lit_bottleneck.data.dataset import Batch, BatchedDataset, Examples, keep_batch
from lit_bottleneck.data.downloads import MissingDataError
from lit_bottleneck.data.splits import check_val_size, random_split, stratified_split, validation_count
from lit_bottleneck.data.table_columns import BUNDLED, Columns, read_columns, select_rows
from lit_bottleneck.data.table_inputs import InputEncoding, check_inputs, check_mixed
from lit_bottleneck.data.table_targets import TargetEncoding

Task = Literal["regression", "classification", "multilabel"]


class UnlabelledRows(BatchedDataset):
    """Rows of a table without a target: a batch is the inputs alone."""

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return the inputs ``(B, F)`` at ``indices``."""
        return super().__getitems__(indices)[0]


class Table(ExamplesDataModule):
    """Rows of a table, with columns by name.

    A batch is ``(x, y)``. x is float32 ``(B, F)``: numbers, standardised, missing ones imputed with the median; a mask
    for each number that may be missing; and for each column of text one column a category, and one for unknown ones
    (``feature_names``). Mean, deviation, median and categories are those of the training rows alone. y is

    - for a regression float32 ``(B, T)``, standardised alike; ``to_units`` returns it to the units of its columns;
    - for a classification int64 ``(B,)``, indices of ``class_names``, sorted;
    - for several labels ("multilabel") int64 ``(B, T)`` of 0 and 1.

    All that was fitted is kept as plain values in the checkpoint of a trainer, and is read from there: a checkpoint
    predicts raw rows with ``predict_path``, in batches of x alone, without the rows that it was trained on.

    >>> table = Table("diabetes", batch_size=32)
    >>> x, y = next(iter(table.train_dataloader()))
    >>> x.shape, y.shape, table.feature_names[:3]
    (torch.Size([32, 10]), torch.Size([32, 1]), ('age', 'sex', 'bmi'))

    Args:
        path: ``"diabetes"`` or ``"breast_cancer"``, which come with scikit-learn; a file that ends in ``.csv``,
            ``.tsv`` or ``.parquet`` (needs pandas; relative to ``root``, if that is given); a pandas frame; arrays by
            name, of which one ``(N, F)`` called ``x`` counts as ``x0``, ``x1``, ...; or one such array. None: there are
            only rows to predict.
        target: the name of the target's column, or of several.
        task: "regression", "classification" or "multilabel".
        batch_size: examples per batch and process.
        columns: names of the inputs. None: all columns but the target's.
        ignore: names of columns that are no inputs.
        categorical: columns of numbers that are names of categories.
        min_frequency: a category in fewer training rows counts as unknown, from which that column learns.
        max_categories: known ones of a column, each of which is an input of the model; less frequent ones count as
            unknown. Memory grows with rows times inputs.
        standardize_target: False keeps regression targets in their units, for a likelihood of counts or of [0, 1].
        test_size: test examples, a count (int) or a fraction (float); the same rows for every seed.
        predict_path: rows to predict, in any form of ``path``. None: those of the base.
        **kwargs: ``root``, ``num_workers``, ``seed`` and ``val_size``, as for ``ExamplesDataModule``.

    Raises:
        ConfigurationError: if an argument is out of its range. From ``setup``: if columns, targets or values are not as
            described.
    """

    TEST_SEED: ClassVar[int] = 0  # a constant: runs with different seeds are tested on the same rows

    target_dims: tuple[int, ...]
    target_mean: Tensor
    target_scale: Tensor
    target_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    class_names: tuple[str, ...]
    num_classes: int

    def __init__(
        self,
        path: Any = None,
        target: str | Sequence[str] = "target",
        task: Task = "regression",
        batch_size: int = 64,
        *,
        columns: Sequence[str] | None = None,
        ignore: Sequence[str] = (),
        categorical: Sequence[str] = (),
        min_frequency: int = 2,
        max_categories: int = 1000,
        standardize_target: bool = True,
        test_size: int | float = 0.2,
        predict_path: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(dims=None, batch_size=batch_size, **kwargs)
        self.path, self.predict_path = path, predict_path
        self.task: Task = one_of("task", task, get_args(Task))
        self.target = _names("target", target)
        if self.task == "classification" and len(self.target) > 1:
            raise ConfigurationError(f"task='classification' needs one target; got {self.target}: 'multilabel' has any")
        self.columns = None if columns is None else _names("columns", columns)
        self.ignore, self.categorical = _names("ignore", ignore), _names("categorical", categorical)
        self.min_frequency = whole_number("min_frequency", min_frequency, at_least=1)
        self.max_categories = whole_number("max_categories", max_categories, at_least=1)
        self.standardize_target = standardize_target
        self.test_size = check_val_size(test_size, "test_size")
        self._inputs: InputEncoding | None = None
        self._targets: TargetEncoding
        self._ignored: list[str] = []  # columns of the training table that are neither inputs nor targets
        self._table: Columns = {}  # between load and split
        self._encoded: Examples  # all rows of the table

    def setup(self, stage: str | None = None) -> None:
        """Read, split and fit, at the first call only.

        Args:
            stage: for other stages than "fit" nothing is read yet: a trainer that has a checkpoint reads what was
                fitted from there, after this call; without one, the first dataloader reads and fits.

        Raises:
            ConfigurationError: see the class.
        """
        if stage in (None, "fit"):
            super().setup()

    def load(self) -> tuple[Examples, Examples]:
        """Return the rows to train and validate on, and the test rows; the inputs are row numbers."""
        if self.path is None:
            raise MissingDataError("path must be given to train on: a file, a frame, arrays, 'diabetes', ...")
        table = self._table = self._read(self.path)
        names = self._input_names(table) if self._inputs is None else self._inputs.names
        self._ignored = sorted(table.keys() - {*names, *self.target}) if self._inputs is None else self._ignored
        self._check_columns(table, [*names, *self.target])
        check_inputs({name: table[name] for name in names})
        check_mixed({name: table[name] for name in names}, self.categorical)
        total = len(table[self.target[0]])
        labels = torch.zeros(total, dtype=torch.int64)
        if self.task == "classification":
            targets = {name: table[name] for name in self.target}
            labels = TargetEncoding.fit(self.task, targets, np.arange(total), False).encode(targets)
        rows = Examples.of(torch.arange(total), labels)
        test_total = validation_count(self.test_size, total, "test_size")
        training, test = self._split(rows, test_total, self.TEST_SEED)
        return rows.select(training), rows.select(test)

    def split(self, training: Examples, held_out: int) -> tuple[Tensor, Tensor]:
        """Return the positions to train on, to which all is fitted, and the ``held_out`` ones to validate on."""
        kept, held = self._split(training, held_out, self.seed)
        if self._inputs is None:
            self._fit(training.rows[kept].numpy())
        self._encoded = Examples.of(self._fitted().encode(self._table), self._targets.encode(self._table))
        self._table = {}
        return kept, held

    def make_dataset(self, examples: Examples, part: str) -> BatchedDataset:
        """Return the dataset over one part of the rows."""
        return BatchedDataset(Examples(self._encoded.inputs, self._encoded.labels, examples.rows))

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return the rows of ``predict_path`` in batches of x alone, in order; without it, those of the base."""
        if self.predict_path is None:
            return super().predict_dataloader()
        if self._inputs is None and self.path is not None:
            self.setup()
        inputs, table = self._fitted(), self._read(self.predict_path)
        self._check_columns(table, inputs.names)
        x = inputs.encode(table)
        return DataLoader(
            UnlabelledRows(Examples.of(x, torch.zeros(len(x)))),
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            collate_fn=keep_batch,
            pin_memory=torch.cuda.is_available(),
        )

    def to_units(self, y: Tensor) -> Tensor:
        """Return regression targets ``(..., T)``, or their predicted means, in the units of their columns.

        A standard deviation is only multiplied, by ``target_scale``.
        """
        return y * self.target_scale.to(y) + self.target_mean.to(y)

    def state_dict(self) -> dict[str, Any]:
        """Return all that was fitted, as plain values; nothing before ``setup``."""
        if self._inputs is None:
            return {}
        return {"inputs": self._inputs.state(), "targets": self._targets.state(), "ignored": list(self._ignored)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what was fitted, targets and task too; parts that were made are made again."""
        self._adopt(InputEncoding(**state_dict["inputs"]), TargetEncoding(**state_dict["targets"]))
        self._ignored = list(state_dict["ignored"])
        self._datasets = {}

    def _fitted(self) -> InputEncoding:
        if self._inputs is None:
            raise MissingDataError("predict_path needs what was fitted to training rows: give a checkpoint, or path")
        return self._inputs

    def _adopt(self, inputs: InputEncoding, targets: TargetEncoding) -> None:
        self._inputs, self._targets = inputs, targets
        self.target, self.task = tuple(targets.names), targets.task  # type: ignore[assignment]
        self.feature_names, self.target_names = inputs.feature_names, self.target
        self.dims = (len(self.feature_names),)
        if self.task == "regression":
            self.target_dims = (len(self.target),)
            self.target_mean, self.target_scale = torch.tensor(targets.means), torch.tensor(targets.scales)
        else:
            self.class_names = tuple(targets.classes) or self.target
            self.num_classes = len(self.class_names)

    def _fit(self, rows: NDArray[np.int64]) -> None:
        names = self._input_names(self._table)
        training = select_rows({name: self._table[name] for name in names}, rows)
        targets = {name: self._table[name] for name in self.target}
        self._adopt(
            InputEncoding.fit(training, self.min_frequency, self.max_categories),
            TargetEncoding.fit(self.task, targets, rows, self.standardize_target),
        )

    def _split(self, examples: Examples, held_out: int, seed: int) -> tuple[Tensor, Tensor]:
        if self.task == "classification":
            return stratified_split(examples.labels[examples.rows], held_out, seed)
        return random_split(len(examples), held_out, seed)

    def _read(self, source: Any) -> Columns:
        texts = {*self.categorical, *(self._inputs.categories if self._inputs else ())}
        if isinstance(source, str) and source not in BUNDLED and self.root is not None:
            source = self.root / source
        return read_columns(source, texts)

    def _input_names(self, table: Columns) -> list[str]:
        left_out = {*self.target, *self.ignore}
        names = [name for name in (self.columns or table) if name not in left_out]
        if not names:
            raise ConfigurationError(f"columns={self.columns} without target and ignore={self.ignore} leaves no input")
        self._check_columns(table, [*self.ignore, *self.categorical, *names])
        return names

    def _check_columns(self, table: Columns, wanted: Sequence[str]) -> None:
        """Refuse a table that lacks a wanted column, or that has one which the table trained on had not."""
        lacking = [name for name in wanted if name not in table]
        if lacking:
            raise ConfigurationError(f"the table must have a column {lacking[0]!r}; it has {', '.join(table)[:300]}")
        if self._inputs is not None:
            more = [name for name in table if name not in {*self._inputs.names, *self.target, *self._ignored}]
            if more:
                told = f"column {more[0]!r} was not in the table that the model was trained on"
                raise ConfigurationError(f"{told}: leave it out; it had {', '.join(self._inputs.names)[:300]}")


def _names(argument: str, names: str | Sequence[str]) -> tuple[str, ...]:
    """Return one or several names of columns as a tuple."""
    listed = (names,) if isinstance(names, str) else names
    is_empty = argument in ("target", "columns") and not listed
    if is_empty or not isinstance(listed, (list, tuple)) or not all(isinstance(name, str) for name in listed):
        raise ConfigurationError(f"{argument} must be names of columns; got {names!r}")
    return tuple(listed)
