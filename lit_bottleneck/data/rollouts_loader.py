"""Batches of an epoch of rollouts."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data.episodes import Episodes

if TYPE_CHECKING:
    from lit_bottleneck.data.rollouts import Rollouts

Columns = tuple[Tensor, Tensor | None, Tensor]  # observations, actions, next observations
Steps = tuple[Tensor, Tensor, Tensor]
Half = Tensor | tuple[Tensor, ...]


class RolloutLoader:
    """Batches of an epoch: it begins with new steps of the policy, or where a checkpoint was written.

    Args:
        data: whose policy takes the steps.
    """

    def __init__(self, data: "Rollouts") -> None:
        self.data = data
        self._policy: Columns | None = None
        self._order = torch.zeros(0, 2, dtype=torch.int64)
        self._position = 0
        self._is_restored = False
        self._expert = columns_of(data.expert_steps)

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        rows = self.data.num_environments * self.data.num_steps
        return self.data.passes * -(-rows // self.data.batch_size)

    def __iter__(self) -> Iterator[tuple[Half, Half]]:
        """Let the policy learn, and yield ``(expert, policy)``."""
        if self._policy is None or not self._is_restored:
            observations, actions, after = map(_tensor, self.data.advance())
            self._policy = self._with_earlier((observations, actions, after))
            self._position, self._order = 0, self._draw_order(len(self._policy[0]))
        self._is_restored = False
        rows = self.data.num_environments * self.data.num_steps
        per_pass = -(-rows // self.data.batch_size)
        while self._position < len(self):
            index, batch = divmod(self._position, per_pass)
            size = self.data.batch_size
            picked = self._order[index * rows : (index + 1) * rows][batch * size : (batch + 1) * size]
            self._position += 1
            yield self.data.half(self._expert, picked[:, 0]), self.data.half(self._policy, picked[:, 1])

    def state_dict(self) -> dict[str, Any]:
        """Return the steps of the epoch, their order, and how many batches were read; nothing at its end."""
        trainer = self.data.trainer
        if trainer is None or trainer.is_last_batch or self._policy is None:
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

    def _with_earlier(self, new: Steps) -> Steps:
        """Return steps of the policy and, if earlier ones are kept, as many of these; keep the new ones too."""
        earlier, memory = self.data.earlier, self.data.memory
        self.data.earlier = [*earlier, new][-memory:] if memory else []
        if not earlier:
            return new
        with self.data.learner.own_random_states():
            picked = torch.randint(sum(len(one[0]) for one in earlier), (len(new[0]),))
        seen, acted, after = (torch.cat(column)[picked] for column in zip(*earlier, strict=True))
        return torch.cat([new[0], seen]), torch.cat([new[1], acted]), torch.cat([new[2], after])

    def _draw_order(self, policy: int) -> Tensor:
        """Draw rows of expert and policy for all batches ``(N, 2)``: each in turn before one comes again."""
        expert = len(self._expert[0])
        total = self.data.passes * self.data.num_environments * self.data.num_steps
        with self.data.learner.own_random_states():
            of_policy = torch.cat([torch.randperm(policy) for _ in range(-(-total // policy))])
            of_expert = torch.cat([torch.randperm(expert) for _ in range(-(-total // expert))])
        return torch.stack([of_expert[:total], of_policy[:total]], 1)


def columns_of(episodes: Episodes) -> Columns:
    """Return observations, actions and next observations as tensors (without next ones, the same observations)."""
    after = episodes.observations if episodes.next_observations is None else episodes.next_observations
    actions = None if episodes.actions is None else _tensor(episodes.actions)
    return _tensor(episodes.observations), actions, _tensor(after)


def evaluation_batches(data: "Rollouts", expert: Episodes, policy: Episodes) -> list[tuple[Half, Half]]:
    """Return all steps of both, in batches ``(expert, policy)``."""
    both = columns_of(expert), columns_of(policy)
    steps = [len(columns[0]) for columns in both]
    count = min(*steps, -(-max(steps) // data.batch_size))
    rows = zip(*(torch.arange(one).tensor_split(count) for one in steps), strict=True)
    return [(data.half(both[0], of_expert), data.half(both[1], of_policy)) for of_expert, of_policy in rows]


def _tensor(array: np.ndarray) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.float() if tensor.is_floating_point() else tensor
