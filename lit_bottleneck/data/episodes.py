"""Episodes of an expert: arrays, their checks, and their file."""

import zipfile
from collections.abc import Sequence
from os.path import expanduser
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data.environments import Spaces
from lit_bottleneck.training.whole_file import whole_file

_ROUNDING = 1e-5  # of the width of a box
_NUMBERS = "biuf"  # kinds of NumPy's dtypes


class Episodes(NamedTuple):
    """Episodes one after the other.

    Attributes:
        observations: ``(N, *dims)``.
        actions: ``(N, *dims)``; discrete ones whole.
        lengths: steps of each episode, which add up to N.
        next_observations: ``(N, *dims)``, or None where they are not known.
        rewards: ``(N,)`` of the task, which no learner sees, or None.
    """

    observations: np.ndarray
    actions: np.ndarray
    lengths: np.ndarray
    next_observations: np.ndarray | None = None
    rewards: np.ndarray | None = None

    @property
    def returns(self) -> np.ndarray | None:
        """The sum of rewards of each episode."""
        if self.rewards is None:
            return None
        return np.array([part.sum() for part in np.split(self.rewards, np.cumsum(self.lengths)[:-1])])

    def first(self, count: int) -> "Episodes":
        """Return the first episodes."""
        steps = int(self.lengths[:count].sum())
        after = None if self.next_observations is None else self.next_observations[:steps]
        rewards = None if self.rewards is None else self.rewards[:steps]
        return Episodes(self.observations[:steps], self.actions[:steps], self.lengths[:count], after, rewards)

    def save(self, path: Path) -> None:
        """Write an ``.npz`` file of the arrays."""
        arrays = {name: value for name, value in self._asdict().items() if value is not None}
        with whole_file(path) as file:
            np.savez_compressed(file, **arrays)


def join(episodes: Sequence[Episodes]) -> Episodes:
    """Join episodes that all have next observations and rewards."""
    columns: list[Any] = [np.concatenate(column) for column in zip(*episodes, strict=True)]
    return Episodes(*columns)


def read_episodes(path: str | Path) -> Episodes:
    """Read an ``.npz`` file with ``observations`` and ``actions``, and perhaps ``lengths`` and others of ``Episodes``.

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
    except (ValueError, AttributeError, TypeError, EOFError, OSError, zipfile.BadZipFile) as error:
        holds = f"demonstrations: {path} is no .npz file of plain arrays, which need no pickle"
        raise ConfigurationError(f"{holds}: {error}") from error
    missing = [name for name in ("observations", "actions") if name not in arrays]
    if missing:
        raise ConfigurationError(f"demonstrations: {path} has no array {', '.join(missing)}")
    arrays.setdefault("lengths", np.array([len(arrays["observations"])]))
    return Episodes(**{name: array for name, array in arrays.items() if name in Episodes._fields})


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
    if episodes.rewards is not None and episodes.rewards.shape != (steps,):
        raise ConfigurationError(f"{of}: rewards must be ({steps},); got {episodes.rewards.shape}")
    actions = _discrete(of, episodes.actions, steps, spaces) if spaces.num_actions else _boxed(of, episodes, spaces)
    return Episodes(observations, actions, lengths, after, episodes.rewards)


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


def _boxed(of: str, episodes: Episodes, spaces: Spaces) -> np.ndarray:
    actions = _in_shape(of, "actions", episodes.actions, len(episodes.observations), spaces.action_dims)
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
