"""Episodes of an expert: arrays, their checks, and their file."""

import zipfile
import zlib
from collections.abc import Sequence
from os.path import expanduser
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data.environments import Spaces
from lit_bottleneck.training.whole_file import whole_file

_ROUNDING = 1e-5  # of the width of a box
_UNREADABLE = (  # from NumPy, of a damaged, encrypted or other file
    AttributeError, EOFError, MemoryError, OSError, RuntimeError, TypeError, ValueError, zipfile.BadZipFile, zlib.error
)  # fmt: skip
_NUMBERS = "biuf"  # kinds of NumPy's dtypes


class Episodes(NamedTuple):
    """Episodes one after the other.

    Attributes:
        observations: ``(N, *dims)``.
        actions: ``(N, *dims)``; discrete ones whole; None where they are not known.
        lengths: steps of each episode, which add up to N.
        next_observations: ``(N, *dims)``, or None where they are not known.
        rewards: ``(N,)`` of the task, which no learner sees, or None.
        seeds: of the environment at the start of each episode, or None.
    """

    observations: np.ndarray
    actions: np.ndarray | None
    lengths: np.ndarray
    next_observations: np.ndarray | None = None
    rewards: np.ndarray | None = None
    seeds: np.ndarray | None = None

    @property
    def returns(self) -> np.ndarray | None:
        """The sum of rewards of each episode."""
        if self.rewards is None:
            return None
        return np.array([part.sum() for part in np.split(self.rewards, np.cumsum(self.lengths)[:-1])])

    def part(self, start: int, stop: int) -> "Episodes":
        """Return the episodes from ``start`` to before ``stop``."""
        rows = slice(int(self.lengths[:start].sum()), int(self.lengths[:stop].sum()))
        whole = ("lengths", "seeds")
        columns: list[Any] = [
            None if column is None else column[start:stop] if name in whole else column[rows]
            for name, column in self._asdict().items()
        ]
        return Episodes(*columns)

    def every(self, count: int) -> "Episodes":
        """Return each ``count``-th step, from the first of each episode on."""
        kept = np.concatenate([np.arange(length) for length in self.lengths]) % count == 0
        fewer = self._replace(lengths=-(-self.lengths // count))
        return fewer._replace(
            **{
                name: column[kept]
                for name, column in self._asdict().items()
                if name not in ("lengths", "seeds") and column is not None
            }
        )

    def check_has(self, names: Sequence[str], who: str) -> None:
        """Raise ConfigurationError if any of the arrays is missing that ``who`` needs."""
        missing = [name for name in names if getattr(self, name) is None]
        if missing:
            needs = f"{who} needs demonstrations with {' and '.join(missing)}"
            hint = " (VAIL learns from observations alone with sees='state')" if "actions" in missing else ""
            raise ConfigurationError(f"{needs}, as 'lit-bottleneck demonstrate' records them; there are none{hint}")

    def save(self, path: Path) -> None:
        """Write an ``.npz`` file of the arrays."""
        arrays = {name: value for name, value in self._asdict().items() if value is not None}
        with whole_file(path) as file:
            np.savez_compressed(file, **arrays)


def join(episodes: Sequence[Episodes]) -> Episodes:
    """Join episodes, with the arrays that all of them have."""
    columns: list[Any] = [
        None if any(one is None for one in column) else np.concatenate(column) for column in zip(*episodes, strict=True)
    ]
    return Episodes(*columns)


def read_episodes(path: str | Path) -> Episodes:
    """Read an ``.npz`` file with ``observations``, and perhaps ``actions``, ``lengths`` and others of ``Episodes``.

    Nothing in the file is unpickled. Without ``lengths`` it holds one episode.

    Raises:
        ConfigurationError: for a file that is no such archive, or holds more than arrays of numbers.
        FileNotFoundError: if there is none.
    """
    path = Path(expanduser(path))
    if not path.exists():
        raise FileNotFoundError(f"demonstrations: there is no file {path}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: _array(name, archive[name]) for name in archive.files}  # an array of objects is refused
    except _UNREADABLE as error:
        holds = f"demonstrations: {path} is no .npz file of plain arrays, which need no pickle"
        reason = getattr(error, "strerror", None) or "write one with numpy.savez"
        raise ConfigurationError(f"{holds}: {reason}") from error
    if "observations" not in arrays:
        got = f"got {', '.join(arrays) or 'none'}"
        raise ConfigurationError(f"demonstrations: {path} has no array observations (and actions, lengths); {got}")
    known: dict[str, Any] = {"actions": None, "lengths": np.array([len(arrays["observations"])]), **arrays}
    return Episodes(**{name: array for name, array in known.items() if name in Episodes._fields})


def check_episodes(episodes: Episodes, spaces: Spaces, of: str) -> Episodes:
    """Return episodes that fit an environment, observations and actions in its shapes.

    Args:
        episodes: any arrays.
        spaces: those of the environment.
        of: where they come from, for messages.

    Raises:
        ConfigurationError: for no or empty episodes, values that are not finite, and observations or actions that are
            not those of the environment.
    """
    for name, array in episodes._asdict().items():
        if array is not None and (array.dtype.kind not in _NUMBERS or not np.isfinite(array).all()):
            raise ConfigurationError(f"{of}: {name} must be finite numbers{_place(array)}")
    steps, lengths = len(episodes.observations), episodes.lengths
    is_whole = lengths.ndim == 1 and lengths.dtype.kind in "iu"
    if not is_whole or not len(lengths) or (lengths < 1).any() or lengths.sum() != steps:
        needs = f"{of}: lengths must be whole numbers, one episode or more of a step or more each"
        raise ConfigurationError(f"{needs}, {steps} steps in all; got {lengths.tolist()}")
    observations = _in_shape(of, "observations", episodes.observations, steps, spaces.observation_dims)
    after = episodes.next_observations
    if after is not None:
        after = _in_shape(of, "next_observations", after, steps, spaces.observation_dims)
    for name, count in (("rewards", steps), ("seeds", len(lengths))):
        array = getattr(episodes, name)
        if array is not None and array.shape != (count,):
            raise ConfigurationError(f"{of}: {name} must be ({count},); got {array.shape}")
    if episodes.seeds is not None and (episodes.seeds.dtype.kind not in "iu" or (episodes.seeds < 0).any()):
        raise ConfigurationError(f"{of}: seeds must be whole numbers, 0 or above; got {episodes.seeds.tolist()}")
    actions = episodes.actions
    if actions is not None:
        actions = (_discrete if spaces.num_actions else _boxed)(of, actions, steps, spaces)
    return Episodes(observations, actions, lengths, after, episodes.rewards, episodes.seeds)


def _array(name: str, member: Any) -> np.ndarray:
    """Return a member of an archive, if it is an array, with one dimension at least."""
    if not isinstance(member, np.ndarray):
        raise TypeError(f"{name} is no array")
    return np.atleast_1d(member)


def _in_shape(of: str, name: str, array: np.ndarray, steps: int, dims: tuple[int, ...]) -> np.ndarray:
    array = array[:, None] if array.ndim == 1 and dims == (1,) else array
    if array.shape != (steps, *dims):
        needs = f"{of}: the environment needs {name} of the shape {(steps, *dims)}"
        raise ConfigurationError(f"{needs}; got {array.shape}")
    return array


def _discrete(of: str, actions: np.ndarray, steps: int, spaces: Spaces) -> np.ndarray:
    columns = actions.reshape(steps, -1) if len(actions) == steps else actions
    counts = np.array(spaces.num_actions)
    if actions.dtype.kind == "f" or columns.shape != (steps, len(counts)):
        needs = f"{of}: the environment needs actions of whole numbers, of the shape {(steps, len(counts))}"
        raise ConfigurationError(f"{needs}; got {actions.dtype} {actions.shape}")
    outside = (columns < 0) | (columns >= counts)
    if outside.any():
        limits = f"from 0 to {(counts - 1).tolist()}"
        raise ConfigurationError(f"{of}: the environment needs actions {limits}; got {columns[outside][0]}")
    return columns.astype(np.int64)


def _boxed(of: str, actions: np.ndarray, steps: int, spaces: Spaces) -> np.ndarray:
    actions = _in_shape(of, "actions", actions, steps, spaces.action_dims)
    low, high = np.asarray(spaces.low), np.asarray(spaces.high)
    margin = np.where(np.isfinite(high - low), _ROUNDING * (high - low), 0.0)
    outside = (actions < low - margin) | (actions > high + margin)
    if outside.any():
        row = int(np.argwhere(outside)[0, 0])
        box = f"the environment's actions are from {low.tolist()} to {high.tolist()}"
        raise ConfigurationError(f"{of}: {box}; got {actions[row].tolist()} in step {row}")
    return actions.astype(np.float32)


def _place(array: np.ndarray) -> str:
    if array.dtype.kind not in _NUMBERS:
        return f"; got {array.dtype}"
    first = np.argwhere(~np.isfinite(array))[0]
    return f"; got {array[tuple(first)]} in step {first[0]}"
