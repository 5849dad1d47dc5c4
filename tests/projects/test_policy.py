"""A reinforcement-learning policy: REINFORCE with a bottleneck between observation and action, in a bare loop."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_bottleneck import BottleneckLayer, GaussianBottleneck
from lit_bottleneck.beta import BetaController, DualBeta
from tests.projects.checks import Trace, kl_by_hand, traced

ACTIONS, HORIZON, EPISODES = 3, 6, 16


class Corridor:
    """Episodes in parallel: the observation names the right action in noise, and the reward is 1 for taking it."""

    def reset(self) -> Tensor:
        self.steps = 0
        return self._observe()

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, bool]:
        rewards = (actions == self.right).float()
        self.steps += 1
        return self._observe(), rewards, self.steps == HORIZON

    def _observe(self) -> Tensor:
        self.right = torch.randint(ACTIONS, (EPISODES,))
        return F.one_hot(self.right, ACTIONS).float() + 0.2 * torch.randn(EPISODES, ACTIONS)


class Policy(GaussianBottleneck, nn.Module):
    """Logits of the actions, read from a code of the observation."""

    def __init__(self, beta: float | BetaController, latent_dim: int = 2, reduction: str | None = None) -> None:
        super().__init__(beta=beta)
        self.code = BottleneckLayer(16, latent_dim, reduction=reduction)  # type: ignore[arg-type]
        self.actor = nn.Sequential(nn.Linear(ACTIONS, 16), nn.Tanh(), self.code, nn.Linear(latent_dim, ACTIONS))

    def forward(self, observations: Tensor) -> torch.distributions.Categorical:
        return torch.distributions.Categorical(logits=self.actor(observations))


def train_from_rollouts(policy: Policy, optimizer: torch.optim.Optimizer, updates: int) -> Iterator[float]:
    """Roll out without a graph, in training mode, then learn from the batch of all steps; yield mean rewards."""
    world = Corridor()
    for _ in range(updates):
        observations, actions, rewards = [world.reset()], [], []
        done = False
        while not done:
            with torch.no_grad():
                actions.append(policy(observations[-1]).sample())
            observation, reward, done = world.step(actions[-1])
            observations.append(observation)
            rewards.append(reward)
        advantages = torch.cat(rewards) - torch.cat(rewards).mean()
        chosen = policy(torch.cat(observations[:-1])).log_prob(torch.cat(actions))
        loss = -(advantages * chosen).mean() + policy.rate_penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield torch.cat(rewards).mean().item()


def train_from_episodes(policy: Policy, optimizer: torch.optim.Optimizer, updates: int) -> None:
    """Keep the graph of each step of an episode instead."""
    world = Corridor()
    for _ in range(updates):
        observation, done, chosen, rewards = world.reset(), False, [], []
        while not done:
            actions = policy(observation)
            action = actions.sample()
            chosen.append(actions.log_prob(action))
            observation, reward, done = world.step(action)
            rewards.append(reward)
        returns = torch.stack(rewards) - torch.stack(rewards).mean()
        loss = -(returns * torch.stack(chosen)).sum(0).mean() + policy.rate_penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def trace_of(policy: Policy) -> AbstractContextManager[Trace]:
    def rate(z: Tensor, hidden: Tensor) -> Tensor:
        moments = F.linear(hidden, policy.code.moments.weight, policy.code.moments.bias)
        return kl_by_hand(moments).sum(1)

    return traced(policy.code, policy, rate)


def slow_dual() -> DualBeta:
    return DualBeta(2.0, ema=0.5, beta_init=0.01)


def made(**kwargs: object) -> tuple[Policy, torch.optim.Optimizer]:
    torch.manual_seed(0)
    policy = Policy(slow_dual(), **kwargs)
    return policy, torch.optim.Adam(policy.parameters(), lr=0.05)


@pytest.mark.filterwarnings("error")
def test_rollouts_without_a_graph_cost_nothing_and_the_policy_learns() -> None:
    policy, optimizer = made()
    with trace_of(policy) as trace:
        rewards = list(train_from_rollouts(policy, optimizer, updates=30))
    assert [len(window[0]) for window in trace.windows[:-1]] == [EPISODES * HORIZON] * 30
    trace.assert_follows(slow_dual(), updates=30)
    assert rewards[0] < 0.5 < 0.9 < rewards[-1]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_an_episode_pays_for_the_sum_of_its_steps_or_each_step_for_itself(reduction: str) -> None:
    policy, optimizer = made(reduction=reduction)
    with trace_of(policy) as trace:
        train_from_episodes(policy, optimizer, updates=10)
    assert [len(window) for window in trace.windows[:-1]] == [HORIZON] * 10
    if reduction == "sum":
        trace.windows = [[sum(window)] if window else [] for window in trace.windows]
    trace.assert_follows(slow_dual(), updates=10)


def test_nobody_said_what_an_episode_pays_for() -> None:
    policy, optimizer = made()
    with pytest.warns(UserWarning, match="code was called several times.*set reduction='sum'"):
        train_from_episodes(policy, optimizer, updates=2)


def test_a_price_that_nobody_pays_is_told() -> None:
    policy, optimizer = made()
    observations = Corridor().reset()

    def train_for_free() -> None:
        for _ in range(2):
            actions = policy(observations)
            optimizer.zero_grad()
            actions.log_prob(actions.sample()).mean().backward()
            optimizer.step()

    with pytest.warns(UserWarning, match="BottleneckLayer code has a rate that nothing priced"):
        train_for_free()


def test_the_state_of_a_policy_continues_to_the_last_bit(tmp_path: Path) -> None:
    """By the means of torch: state dicts, and the state of the random numbers."""
    policy, optimizer = made()
    list(train_from_rollouts(policy, optimizer, updates=4))
    parts = {"policy": policy.state_dict(), "optimizer": optimizer.state_dict(), "random": torch.get_rng_state()}
    torch.save(parts, tmp_path / "half.pt")
    straight = list(train_from_rollouts(policy, optimizer, updates=4)), policy.state_dict()
    twin, twin_optimizer = made()
    loaded = torch.load(tmp_path / "half.pt", weights_only=True)
    twin.load_state_dict(loaded["policy"])
    assert twin.beta != slow_dual().beta
    twin_optimizer.load_state_dict(loaded["optimizer"])
    torch.set_rng_state(loaded["random"])
    assert list(train_from_rollouts(twin, twin_optimizer, updates=4)) == straight[0]
    for name, value in straight[1].items():
        assert torch.equal(twin.state_dict()[name], value), name
