"""Rollouts of a policy that learns from a discriminator, beside an expert's demonstrations."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader

from lit_bottleneck.checks import ConfigurationError, whole_number
from lit_bottleneck.data.dataset import keep_batch
from lit_bottleneck.data.demonstrations import Demonstrations
from lit_bottleneck.data.environments import installed, spaces_of
from lit_bottleneck.data.episodes import Episodes
from lit_bottleneck.data.policy_episodes import PolicyEpisodes
from lit_bottleneck.data.rollouts_loader import Columns, Half, RolloutLoader, evaluation_batches

if TYPE_CHECKING:
    from lit_bottleneck.data.rollouts_environments import Steps
    from lit_bottleneck.data.rollouts_learner import Learner

_EPISODES = 20  # whose mean return is logged


class Rollouts(PolicyEpisodes, LightningDataModule):
    """Batches ``(expert, policy)`` for ``VAIL`` and ``VAIRL``; the policy learns from their rewards between epochs.

    At the start of each epoch the policy takes ``num_steps`` in each of ``num_environments`` environments of gymnasium,
    is rewarded by the module that the trainer trains (``policy_reward(observations, actions, next_observations)``), and
    learns by PPO of stable-baselines3. In the epoch the module is trained on these steps against the demonstrations.
    The rewards of the task are never seen by either; the mean return of the last 20 episodes is logged as
    ``train/return``.

    The run is the same on repetition. Checkpoints hold the policy and its optimizer, as tensors, and where each
    environment was: a resumed run repeats the actions of the episodes that were under way. Where an environment does
    not come to the same observations, it says so, and new episodes begin.

    Args:
        environment: a name registered with gymnasium, such as ``"Pendulum-v1"``.
        demonstrations: of the expert.
        environment_kwargs: arguments of the environment.
        num_environments: how many run side by side.
        num_steps: of each environment in an epoch.
        batch_size: steps of the policy in a batch, and as many of the expert.
        passes: how often an epoch goes through the policy's steps.
        memory: of how many earlier epochs the policy's steps are kept: half of the steps of a batch are then drawn from
            these, and the module does not forget what earlier policies did wrong (as AIRL, arXiv 1710.11248).
        learner: further arguments of ``stable_baselines3.PPO``, such as ``learning_rate``; numbers, no schedules.
        seed: of environments, policy and batches. Default: that of torch, which ``seed_everything`` sets.
        test_episodes: how many episodes of the deterministic policy a test plays, from the same starts in all runs. The
            module is tested on their steps against the demonstrations.

    Raises:
        ConfigurationError: for an environment that is not registered, numbers out of range, and arguments that PPO does
            not take; in ``setup``, for demonstrations that are not of this environment, and several processes.
        ImportError: without the extra ``imitation``.

    Attributes:
        observation_dims: shape of one observation.
        action_dims: shape of one action, of discrete ones one-hot.
        num_actions: how many there are of each discrete action; empty for others.
        played: the episodes of the last test.
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
        memory: int = 0,
        learner: dict[str, Any] | None = None,
        seed: int | None = None,
        test_episodes: int = 10,
    ) -> None:
        installed("stable_baselines3")
        super().__init__()
        self.environment, self.environment_kwargs = environment, dict(environment_kwargs or {})
        self.demonstrations = demonstrations
        self.num_environments = whole_number("num_environments", num_environments, at_least=1)
        self.num_steps = whole_number("num_steps", num_steps, at_least=1)
        self.batch_size = whole_number("batch_size", batch_size, at_least=1)
        self.passes = whole_number("passes", passes, at_least=1)
        self.memory = whole_number("memory", memory, at_least=0)
        self.earlier: list[tuple[Tensor, Tensor, Tensor]] = []
        self.learner_arguments = dict(learner or {})
        self.seed = None if seed is None else whole_number("seed", seed, at_least=0, at_most=2**32 - 1)
        self.test_episodes = whole_number("test_episodes", test_episodes, at_least=1)
        spaces = spaces_of(self.make_environment())
        if any(bound is not None and not np.isfinite(bound).all() for bound in (spaces.low, spaces.high)):
            needs = f"PPO needs actions of a finite box; those of {environment} have no bounds"
            raise ConfigurationError(f"{needs}: register an environment that gives its action_space bounds")
        self.observation_dims, self.action_dims, self.num_actions = spaces[:3]
        self.played: Episodes | None = None
        self._learner: Learner | None = None
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
        self._check_expert(stage)
        if self._learner is None:
            seed = torch.initial_seed() % 2**32 if self.seed is None else self.seed
            environments = WatchedEnvironments(self.environment, self.environment_kwargs, self.num_environments, seed)
            self._learner = Learner(environments, self._reward, self.num_steps, self.learner_arguments, seed)

    def train_dataloader(self) -> "RolloutLoader":
        """Return batches of the policy's steps and the expert's, for each epoch new ones."""
        self._loader = RolloutLoader(self)
        return self._loader

    def test_dataloader(self) -> DataLoader[tuple[Half, Half]]:
        """Play the episodes of a test, and return batches of all their steps and the expert's."""
        self.played = self.play()
        batches: Any = evaluation_batches(self, self.expert, self.played)
        return DataLoader(batches, batch_size=None, collate_fn=keep_batch)

    def advance(self) -> "Steps":
        """Let the policy take its steps of an epoch and learn from them."""
        steps = self.learner.advance()
        environments = self.learner.environments
        self._returns = (self._returns + environments.returns)[-_EPISODES:]
        self._lengths = (self._lengths + environments.lengths)[-_EPISODES:]
        environments.returns, environments.lengths = [], []
        if environments.ended_early:
            self._warn_of_early_ends(f"one ended after {min(self._lengths)} steps")
        return steps

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Return the policy's most likely action of one observation, within its box."""
        return self.learner.act(observation)

    def half(self, columns: Columns, rows: Tensor) -> Half:
        """Return half of a batch, as the module takes it: these rows of the columns."""
        observations, after = columns[0][rows], columns[2][rows]
        if columns[1] is None:
            return observations
        actions = columns[1][rows]
        if not getattr(self._module, "takes_transitions", False):
            return observations, actions
        return observations, actions, after, self.learner.log_probs(observations, actions)

    def state_dict(self) -> dict[str, Any]:
        """Return the policy's state and the last returns."""
        if self._learner is None:
            return {}
        earlier = [list(columns) for columns in self.earlier]
        state = {"learner": self._learner.state_dict(), "returns": self._returns, "lengths": self._lengths}
        return state | {"earlier": earlier}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the policy; begin new episodes where the environments cannot be restored."""
        self._returns, self._lengths = list(state_dict["returns"]), list(state_dict["lengths"])
        earlier = state_dict.get("earlier", [])[-self.memory :] if self.memory else []  # it may hold more
        self.earlier = [(seen, acted, after) for seen, acted, after in earlier]
        self.learner.load_state_dict(state_dict["learner"])
        trains = self.trainer is None or self.trainer.state.fn == TrainerFn.FITTING
        if trains and not self.learner.continue_episodes(state_dict["learner"]):
            cannot = f"the state of {self.environment} cannot be restored by repeating the actions of an episode"
            rank_zero_warn(f"{cannot}: new episodes begin, and the run is not that without a stop")

    def _check_expert(self, stage: str | None) -> None:
        """Check that the demonstrations have what the module needs, and whether one ends before the time limit."""
        expert = self.expert
        if self._module is None:
            return
        needs = ["actions"] if getattr(self._module, "sees", None) != "state" else []
        needs += ["next_observations"] if getattr(self._module, "takes_transitions", False) else []
        expert.check_has(needs, type(self._module).__name__)
        lengths = expert.lengths
        limit = self.make_environment().spec.max_episode_steps or lengths.max()
        if lengths.min() < limit and stage != "test":
            self._warn_of_early_ends(f"a demonstration ends after {lengths.min()} of {limit} steps")

    def _warn_of_early_ends(self, reason: str) -> None:
        """Warn once of a reward of one sign where episodes can end early."""
        form = getattr(self._module, "form", None)
        if form not in ("positive", "negative") or self._has_warned:
            return
        self._has_warned = True
        pays = "staying alive" if form == "positive" else "ending early"
        why = f"episodes of {self.environment} can end early ({reason}), and a {form} reward pays for {pays} in itself"
        rank_zero_warn(f"{why}: set form='airl', whose rewards have both signs, or take a task of fixed length")

    @property
    def _module(self) -> Any:
        return None if self.trainer is None else self.trainer.lightning_module

    def _reward(self, observations: np.ndarray, actions: np.ndarray, after: np.ndarray) -> np.ndarray:
        reward: Tensor = self._module.policy_reward(observations, actions, after)
        return reward.cpu().numpy()
