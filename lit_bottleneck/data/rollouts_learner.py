"""The learner of a policy: proximal policy optimisation of stable-baselines3, with random states of its own."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Discrete
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from torch import Tensor

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data.rollouts_environments import Steps, WatchedEnvironments

Reward = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

_OURS = ("env", "n_steps", "seed", "device", "verbose", "tensorboard_log", "_init_setup_model")


class Learner:
    """A policy that learns by PPO (arXiv 1707.06347) from a learnt reward.

    What it draws depends on its seed alone, and nothing else that is drawn depends on it.

    Args:
        environments: where it acts.
        reward: of observations, actions and next observations ``(N, ...)``, ``(N,)``.
        num_steps: of each environment between two updates.
        arguments: further ones of ``stable_baselines3.PPO``.
        seed: of initial weights, actions and order.

    Raises:
        ConfigurationError: for arguments that PPO does not take.
    """

    def __init__(
        self,
        environments: WatchedEnvironments,
        reward: Reward,
        num_steps: int,
        arguments: Mapping[str, Any],
        seed: int,
    ) -> None:
        taken = [name for name in arguments if name in _OURS]
        if taken:
            raise ConfigurationError(f"learner: {', '.join(taken)} of PPO are set by Rollouts (num_steps, seed)")
        self.environments, self._reward = environments, reward
        self._states = _seeded(seed)
        kwargs = {"policy": "MlpPolicy", **arguments}
        with self.own_random_states():
            try:
                self.algorithm = PPO(**kwargs, env=environments, n_steps=num_steps, device="cpu")
            except (TypeError, ValueError, AssertionError) as error:
                raise ConfigurationError(f"learner: PPO does not take {dict(arguments)}: {error}") from error
        self.algorithm.set_logger(Logger(folder=None, output_formats=[]))  # its own makes a temporary folder an epoch

    def advance(self) -> Steps:
        """Take ``num_steps`` in each environment, learn from them, and return them."""
        steps = self.algorithm.n_steps * self.environments.num_envs
        rewards = _LearntRewards(self.environments, self._reward)
        with self.own_random_states():
            self.algorithm.learn(steps, rewards, reset_num_timesteps=False)
        return rewards.steps

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Return the policy's most likely actions of observations ``(B, ...)``, or of one, within their box."""
        return self.algorithm.predict(observations, deterministic=True)[0]

    @torch.no_grad()
    def log_probs(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Return the log-probabilities of actions ``(B, ...)`` under the policy, ``(B,)``."""
        policy = self.algorithm.policy
        seen, _ = policy.obs_to_tensor(observations.numpy())  # images as the policy has them, channels first
        is_one = isinstance(self.algorithm.action_space, Discrete)
        return policy.evaluate_actions(seen, actions.flatten(0 if is_one else 1))[1]

    def state_dict(self) -> dict[str, Any]:
        """Return policy, optimizer, random states and environments, as tensors and plain values."""
        states = self.environments.get_states()
        under_way = [{**one, "actions": torch.from_numpy(one["actions"])} for one in states["environments"]]
        observations = torch.from_numpy(states["observations"])
        return {
            "policy": self.algorithm.policy.state_dict(),
            "optimizer": self.algorithm.policy.optimizer.state_dict(),
            "timesteps": self.algorithm.num_timesteps,
            "random_states": self._states,
            "environments": {**states, "environments": under_way, "observations": observations},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore policy, optimizer and random states."""
        self.algorithm.policy.load_state_dict(state["policy"])
        self.algorithm.policy.optimizer.load_state_dict(state["optimizer"])
        self.algorithm.num_timesteps = int(state["timesteps"])
        self._states = dict(state["random_states"])

    def continue_episodes(self, state: Mapping[str, Any]) -> bool:
        """Restore the environments; return whether they came to where they were."""
        states = dict(state["environments"])
        under_way = [{**one, "actions": one["actions"].cpu().numpy()} for one in states["environments"]]
        observations = states["observations"].cpu().numpy()
        return self.environments.set_states({**states, "environments": under_way, "observations": observations})

    @contextmanager
    def own_random_states(self) -> Iterator[None]:
        """Draw from the learner's random states of torch and NumPy, and leave those around it as they were."""
        around = _current()
        _set(self._states)
        try:
            yield
        finally:
            self._states = _current()
            _set(around)


class _LearntRewards(BaseCallback):
    """Add learnt rewards to a rollout, all at once, before the policy learns from it.

    The rollout holds zeros, and where a time limit ended an episode the discounted value of its last state.
    """

    steps: Steps

    def __init__(self, environments: WatchedEnvironments, reward: Reward) -> None:
        super().__init__()
        self.environments, self.reward = environments, reward

    def _on_step(self) -> bool:
        return True

    @torch.no_grad()
    def _on_rollout_end(self) -> None:
        self.steps = self.environments.take_steps()
        algorithm: Any = self.model
        buffer, policy = algorithm.rollout_buffer, algorithm.policy
        buffer.rewards += self.reward(*self.steps).reshape(buffer.rewards.shape)
        observations, _ = policy.obs_to_tensor(self.environments.observations)
        buffer.compute_returns_and_advantage(
            last_values=policy.predict_values(observations), dones=self.locals["dones"]
        )


def _seeded(seed: int) -> dict[str, Any]:
    torch_seed, numpy_seed = (int(number) for number in np.random.SeedSequence(seed).generate_state(2))
    numpy = np.random.RandomState(numpy_seed).get_state(legacy=False)
    return {"torch": torch.Generator().manual_seed(torch_seed).get_state(), "numpy": _plain(numpy)}


def _current() -> dict[str, Any]:
    return {"torch": torch.get_rng_state(), "numpy": _plain(np.random.get_state(legacy=False))}


def _plain(numpy: Any) -> dict[str, Any]:
    return {
        **numpy,
        "state": {"key": torch.from_numpy(numpy["state"]["key"].astype(np.int64)), "pos": numpy["state"]["pos"]},
    }


def _set(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"].cpu())
    inner = states["numpy"]["state"]
    np.random.set_state({**states["numpy"], "state": {**inner, "key": inner["key"].cpu().numpy().astype(np.uint32)}})
