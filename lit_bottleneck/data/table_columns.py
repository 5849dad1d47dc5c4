"""Columns of a table by name, from files, frames, arrays and scikit-learn's bundled sets."""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from os.path import expanduser
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes

from lit_bottleneck.checks import ConfigurationError, is_number
from lit_bottleneck.data.downloads import MissingDataError

Column = NDArray[Any]  # (N,): numbers, float64 with NaN where one is missing; or text, objects with "" there
Columns = dict[str, Column]

_SUFFIXES = (".csv", ".tsv", ".parquet")
_NESTED = (list, tuple, set, dict, np.ndarray)
_INSTALL = "pip install 'lit_bottleneck[table]'"


def read_columns(source: Any, texts: Collection[str] = ()) -> Columns:
    """Return the columns of a table, of equal length, in their order.

    >>> columns = read_columns({"age": [31, None], "x": np.ones((2, 2)), "smokes": [True, False]})
    >>> {name: values.tolist() for name, values in columns.items()}
    {'age': [31.0, nan], 'x0': [1.0, 1.0], 'x1': [1.0, 1.0], 'smokes': ['True', 'False']}

    Args:
        source: ``"diabetes"`` or ``"breast_cancer"``; the path of a CSV, TSV or Parquet file; a pandas frame; arrays by
            name, of which one ``(N, F)`` called ``x`` is the columns ``x0``, ``x1``, ...; or one such array.
        texts: names of columns to read as text, whatever they look like.

    Raises:
        MissingDataError: if there is no such file.
        ConfigurationError: if it holds no rows, columns without a name or with the same, or values that are neither
            numbers nor text.
    """
    if isinstance(source, str) and source in BUNDLED:
        named, where = BUNDLED[source](), source
    elif isinstance(source, (str, Path)):
        named, where = _frame_columns(_read_file(Path(source), texts)), str(source)
    elif hasattr(source, "iloc"):  # without importing pandas
        named, where = _frame_columns(source), "the frame"
    else:
        named, where = _array_columns(source), "the table"
    pairs = list(named)
    _check_names((name for name, _ in pairs), where)
    columns = {name: _column(name, values) for name, values in pairs}
    lengths = {name: len(values) for name, values in columns.items()}
    if not columns or 0 in lengths.values():
        raise ConfigurationError(f"{where} has no rows: a table needs some")
    if len(set(lengths.values())) > 1:
        raise ConfigurationError(f"columns must have as many rows each; got {lengths}")
    return columns | {name: as_text(columns[name]) for name in texts if name in columns}


def select_rows(columns: Columns, rows: NDArray[np.int64]) -> Columns:
    """Return some rows of all columns."""
    return {name: values[rows] for name, values in columns.items()}


def is_text(column: Column) -> bool:
    """Return whether a column holds text."""
    return column.dtype == object


def as_text(column: Column) -> Column:
    """Return a column as text: 2.0 is "2"."""
    if is_text(column):
        return column
    texts = ["" if math.isnan(value) else str(int(value) if value.is_integer() else value) for value in column.tolist()]
    return np.array(texts, dtype=object)


def as_numbers(name: str, column: Column) -> Column:
    """Return a column as numbers.

    Raises:
        ConfigurationError: for text that is no number, with column and row.
    """
    if not is_text(column):
        return column
    for row, text in enumerate(column):
        if text and not reads_as_number(text):
            wanted = "leave out the column, or the value (a missing one is imputed)"
            raise ConfigurationError(f"column {name!r} must hold numbers; got {text!r} in row {row}: {wanted}")
    return np.array([float(text or "nan") for text in column])


def reads_as_number(text: str) -> bool:
    """Return whether ``text`` is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _diabetes() -> Iterable[tuple[str, Any]]:
    bunch = load_diabetes(scaled=False)  # scikit-learn's scaling is by all rows
    return [*zip(bunch.feature_names, bunch.data.T, strict=True), ("target", bunch.target)]


def _breast_cancer() -> Iterable[tuple[str, Any]]:
    bunch = load_breast_cancer()
    names = [str(name) for name in bunch.feature_names]
    return [*zip(names, bunch.data.T, strict=True), ("target", bunch.target_names[bunch.target])]


BUNDLED: dict[str, Callable[[], Iterable[tuple[str, Any]]]] = {
    "diabetes": _diabetes,
    "breast_cancer": _breast_cancer,
}


def _read_file(path: Path, texts: Collection[str]) -> Any:
    """Return the pandas frame of a file."""
    path = Path(expanduser(path))
    suffix = next((suffix for suffix in _SUFFIXES if suffix in path.suffixes), None)
    if not path.is_file():
        reason = "is a folder" if path.is_dir() else "does not exist"
        known = f"a file that ends in {', '.join(_SUFFIXES)}, or one of {', '.join(map(repr, BUNDLED))}"
        raise MissingDataError(f"{path.absolute()} {reason}; path must be {known}")
    if suffix is None:
        raise ConfigurationError(f"a table must be a file that ends in {', '.join(_SUFFIXES)}; got {path}")
    try:
        import pandas

        if suffix == ".parquet":
            return pandas.read_parquet(path)
        return _read_csv(pandas, path, "\t" if suffix == ".tsv" else ",", texts)
    except ImportError as error:
        packages = "pandas and pyarrow" if suffix == ".parquet" else "pandas"
        raise ConfigurationError(f"{path} needs {packages}: {_INSTALL} ({error})") from error
    except (ValueError, OSError) as error:  # of pandas: an empty file, ragged rows, bytes that are no text, no Parquet
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"{path} is no table of {suffix[1:]}: {error}") from error


def _read_csv(pandas: Any, path: Path, separator: str, texts: Collection[str]) -> Any:
    header = pandas.read_csv(path, sep=separator, header=None, nrows=1, dtype=str, skipinitialspace=True)
    names = ["" if name != name else name for name in header.iloc[0]]
    _check_names(names, str(path))  # pandas would rename them
    known = {name: str for name in texts if name in names}
    with warnings.catch_warnings():  # of rows with more values than names, which pandas would cut
        warnings.simplefilter("error", pandas.errors.ParserWarning)
        try:
            return pandas.read_csv(
                path, sep=separator, dtype=known, skipinitialspace=True, low_memory=False, index_col=False
            )
        except pandas.errors.ParserWarning as warning:
            raise ConfigurationError(f"{path} has rows with more values than the {len(names)} names") from warning


def _frame_columns(frame: Any) -> Iterable[tuple[str, Any]]:
    for place, name in enumerate(frame.columns):
        series = frame.iloc[:, place]
        if series.dtype.kind in "iuf":
            yield str(name), series.to_numpy(np.float64, na_value=np.nan)
        elif series.dtype.kind in "mMc":
            yield str(name), series.to_numpy()
        else:
            values = series.astype(object)
            yield str(name), values.where(series.notna(), None).to_numpy()


def _array_columns(source: Any) -> Iterable[tuple[str, Any]]:
    fields = getattr(getattr(source, "dtype", None), "names", None)  # of a structured array
    if not isinstance(source, Mapping):
        source = {name: source[name] for name in fields} if fields else {"x": source}
    for name, given in source.items():
        values = np.asarray(given)
        if np.ma.isMaskedArray(given):
            values = values.astype(object)
            values[np.ma.getmaskarray(given)] = None
        if values.ndim == 2:
            yield from ((f"{name}{place}", values[:, place]) for place in range(values.shape[1]))
        elif values.ndim == 1:
            yield str(name), values
        else:
            forms = "a path, a frame, arrays (N,) or (N, F) by name, or one (N, F)"
            raise ConfigurationError(f"a table must be {forms}; got {name!r} of the shape {values.shape}")


def _check_names(names: Iterable[str], where: str) -> None:
    counts = Counter(names)
    twice = [name for name, count in counts.items() if count > 1 and name]
    if twice:
        raise ConfigurationError(f"{where} has several columns of the name {twice[0]!r}: rename all but one")
    if "" in counts:
        advice = "name them; if it is pandas' index, write the file with index=False"
        raise ConfigurationError(f"{where} has {counts['']} columns without a name: {advice}")


def _column(name: str, values: NDArray[Any]) -> Column:
    if values.dtype.kind in "mMcV":
        advice = "leave it out, or make numbers or text of it"
        raise ConfigurationError(f"column {name!r} holds {values.dtype}, neither numbers nor text: {advice}")
    if values.dtype.kind in "iuf":
        return values.astype(np.float64)
    others = [value for value in values.tolist() if isinstance(value, _NESTED) or hasattr(value, "isoformat")]
    if others:
        advice = "leave it out, or make columns of numbers or text of it"
        raise ConfigurationError(f"column {name!r} holds a {type(others[0]).__name__}, no number or text: {advice}")
    given = [None if value is None or value != value else value for value in values.tolist()]
    if all(value is None or is_number(value) for value in given):
        return np.array([np.nan if value is None else float(value) for value in given])
    return np.array([_text(value) for value in given], dtype=object)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if is_number(value):
        return str(int(value) if float(value).is_integer() else value)
    return str(value).strip()
