"""Rollouts of a policy that learns from a discriminator, beside an expert's demonstrations."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning import LightningDataModule
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor

from lit_bottleneck.checks import ConfigurationError, whole_number
from lit_bottleneck.data.demonstrations import Demonstrations
from lit_bottleneck.data.environments import installed, make_environment, spaces_of
from lit_bottleneck.data.episodes import Episodes

if TYPE_CHECKING:
    from lit_bottleneck.data.rollouts_environments import Steps
    from lit_bottleneck.data.rollouts_learner import Learner

Half = tuple[Tensor, ...]

_EPISODES = 20  # whose mean return is logged


class Rollouts(LightningDataModule):
    """Batches ``(expert, policy)`` for ``VAIL`` and ``VAIRL``; the policy learns from their rewards between epochs.

    At the start of each epoch the policy takes ``num_steps`` in each of ``num_environments`` environments of gymnasium,
    is rewarded by the module that the trainer trains (``policy_reward(observations, actions, next_observations)``), and
    learns by PPO of stable-baselines3. In the epoch the module is trained on these steps against the demonstrations.
    The rewards of the task are never seen by either; the mean return of the last 20 episodes is logged as
    ``train/return``.

    The run is the same on repetition. Checkpoints hold the policy and its optimizer, as tensors,
    and where each environment was: a resumed run repeats the actions of the episodes that were under way. Where an
    environment does not come to the same observations, it says so, and new episodes begin.

    Args:
        environment: a name registered with gymnasium, such as ``"Pendulum-v1"``.
        demonstrations: of the expert.
        environment_kwargs: arguments of the environment.
        num_environments: how many run side by side.
        num_steps: of each environment in an epoch.
        batch_size: steps of the policy in a batch, and as many of the expert.
        passes: how often an epoch goes through the policy's steps.
        learner: further arguments of ``stable_baselines3.PPO``, such as ``learning_rate``; numbers, no schedules.
        seed: of environments, policy and batches. Default: that of torch, which ``seed_everything`` sets.

    Raises:
        ConfigurationError: for an environment that is not registered, numbers out of range, and arguments that PPO does
            not take; in ``setup``, for demonstrations that are not of this environment, and several processes.
        ImportError: without the extra ``imitation``.

    Attributes:
        observation_dims: shape of one observation.
        action_dims: shape of one action, of discrete ones one-hot.
        num_actions: how many there are of each discrete action; empty for others.
        episode_statistics: what is logged of the episodes: ``return``, ``episode_length``, ``environment_steps``.
    """

    val_size = 0

    def __init__(
        self,
        environment: str,
        demonstrations: Demonstrations,
        environment_kwargs: dict[str, Any] | None = None,
        num_environments: int = 8,
        num_steps: int = 256,
        batch_size: int = 256,
        passes: int = 1,
        learner: dict[str, Any] | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        installed("stable_baselines3")
        self.environment, self.environment_kwargs = environment, dict(environment_kwargs or {})
        self.demonstrations = demonstrations
        self.num_environments = whole_number("num_environments", num_environments, at_least=1)
        self.num_steps = whole_number("num_steps", num_steps, at_least=1)
        self.batch_size = whole_number("batch_size", batch_size, at_least=1)
        self.passes = whole_number("passes", passes, at_least=1)
        self.learner_arguments = dict(learner or {})
        self.seed = None if seed is None else whole_number("seed", seed, at_least=0, at_most=2**32 - 1)
        spaces = spaces_of(make_environment(environment, self.environment_kwargs))
        self.observation_dims, self.action_dims, self.num_actions = spaces[:3]
        self._learner: Learner | None = None
        self._expert: Episodes | None = None
        self._loader: RolloutLoader | None = None
        self._returns: list[float] = []
        self._lengths: list[int] = []
        self._has_warned = False

    @property
    def learner(self) -> "Learner":
        """The policy and what trains it, after ``setup``."""
        if self._learner is None:
            raise RuntimeError("Rollouts has no policy before setup()")
        return self._learner

    @property
    def expert(self) -> Episodes:
        """The expert's episodes."""
        if self._expert is None:
            self._expert = self.demonstrations.load(make_environment(self.environment, self.environment_kwargs))
        return self._expert

    @property
    def episode_statistics(self) -> dict[str, float]:
        """Mean return and length of the last 20 episodes, and the steps of all environments so far."""
        steps = {"environment_steps": float(self.learner.algorithm.num_timesteps)}
        if not self._returns:
            return steps
        return {"return": float(np.mean(self._returns)), "episode_length": float(np.mean(self._lengths)), **steps}

    def setup(self, stage: str | None = None) -> None:
        """Load the demonstrations, and make environments and policy.

        Raises:
            ConfigurationError: see the class.
        """
        from lit_bottleneck.data.rollouts_environments import WatchedEnvironments
        from lit_bottleneck.data.rollouts_learner import Learner

        if self.trainer is not None and self.trainer.world_size > 1:
            raise ConfigurationError("Rollouts trains one policy in one process: set --trainer.devices=1")
        self._check_expert()
        if self._learner is None:
            seed = torch.initial_seed() % 2**32 if self.seed is None else self.seed
            environments = WatchedEnvironments(self.environment, self.environment_kwargs, self.num_environments, seed)
            self._learner = Learner(environments, self._reward, self.num_steps, self.learner_arguments, seed)

    def train_dataloader(self) -> "RolloutLoader":
        """Return batches of the policy's steps and the expert's, for each epoch new ones."""
        self._loader = RolloutLoader(self)
        return self._loader

    def advance(self) -> "Steps":
        """Let the policy take its steps of an epoch and learn from them."""
        steps = self.learner.advance()
        environments = self.learner.environments
        self._returns = (self._returns + environments.returns)[-_EPISODES:]
        self._lengths = (self._lengths + environments.lengths)[-_EPISODES:]
        environments.returns, environments.lengths = [], []
        form = getattr(self._module, "form", None)
        if environments.ended_early and form in ("positive", "negative") and not self._has_warned:
            self._has_warned = True
            pays = "staying alive" if form == "positive" else "ending early"
            why = f"episodes of {self.environment} can end early, and a {form} reward pays for {pays} in itself"
            rank_zero_warn(f"{why}: set form='airl', whose rewards have both signs, or take a task of fixed length")
        return steps

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Return the policy's most likely action of one observation, within its box."""
        return self.learner.act(observation)

    def half(self, observations: Tensor, actions: Tensor, after: Tensor) -> Half:
        """Return half of a batch, as the module takes it."""
        if not getattr(self._module, "takes_transitions", False):
            return observations, actions
        return observations, actions, after, self.learner.log_probs(observations, actions)

    def state_dict(self) -> dict[str, Any]:
        """Return the policy's state and the last returns."""
        if self._learner is None:
            return {}
        return {"learner": self._learner.state_dict(), "returns": self._returns, "lengths": self._lengths}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the policy; begin new episodes where the environments cannot be restored."""
        self._returns, self._lengths = list(state_dict["returns"]), list(state_dict["lengths"])
        if not self.learner.load_state_dict(state_dict["learner"]):
            cannot = f"the state of {self.environment} cannot be restored by repeating the actions of an episode"
            rank_zero_warn(f"{cannot}: new episodes begin, and the run is not that without a stop")

    def _check_expert(self) -> None:
        if self.expert.next_observations is None and getattr(self._module, "takes_transitions", False):
            needs = f"{type(self._module).__name__} needs demonstrations with next_observations"
            raise ConfigurationError(f"{needs}, as 'lit-bottleneck demonstrate' records them; there are none")

    @property
    def _module(self) -> Any:
        return None if self.trainer is None else self.trainer.lightning_module

    def _reward(self, observations: np.ndarray, actions: np.ndarray, after: np.ndarray) -> np.ndarray:
        reward: Tensor = self._module.policy_reward(observations, actions, after)
        return reward.cpu().numpy()


class RolloutLoader:
    """Batches of an epoch: it begins with new steps of the policy, or where a checkpoint was written.

    Args:
        data: whose policy takes the steps.
    """

    def __init__(self, data: Rollouts) -> None:
        self.data = data
        self._policy: tuple[Tensor, ...] = ()
        self._order = torch.zeros(0, 2, dtype=torch.int64)
        self._position = 0
        self._is_restored = False
        expert = data.expert
        after = expert.observations if expert.next_observations is None else expert.next_observations
        self._expert = tuple(map(_tensor, (expert.observations, expert.actions, after)))

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        rows = self.data.num_environments * self.data.num_steps
        return self.data.passes * -(-rows // self.data.batch_size)

    def __iter__(self) -> Iterator[tuple[Half, Half]]:
        """Let the policy learn, and yield ``(expert, policy)``."""
        if not self._is_restored:
            self._policy = tuple(map(_tensor, self.data.advance()))
            self._position, self._order = 0, self._draw_order()
        self._is_restored = False
        rows = len(self._policy[0])
        per_pass = -(-rows // self.data.batch_size)
        while self._position < len(self):
            index, batch = divmod(self._position, per_pass)
            size = self.data.batch_size
            picked = self._order[index * rows : (index + 1) * rows][batch * size : (batch + 1) * size]
            self._position += 1
            expert, policy = (
                self.data.half(*(column[rows_] for column in of))
                for of, rows_ in ((self._expert, picked[:, 0]), (self._policy, picked[:, 1]))
            )
            yield expert, policy

    def state_dict(self) -> dict[str, Any]:
        """Return the steps of the epoch, their order, and how many batches were read; nothing at its end."""
        trainer = self.data.trainer
        if trainer is None or trainer.is_last_batch or not self._policy:
            return {}
        return {"policy": list(self._policy), "order": self._order, "position": self._position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on within the epoch of a checkpoint.

        Raises:
            ConfigurationError: if that epoch had another number of steps.
        """
        if not state:
            return
        rows = self.data.passes * self.data.num_environments * self.data.num_steps
        if len(state["order"]) != rows:
            had = f"the checkpoint is from within an epoch of {len(state['order'])} steps of the policy over all passes"
            own = f"num_steps={self.data.num_steps}, passes={self.data.passes} make it {rows}"
            raise ConfigurationError(f"{had}; {own}")
        self._policy, self._order = tuple(state["policy"]), state["order"]
        self._position, self._is_restored = int(state["position"]), True

    def _draw_order(self) -> Tensor:
        """Draw rows of expert and policy, ``(passes * rows, 2)``: each in turn before one comes again."""
        rows, passes, expert = len(self._policy[0]), self.data.passes, len(self._expert[0])
        with self.data.learner.own_random_states():
            of_policy = torch.cat([torch.randperm(rows) for _ in range(passes)])
            of_expert = torch.cat([torch.randperm(expert) for _ in range(-(-rows * passes // expert))])
        return torch.stack([of_expert[: rows * passes], of_policy], 1)


def _tensor(array: np.ndarray) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.float() if tensor.is_floating_point() else tensor
