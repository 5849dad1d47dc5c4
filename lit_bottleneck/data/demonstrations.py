"""Demonstrations of an expert: from a file, from Minari, or from a callable expert."""

from collections.abc import Callable
from importlib import import_module
from os.path import expanduser
from pathlib import Path
from typing import Any

import numpy as np

from lit_bottleneck.checks import ConfigurationError, whole_number
from lit_bottleneck.data.environments import spaces_of
from lit_bottleneck.data.episodes import Episodes, check_episodes, join, read_episodes

Expert = Callable[[np.ndarray], Any]

_LONGEST = 100_000  # steps of an episode


class Demonstrations:
    """Episodes of an expert, from one of three sources.

    Args:
        path: an ``.npz`` file, as ``lit-bottleneck demonstrate`` writes it: arrays ``observations`` and ``actions``,
            one episode after the other, and ``lengths`` of the episodes; perhaps ``next_observations``, ``rewards`` and
            ``seeds``. Modules that see states alone need no ``actions``.
        minari: the name of a data set of Minari (``pip install minari``), which must be on this machine.
        expert: a function of an observation that returns an action (in a recipe its import path); its episodes are
            recorded in the environment.
        episodes: how many to use (``expert``: to record). Default: all; 10 of an expert.
        seed: of an expert's episodes.
        every: learn from one step in so many of an episode: sparse demonstrations are a harder task (arXiv 1606.03476).
            ``load`` returns all.
        actions: False leaves the actions out, also those of another space, for modules that see states alone.

    Raises:
        ConfigurationError: for none or several sources, or numbers out of range.
        FileNotFoundError: if there is no file ``path``.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        minari: str | None = None,
        expert: Expert | None = None,
        episodes: int | None = None,
        seed: int = 0,
        actions: bool = True,
        every: int = 1,
    ) -> None:
        sources = {"path": path, "minari": minari, "expert": expert}
        given = [name for name, source in sources.items() if source is not None]
        if len(given) != 1:
            got = f"{' and '.join(given)}: set all but one to null" if given else "none"
            raise ConfigurationError(f"demonstrations need one source, path, minari or expert; got {got}")
        if path is not None and not Path(expanduser(path)).exists():
            raise FileNotFoundError(f"there is no file {path}: lit-bottleneck demonstrate writes one")
        self.path, self.minari = path, minari
        self.expert = None if expert is None else expert_from(expert)
        self.episodes = None if episodes is None else whole_number("episodes", episodes, at_least=1)
        self.seed = whole_number("seed", seed, at_least=0, at_most=2**32 - 1)
        self.actions = actions
        self.every = whole_number("every", every, at_least=1)

    def load(self, environment: Any) -> Episodes:
        """Return the episodes, checked against an environment of gymnasium.

        Raises:
            ConfigurationError: for episodes that are not of this environment, or fewer than were asked for.
        """
        if self.expert is not None:
            found = record(environment, self.expert, self.episodes or 10, self.seed)
            return found if self.actions else found._replace(actions=None)
        of = f"demonstrations of {self.minari or self.path}"
        found = read_episodes(self.path) if self.path is not None else _of_minari(str(self.minari))
        found = check_episodes(found if self.actions else found._replace(actions=None), spaces_of(environment), of)
        if self.episodes is None:
            return found
        if len(found.lengths) < self.episodes:
            raise ConfigurationError(f"{of}: episodes={self.episodes}, and there are {len(found.lengths)}")
        return found.part(0, self.episodes)


def expert_from(expert: str | Expert) -> Expert:
    """Return an expert, or import it by its path.

    Raises:
        ConfigurationError: for a path that leads to no function.
    """
    if not isinstance(expert, str):
        return expert
    module, _, name = expert.rpartition(".")
    try:
        found = getattr(import_module(module), name) if module else None
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"expert={expert!r} cannot be imported: {error}") from error
    if not callable(found):
        raise ConfigurationError(f"expert={expert!r} must be the import path of a function of an observation")
    return found  # type: ignore[no-any-return]


def record(environment: Any, expert: Expert, episodes: int, seed: int = 0) -> Episodes:
    """Record whole episodes of an expert.

    Args:
        environment: of gymnasium.
        expert: a function of an observation that returns an action.
        episodes: how many.
        seed: the same one gives the same episodes.

    Raises:
        ConfigurationError: for actions that are not of the environment, and an episode without an end.
    """
    numbers = np.random.SeedSequence(seed).generate_state(episodes)
    found = [record_one(environment, expert, int(number)) for number in numbers]
    place = environment.spec.id if environment.spec else environment
    of = f"episodes of {getattr(expert, '__name__', expert)} in {place}"
    return check_episodes(join(found), spaces_of(environment), of)


def record_one(environment: Any, expert: Expert, seed: int) -> Episodes:
    """Record one episode, from the start that the environment's ``seed`` gives; arguments as for ``record``."""
    observation, _ = environment.reset(seed=seed)
    seen, acted, rewarded = [np.array(observation)], [], []
    for _ in range(_LONGEST):
        action = _action_from(expert(observation), environment)
        observation, reward, terminated, truncated, _ = environment.step(action)
        seen.append(np.array(observation))
        acted.append(np.array(action))
        rewarded.append(float(reward))
        if terminated or truncated:
            before, after = np.stack(seen[:-1]), np.stack(seen[1:])
            lengths, seeds = np.array([len(acted)]), np.array([seed])
            return Episodes(before, np.stack(acted), lengths, after, np.array(rewarded), seeds)
    no_end = f"an episode has no end after {_LONGEST} steps"
    raise ConfigurationError(f"{no_end}: set a time limit, environment_kwargs={{'max_episode_steps': ...}}")


def _action_from(action: Any, environment: Any) -> Any:
    """Return an expert's action, if it is one of the environment."""
    space = environment.action_space
    given = np.asarray(action)
    is_number = given.dtype.kind in "biuf" and not (space.dtype.kind in "iu" and (given % 1 != 0).any())
    shaped = given.astype(space.dtype) if is_number else given
    if not is_number or shaped.shape != space.shape or not space.contains(shaped if space.shape else shaped[()]):
        raise ConfigurationError(f"the expert must return actions of {space}; got {action!r}")
    return shaped if space.shape else shaped[()]


def _of_minari(name: str) -> Episodes:
    try:
        minari = import_module("minari")
    except ModuleNotFoundError as error:
        if error.name != "minari":
            raise
        raise ImportError("demonstrations of Minari need the package minari: pip install minari") from error
    try:
        dataset = minari.load_dataset(name)
    except (FileNotFoundError, ValueError) as error:
        raise ConfigurationError(
            f"demonstrations: minari={name!r} is not on this machine: minari download {name}"
        ) from error
    spaces_of(dataset)  # else there are no arrays
    found = []
    episodes = zip(dataset, dataset.storage.get_episode_metadata(dataset.episode_indices), strict=True)
    for episode, known in episodes:
        seen, acted, rewards = (np.asarray(one) for one in (episode.observations, episode.actions, episode.rewards))
        has_seed = isinstance(known.get("seed"), (int, np.integer))
        seeds = np.array([known["seed"]]) if has_seed else None
        found.append(Episodes(seen[:-1], acted, np.array([len(acted)]), seen[1:], rewards, seeds))
    if not found:
        raise ConfigurationError(f"demonstrations: minari={name!r} has no episode")
    return join(found)
