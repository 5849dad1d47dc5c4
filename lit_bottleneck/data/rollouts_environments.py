"""Environments of a learner: their episodes can be repeated, and their rewards are kept from it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data.environments import make_environment


class Steps(NamedTuple):
    """Steps of all environments: rows ``(N, ...)``, in the order in which they were taken.

    Attributes:
        observations: before the step.
        actions: as they were taken, within their box.
        next_observations: after the step, also at the end of an episode.
    """

    observations: np.ndarray
    actions: np.ndarray
    next_observations: np.ndarray


class RepeatableEnvironment(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Seed each episode by its number, and note its actions, so that the episode can be repeated up to any step.

    Args:
        environment: any environment.
        seed: of its episodes.
        index: which of several environments it is.
    """

    def __init__(self, environment: gymnasium.Env[Any, Any], seed: int, index: int) -> None:
        super().__init__(environment)
        self._seed, self._index, self._episode = seed, index, 0
        self._actions: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin the next episode; the seed of its number takes the place of ``seed``."""
        self._episode += 1
        self._actions = []
        numbers = np.random.SeedSequence((self._seed, self._index, self._episode)).generate_state(1)
        return self.env.reset(seed=int(numbers[0]), options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step, and note the action."""
        self._actions.append(np.array(action))
        return self.env.step(action)

    def get_state(self) -> dict[str, Any]:
        """Return seed, number and actions of the episode that is under way."""
        return {"seed": self._seed, "episode": self._episode, "actions": np.array(self._actions)}

    def set_state(self, state: dict[str, Any]) -> Any:
        """Repeat an episode, and return the observation at its step."""
        self._seed, self._episode = int(state["seed"]), int(state["episode"]) - 1
        observation, _ = self.reset()
        for action in state["actions"]:
            observation, *_ = self.step(action)
        return observation


class WatchedEnvironments(VecEnvWrapper):
    """Environments that note each step, and return 0 for the rewards of the task.

    Args:
        name: of the environments, in gymnasium.
        arguments: of the environments.
        count: how many.
        seed: of their episodes.

    Attributes:
        observations: of all environments.
        returns: of the episodes that ended, by the rewards of the task; whoever reads them empties the list.
        lengths: of these.
        ended_early: whether an episode has ended before its time limit.
    """

    def __init__(self, name: str, arguments: dict[str, Any], count: int, seed: int) -> None:
        makers = [self._maker(name, arguments, seed, index) for index in range(count)]
        super().__init__(DummyVecEnv(makers))
        self._name = name
        self.observations: Any = None
        self.ended_early = False
        self.returns: list[float] = []
        self.lengths: list[int] = []
        self._totals, self._steps = np.zeros(count), np.zeros(count, dtype=np.int64)
        self._taken: list[Steps] = []

    def reset(self) -> Any:
        """Begin an episode in each environment, unless restored ones are under way."""
        if self.observations is None:
            self.observations = self.venv.reset()
        return self.observations

    def step_async(self, actions: np.ndarray) -> None:
        """Take the actions, which ``step_wait`` needs too."""
        self._actions = actions
        self.venv.step_async(actions)

    def step_wait(self) -> Any:
        """Return observations, zeros, ends and infos."""
        observations, rewards, ends, infos = self.venv.step_wait()
        after: Any = np.array(observations)
        for index in np.flatnonzero(ends):
            after[index] = infos[index]["terminal_observation"]
            self.ended_early |= not infos[index].get("TimeLimit.truncated", False)
        if not np.isfinite(after).all() or not np.isfinite(rewards).all():
            raise ConfigurationError(f"{self._name} gave an observation or a reward that is not finite")
        self._taken.append(Steps(self.observations, self._actions, after))
        self._note(rewards, ends)
        self.observations = observations
        return observations, np.zeros_like(rewards), ends, infos

    def take_steps(self) -> Steps:
        """Return the steps since the last call, those of all environments at one time side by side."""
        taken, self._taken = self._taken, []
        columns = (np.concatenate(column) for column in zip(*taken, strict=True))
        return Steps(*columns)

    def get_states(self) -> dict[str, Any]:
        """Return what ``set_states`` needs, as arrays and numbers."""
        return {
            "environments": self.venv.env_method("get_state"),
            "observations": np.array(self.observations),
            "returns": self._totals.tolist(),
            "lengths": self._steps.tolist(),
        }

    def set_states(self, states: dict[str, Any]) -> bool:
        """Repeat the episodes that were under way; return whether they came to the same observations.

        If not, begin new episodes.

        Raises:
            ConfigurationError: for states of another number of environments.
        """
        count = len(states["environments"])
        if count != self.num_envs:
            raise ConfigurationError(f"num_environments={self.num_envs}, but the policy of the checkpoint had {count}")
        repeated = [
            self.venv.env_method("set_state", state, indices=index)[0]
            for index, state in enumerate(states["environments"])
        ]
        if np.array_equal(np.stack(repeated), states["observations"]):
            self.observations = np.array(states["observations"])
            self._totals, self._steps = np.array(states["returns"]), np.array(states["lengths"])
            return True
        self.observations = None
        self._totals[:], self._steps[:] = 0.0, 0
        return False

    def _note(self, rewards: np.ndarray, ends: np.ndarray) -> None:
        self._totals += rewards
        self._steps += 1
        for index in np.flatnonzero(ends):
            self.returns.append(float(self._totals[index]))
            self.lengths.append(int(self._steps[index]))
            self._totals[index], self._steps[index] = 0.0, 0

    @staticmethod
    def _maker(name: str, arguments: dict[str, Any], seed: int, index: int) -> Callable[[], Any]:
        return lambda: RepeatableEnvironment(make_environment(name, arguments), seed, index)
