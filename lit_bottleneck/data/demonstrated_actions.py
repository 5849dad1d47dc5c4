"""Observations of an expert with its actions: to predict the one from the other is behaviour cloning."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_bottleneck.checks import ConfigurationError, whole_number
from lit_bottleneck.data.base import ExamplesDataModule
from lit_bottleneck.data.dataset import Batch, BatchedDataset, Examples
from lit_bottleneck.data.demonstrations import Demonstrations
from lit_bottleneck.data.environments import spaces_of
from lit_bottleneck.data.policy_episodes import PolicyEpisodes
from lit_bottleneck.training.evaluating import evaluating

_CONSTANT = 1e-6  # deviation of what does not vary, as a share of its mean


class DemonstratedActions(PolicyEpisodes, ExamplesDataModule):
    """Observations of an expert with its actions, for behaviour cloning: a regression, or a classification.

    A batch is ``(x, y)``: observations, float32 ``(B, *dims)``, standardised by mean and deviation over all
    demonstrations, and actions, float32 ``(B, A)`` for ``VIBRegressor`` or, discrete ones, int64 ``(B,)`` for
    ``VIBClassifier``; ``deterministic=True`` of these is plain behaviour cloning. The policy is the module that the
    trainer trains or tests. The test rows are all demonstrations: how good the policy is, its own episodes tell.

    Args:
        environment: a name registered with gymnasium, such as ``"Pendulum-v1"``.
        demonstrations: of the expert.
        environment_kwargs: arguments of the environment.
        batch_size: examples per batch and process.
        test_episodes: how many episodes of the policy a test plays, from the same starts in all runs.
        **kwargs: ``num_workers``, ``seed``, ``val_size``, ``drop_last`` and ``predict_part``, as for
            ``ExamplesDataModule``; ``root`` is not used.

    Raises:
        ConfigurationError: for an environment that is not registered, several discrete actions at a time, and numbers
            out of range; in ``setup``, for demonstrations that are not of this environment.
        ImportError: without the extra ``imitation``.

    Attributes:
        dims: shape of one observation.
        target_dims: shape of one action, of floats.
        num_classes: how many discrete actions there are.
    """

    target_dims: tuple[int, ...]
    num_classes: int

    def __init__(
        self,
        environment: str,
        demonstrations: Demonstrations,
        environment_kwargs: dict[str, Any] | None = None,
        batch_size: int = 64,
        test_episodes: int = 10,
        **kwargs: Any,
    ) -> None:
        self.environment, self.environment_kwargs = environment, dict(environment_kwargs or {})
        self.demonstrations = demonstrations
        self.test_episodes = whole_number("test_episodes", test_episodes, at_least=1)
        self._spaces = spaces_of(self.make_environment())
        super().__init__(dims=self._spaces.observation_dims, batch_size=batch_size, **kwargs)
        discrete = self._spaces.num_actions
        if len(discrete) > 1:
            needs = "DemonstratedActions needs actions of floats, or one discrete action"
            raise ConfigurationError(f"{needs}; each of {environment} is {len(discrete)} discrete ones")
        if discrete:
            [self.num_classes] = discrete
        else:
            self.target_dims = self._spaces.action_dims or (1,)
        self._moments: tuple[Tensor, Tensor] | None = None

    def load(self) -> tuple[Examples, Examples]:
        """Return the rows to learn from, and all rows."""
        learnt, whole = (self._examples(episodes) for episodes in (self.expert_steps, self.expert))
        if self._moments is None:  # else they are those of a checkpoint
            observations = learnt.inputs[learnt.rows].double()
            mean, deviation = observations.mean(0), observations.std(0, correction=0)
            self._moments = mean.float(), torch.where(deviation > _CONSTANT * mean.abs(), deviation, 1.0).float()
        return learnt, whole

    def make_dataset(self, examples: Examples, part: str) -> BatchedDataset:
        """Return the dataset over the ``examples`` of one part."""
        return StandardizedRows(examples, self)

    def standardized(self, observations: Tensor) -> Tensor:
        """Return observations ``(B, *dims)`` as the module sees them, float32."""
        if self._moments is None:
            raise RuntimeError("DemonstratedActions has no moments of observations before setup()")
        mean, deviation = self._moments
        return (observations.float() - mean) / deviation

    @torch.no_grad()
    def act(self, observation: np.ndarray) -> np.ndarray:
        """Return the module's prediction of the action of one observation, within its box."""
        if self.trainer is None or self.trainer.lightning_module is None:
            raise RuntimeError("DemonstratedActions.act needs a trainer that has trained or tested a module on it")
        module: Any = self.trainer.lightning_module
        x = self.standardized(torch.from_numpy(np.reshape(observation, (1, *self.dims))))
        with evaluating(module):  # at the end of a training it is not
            predicted: np.ndarray = module(x.to(module.device))[0].float().cpu().numpy()
        if self._spaces.num_actions:
            return np.asarray(predicted.argmax())
        action: np.ndarray = np.clip(predicted.reshape(self._spaces.action_dims), self._spaces.low, self._spaces.high)
        return action

    def state_dict(self) -> dict[str, Any]:
        """Return mean and deviation of the observations; nothing before ``setup``."""
        return {} if self._moments is None else dict(zip(("mean", "deviation"), self._moments, strict=True))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over mean and deviation of the observations that the module was trained on."""
        self._moments = state_dict["mean"], state_dict["deviation"]

    def _examples(self, episodes: Any) -> Examples:
        episodes.check_has(["actions"], type(self).__name__)
        actions = torch.from_numpy(episodes.actions)
        labels = actions.reshape(-1) if self._spaces.num_actions else actions.reshape(-1, *self.target_dims)
        return Examples.of(torch.from_numpy(episodes.observations), labels)


class StandardizedRows(BatchedDataset):
    """Rows whose observations are standardised as their datamodule has it at that time.

    Args:
        examples: observations and actions.
        data: the datamodule.
    """

    def __init__(self, examples: Examples, data: DemonstratedActions) -> None:
        super().__init__(examples)
        self._data = data

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return observations ``(B, *dims)`` and actions at ``indices``."""
        observations, actions = super().__getitems__(indices)
        return self._data.standardized(observations), actions
