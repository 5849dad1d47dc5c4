"""A learnt reward that stays as it is, while a new policy learns from it in another task."""

from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.models.imitation_base import ImitationDiscriminator
from lit_bottleneck.training.checkpoints import load_model


class FrozenReward(LightningModule):
    """Reward a policy by the model of a checkpoint, of which nothing is trained (transfer, arXiv 1710.11248).

    The policy of ``data.Rollouts`` is rewarded by ``g(s)`` of ``VAIRL``, or by the reward of ``VAIL``, less the mean
    and over the deviation of the rewards of its first epoch: rewards of any scale are then learnt from alike. Neither
    the demonstrations of the datamodule nor the rewards of the task have a part in it; ``train/return`` is logged.

    Args:
        reward: the checkpoint of a ``VAIRL`` or ``VAIL`` that ``lit-bottleneck fit`` trained, which a resumed run reads
            again.

    Raises:
        ConfigurationError: for a checkpoint of another model, and see ``load_model``.
    """

    takes_transitions = False
    sees = "state"  # of the demonstrations, which need no actions

    def __init__(self, reward: str | Path) -> None:
        super().__init__()
        self.automatic_optimization = False
        model = load_model(reward)
        if not isinstance(model, ImitationDiscriminator):
            needs = "reward must be a checkpoint of VAIRL or VAIL"
            raise ConfigurationError(f"{needs}; {reward} is one of {type(model).__name__}")
        self.model: Any = model.requires_grad_(False)
        self.unused = torch.nn.Parameter(torch.zeros(()))
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.zeros(()))  # until the first epoch

    def reward(self, observations: Any, actions: Any = None) -> Tensor:
        """Return the reward as it was learnt, ``(B,)``: ``g`` of ``VAIRL``, which looks at observations alone."""
        seen = (observations,) if self.model.takes_transitions else (observations, actions)
        reward: Tensor = self.model.reward(*seen)
        return reward

    def policy_reward(self, observations: Any, actions: Any, next_observations: Any) -> Tensor:
        """Return what the policy learns from, without a graph, ``(B,)``, float32."""
        reward = self.reward(observations, actions)
        if not self.deviation:
            self.mean, self.deviation = reward.mean(), reward.std(correction=0).clamp(min=1e-8)
        return (reward - self.mean) / self.deviation

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Count the step; the policy has learnt before the epoch's first batch."""
        optimizer: Any = self.optimizers()
        optimizer.step()

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Do nothing: what a test measures are the policy's episodes."""

    def on_train_epoch_end(self) -> None:
        """Log the statistics of the episodes, ``return`` of the task first of all."""
        statistics = getattr(getattr(self.trainer, "datamodule", None), "episode_statistics", {})
        self.log_dict({f"train/{name}": value for name, value in statistics.items()}, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return an optimizer that changes nothing: Lightning saves no checkpoint before the step of one."""
        return torch.optim.SGD([self.unused], lr=0.0)
