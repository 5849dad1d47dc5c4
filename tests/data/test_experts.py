"""Experts: what they reach, and the search that found one."""

from typing import Any

import gymnasium
import numpy as np
import pytest

from lit_bottleneck.data.demonstrations import record
from lit_bottleneck.data.experts import random_search, swim


class Match(gymnasium.Env[Any, Any]):
    """The reward is how well the action matches a linear function of the second number observed."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._seen = np.zeros(2)
        return self._seen, {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        error = (action - np.clip(2.0 * self._seen[1], -1.0, 1.0)).item()
        self._seen = self.np_random.normal(size=2)
        return self._seen, -(error**2), False, False, {}


def test_the_search_finds_a_linear_policy() -> None:
    found = random_search(Match(), columns=(1,), trials=40, steps=50)
    assert found.shape == (1, 1)
    assert found.item() == pytest.approx(2.0, abs=0.2)
    np.testing.assert_array_equal(found, random_search(Match(), columns=(1,), trials=40, steps=50))


def test_the_swimmer_swims() -> None:
    pytest.importorskip("mujoco")
    episodes = record(gymnasium.make("Swimmer-v5"), swim, 2)
    assert episodes.lengths.tolist() == [1000, 1000]
    assert episodes.returns.min() > 330  # standing still: 0


@pytest.mark.slow
def test_the_search_found_the_swimmer() -> None:
    pytest.importorskip("mujoco")
    environment = gymnasium.make("Swimmer-v5")
    weights = random_search(environment)

    def act(observation: np.ndarray) -> np.ndarray:
        return np.clip(weights @ observation[[1, 2, 6, 7]], -1.0, 1.0).astype(np.float32)

    assert record(environment, act, 1).returns.item() > 250  # another version of MuJoCo finds another gait
