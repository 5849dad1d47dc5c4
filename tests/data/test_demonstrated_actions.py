"""Behaviour cloning: it learns an expert that is known, its policy acts within the box, and what is refused."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

from lit_bottleneck import VIBClassifier, VIBRegressor
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data import DemonstratedActions, Demonstrations
from lit_bottleneck.networks import MLP
from tests.quiet import trainer

WEIGHTS, BIAS = np.array([[0.5, -0.3, 0.0], [0.1, 0.2, 0.4]]), np.array([0.3, -0.2])


class Noise(gymnasium.Env[Any, Any]):
    """Each observation is drawn anew, its last number is constant; the reward is the error of a linear action."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)

    def __init__(self, actions: str = "floats") -> None:
        spaces = {
            "floats": gymnasium.spaces.Box(-1.5, 1.5, (2,), np.float32),
            "discrete": gymnasium.spaces.Discrete(3),
            "several": gymnasium.spaces.MultiDiscrete([2, 3]),
        }
        self.action_space = spaces[actions]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self._draw(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        error = float(np.square(action - linear(self._seen)).sum()) if self.action_space.shape else 0.0
        return self._draw(), -error, False, False, {}

    def _draw(self) -> np.ndarray:
        self._seen = np.array([*self.np_random.normal([50.0, 0.0], [10.0, 1.0]), 7.0], np.float32)
        return self._seen


gymnasium.register("Noise-v0", Noise, max_episode_steps=100)


def linear(observation: np.ndarray) -> np.ndarray:
    scaled = (observation - [50.0, 0.0, 7.0]) / [20.0, 2.0, 1.0]
    return np.clip(WEIGHTS @ scaled + BIAS, -1.5, 1.5).astype(np.float32)


def third(observation: np.ndarray) -> int:
    return int(np.digitize(observation[0], [44.0, 56.0]))


def noise(**kwargs: Any) -> DemonstratedActions:
    return DemonstratedActions("Noise-v0", Demonstrations(expert=linear, episodes=4), **{"val_size": 0} | kwargs)


def regressor() -> VIBRegressor:
    torch.manual_seed(1)
    return VIBRegressor(
        MLP(3, [], 2 * 4), 4, target_dims=(2,), deterministic=True, optimizer=lambda w: torch.optim.Adam(w, 0.03)
    )


def test_it_learns_a_linear_expert() -> None:
    data, model = noise(batch_size=40), regressor()
    trainer(max_epochs=20).fit(model, data)
    observations = np.array([[50.0, 0.0, 7.0], [70.0, 1.0, 7.0], [35.0, -2.0, 7.0]], np.float32)
    acted = np.stack([data.act(one) for one in observations])
    assert acted.dtype == np.float32
    np.testing.assert_allclose(acted, [linear(one) for one in observations], atol=0.05)
    assert data.play().returns.mean() > -0.5  # of 100 steps; the mean action alone comes to -17

    assert (np.abs(data.act(np.array([5000.0, 0.0, 7.0]))) == [1.5, 1.5]).all()


def test_it_learns_a_discrete_expert() -> None:
    data = DemonstratedActions(
        "Noise-v0", Demonstrations(expert=third, episodes=4), {"actions": "discrete"}, batch_size=40
    )
    torch.manual_seed(1)
    model = VIBClassifier(
        MLP(3, [32], 2 * 4), 4, num_classes=3, deterministic=True, optimizer=lambda w: torch.optim.Adam(w, 0.02)
    )
    trainer(max_epochs=15).fit(model, data)
    right = [int(data.act(np.array([first, 0.0, 7.0]))) == third(np.array([first])) for first in range(30, 70)]
    assert np.mean(right) > 0.9


def test_rows_are_standardised_and_split() -> None:
    data = noise(val_size=0.25, batch_size=1000)
    data.setup()
    [(x, y)], [(held, _)], [(whole, actions)] = data.train_dataloader(), data.val_dataloader(), data.test_dataloader()
    assert (x.shape, y.shape, held.shape, whole.shape) == ((300, 3), (300, 2), (100, 3), (400, 3))
    assert set(map(tuple, torch.cat([x, held]).tolist())) == set(map(tuple, whole.tolist()))
    torch.testing.assert_close(whole.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(whole.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]))
    np.testing.assert_array_equal(actions, data.expert.actions)


def test_it_learns_from_each_so_many_th_step_alone() -> None:
    data = DemonstratedActions("Noise-v0", Demonstrations(expert=linear, episodes=2, every=30), val_size=0)
    data.setup()
    assert [len(data.dataset(part)) for part in ("train", "test")] == [2 * 4, 200]
    np.testing.assert_array_equal(data.expert_steps.actions, data.expert.actions[[0, 30, 60, 90, 100, 130, 160, 190]])
    assert data.expert_steps.lengths.tolist() == [4, 4]


def test_a_policy_sees_as_in_its_training_whatever_the_demonstrations_are_then() -> None:
    data, model = noise(), regressor()
    trainer().fit(model, data)
    observation = np.array([60.0, 1.0, 7.0], np.float32)
    other = DemonstratedActions("Noise-v0", Demonstrations(expert=linear, episodes=1, seed=5), val_size=0)
    trainer().test(model, other, verbose=False)
    assert not np.array_equal(other.act(observation), data.act(observation))
    other.load_state_dict(data.state_dict())
    np.testing.assert_array_equal(other.act(observation), data.act(observation))


def test_a_policy_acts_as_in_evaluation_also_at_the_end_of_a_training() -> None:
    data, observation = noise(), np.array([60.0, 1.0, 7.0], np.float32)
    encoder = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout())
    model = VIBRegressor(encoder, 4, target_dims=(2,), deterministic=True)
    trainer().fit(model, data)
    acted = data.act(observation)  # batch normalisation has no training mode of one observation
    assert model.training
    model.eval()
    np.testing.assert_array_equal(acted, data.act(observation))


def test_what_it_refuses() -> None:
    with pytest.raises(ConfigurationError, match="floats, or one discrete action; each of Noise-v0 is 2"):
        noise(environment_kwargs={"actions": "several"})
    with pytest.raises(ConfigurationError, match="val_size=400 holds out 400 of 400 rows"):
        trainer().fit(regressor(), noise(val_size=400))
    with pytest.raises(RuntimeError, match="needs a trainer"):
        noise().act(np.zeros(3))
