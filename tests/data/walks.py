"""A small environment, rollouts in it, and a discriminator for it."""

from typing import Any

import gymnasium
import numpy as np

from lit_bottleneck import VAIL
from lit_bottleneck.data import Demonstrations, Rollouts
from lit_bottleneck.networks import MLP


class Walk(gymnasium.Env[Any, Any]):
    """A walk to the right, of at most as many steps as gymnasium allows; each step has noise of its own."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    reward = 1.0

    def __init__(self, goal: float = np.inf, repeats: bool = True) -> None:
        self._goal, self._repeats = goal, repeats

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._place = self.np_random.normal() if self._repeats else np.random.default_rng().normal()
        return np.array([self._place], np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._place += action - 0.5 + 0.1 * self.np_random.normal()
        return np.array([self._place], np.float32), self.reward, bool(self._place > self._goal), False, {}


SORTS: dict[str, dict[str, Any]] = {"Walk-v0": {}, "EarlyWalk-v0": {"goal": 0.5}, "OddWalk-v0": {"repeats": False}}
for name, arguments in SORTS.items():
    gymnasium.register(name, Walk, max_episode_steps=7, kwargs=arguments)


def right(observation: np.ndarray) -> int:
    return 1


def walks(name: str = "Walk-v0", **kwargs: Any) -> Rollouts:
    small = {"num_environments": 2, "num_steps": 10, "batch_size": 8, "learner": {"batch_size": 10, "n_epochs": 2}}
    return Rollouts(name, Demonstrations(expert=right, episodes=3), **small | kwargs)


def vail(**kwargs: Any) -> VAIL:
    return VAIL(MLP(1 + 2, [8], 4), latent_dim=2, **kwargs)
