"""Rollouts: what the policy and the discriminator see, repetition, checkpoints, resuming, and what is refused."""

import copy
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from lightning import seed_everything
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from stable_baselines3 import PPO

from lit_bottleneck import VAIL, VAIRL
from lit_bottleneck.callbacks import RandomStates
from lit_bottleneck.data import Demonstrations, Rollouts
from lit_bottleneck.data.demonstrations import record
from lit_bottleneck.data.environments import make_environment
from lit_bottleneck.data.episodes import Episodes
from lit_bottleneck.data.experts import swing_up
from lit_bottleneck.data.rollouts_environments import RepeatableEnvironment, WatchedEnvironments
from lit_bottleneck.networks import MLP
from tests.data.walks import Walk, right, vail, walks
from tests.models.runs import logged
from tests.quiet import trainer as quiet


class Batches(Callback):
    """Keep the batches."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(batch)


def run(data: Rollouts, model: Any = None, **kwargs: Any) -> tuple[Any, list[Any], Any]:
    """Train, and return model, batches and trainer."""
    seed_everything(1, verbose=False)
    model = vail() if model is None else model()
    batches = Batches()
    callbacks = [RandomStates(), batches, *kwargs.pop("callbacks", [])]
    ckpt_path = kwargs.pop("ckpt_path", None)
    trainer = quiet(callbacks=callbacks, **{"max_epochs": 2, "log_every_n_steps": 1} | kwargs)
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return model, batches.seen, trainer


def flat(data: Rollouts, model: Any) -> torch.Tensor:
    """Return all weights of discriminator and policy."""
    weights = [*model.parameters(), *data.learner.algorithm.policy.parameters()]
    return torch.cat([weight.detach().flatten() for weight in weights])


# --- what an epoch is -----------------------------------------------------------------------------------------------


def test_an_epoch_goes_through_the_steps_of_the_policy_and_as_many_of_the_expert() -> None:
    data = walks(passes=2)
    _, seen, _ = run(data)
    assert [len(policy[0]) for _, policy in seen] == [8, 8, 4] * 4
    assert all(len(expert[0]) == len(policy[0]) for expert, policy in seen)
    assert all(batch[1].dtype == torch.int64 for half in seen for batch in half)
    epochs = [torch.cat([policy[0] for _, policy in seen[i : i + 3]]).flatten().sort().values for i in (0, 3, 6, 9)]
    assert torch.equal(epochs[0], epochs[1])
    assert torch.equal(epochs[2], epochs[3])
    assert not torch.equal(epochs[0], epochs[2])
    expert = torch.cat([half[0] for half, _ in seen[:6]]).flatten().tolist()
    counts = {value: expert.count(value) for value in expert}
    assert len(counts) == 21  # each step of three episodes of seven, before one comes again
    assert set(counts.values()) == {1, 2}
    assert (data.observation_dims, data.action_dims, data.num_actions) == ((1,), (2,), (2,))


def test_the_learner_leaves_no_folder_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run(walks())
    assert list(tmp_path.iterdir()) == []


def test_it_learns_from_each_so_many_th_step_of_the_expert_alone() -> None:
    data = walks()
    data.demonstrations = Demonstrations(expert=right, episodes=3, every=4)
    _, seen, _ = run(data, max_epochs=1)
    learnt = {value.item() for half, _ in seen for value in half[0]}
    assert learnt == set(data.expert.observations[[0, 4, 7, 11, 14, 18]].flatten().tolist())
    assert data.expert.lengths.tolist() == [7, 7, 7]


def test_half_of_the_steps_are_of_earlier_epochs_where_these_are_remembered() -> None:
    """Twenty steps an epoch, gone through twice: as many of the memory's, which holds the last two epochs."""
    data = walks(memory=2, passes=2)
    _, seen, _ = run(data, max_epochs=4)
    epochs = [torch.cat([policy[0] for _, policy in seen[6 * i : 6 * i + 6]]).flatten() for i in range(4)]
    assert [len(epoch) for epoch in epochs] == [40] * 4
    own = [set(epochs[0].tolist()), *(set(columns[0].flatten().tolist()) for columns in data.earlier)]
    assert len(data.earlier) == 2  # of the last two epochs
    for epoch, here, before in ((2, own[1], None), (3, own[2], own[1])):
        fresh = [value for value in epochs[epoch].tolist() if value in here]
        assert len(fresh) == 20
        if before is not None:
            others = {value for value in epochs[epoch].tolist() if value not in here}
            assert others & before
            assert not others & own[0]  # forgotten


def test_the_policy_learns_from_the_discriminators_rewards_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """PPO gets the learnt reward of each step, and where a time limit ends an episode the value of its end."""
    buffers: list[Any] = []
    monkeypatch.setattr(PPO, "train", lambda algorithm: buffers.append(copy.deepcopy(algorithm.rollout_buffer)))
    data = walks()
    data.trainer = SimpleNamespace(world_size=1, lightning_module=vail())  # type: ignore[assignment]
    data.setup()
    steps = data.advance()
    [buffer], algorithm = buffers, data.learner.algorithm
    expected = data.trainer.lightning_module.reward(steps.observations, steps.actions).reshape(10, 2)  # type: ignore[union-attr]
    with torch.no_grad():
        ends = torch.from_numpy(steps.next_observations.reshape(10, 2, 1))
        expected[6] += algorithm.gamma * algorithm.policy.predict_values(ends[6]).flatten()
        last = algorithm.policy.predict_values(ends[9]).flatten().numpy()
    torch.testing.assert_close(torch.from_numpy(buffer.rewards), expected)
    advantages = buffer.rewards[9] + algorithm.gamma * last - buffer.values[9]
    np.testing.assert_allclose(buffer.advantages[9], advantages, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_policy_comes_to_walk_as_the_expert_does() -> None:
    data = walks(num_steps=64, batch_size=64, passes=4, learner={"batch_size": 64, "learning_rate": 0.01})
    run(data, lambda: vail(form="airl", optimizer=lambda weights: torch.optim.Adam(weights, 0.01)), max_epochs=12)
    actions = [data.learner.act(np.array([[place]], np.float32))[0] for place in (-1.0, 0.0, 1.0, 2.0)]
    assert actions == [1, 1, 1, 1]


@pytest.mark.parametrize("name", ["Walk-v0", "Pendulum-v1", "Pictures-v0"])
def test_episodes_of_the_policy_can_be_recorded_and_are_the_same_again(name: str) -> None:
    data = walks(name)
    data._expert = SimpleNamespace(next_observations=0)  # type: ignore[assignment]  (not needed)
    data.setup()
    first, again = (record(make_environment(name), data.act, 2, seed=3) for _ in range(2))
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert first.lengths.tolist() == [{"Walk-v0": 7, "Pendulum-v1": 200, "Pictures-v0": 5}[name]] * 2


def test_returns_lengths_and_steps_are_logged_and_not_learnt_from(tmp_path: Path) -> None:
    data = walks()
    run(data, logger=CSVLogger(tmp_path))
    rows = [row for row in logged(tmp_path) if row.get("train/return")]
    assert [float(row["train/return"]) for row in rows] == [7.0, 7.0]  # a reward of 1 each step
    assert [float(row["train/episode_length"]) for row in rows] == [7.0, 7.0]
    assert [float(row["train/environment_steps"]) for row in rows] == [20.0, 40.0]


def test_transitions_have_the_log_probabilities_under_the_current_policy() -> None:
    data = walks()
    model, seen, trainer = run(data, lambda: VAIRL(MLP(1, [8], 4), MLP(1, [8], 4), latent_dim=2), max_epochs=1)
    for half in seen[0]:
        observations, actions, after, log_probs = half
        distribution = data.learner.algorithm.policy.get_distribution(observations)
        torch.testing.assert_close(log_probs, distribution.log_prob(actions.flatten()).detach())
        assert after.shape == observations.shape
        assert ((after - observations).abs() < 1.1).all()  # steps of .5 and noise, none over the end of an episode

    [measured] = trainer.test(model, datamodule=data, verbose=False)
    assert data.played is not None
    told = 0.0
    for is_expert, episodes in ((True, data.expert), (False, data.played)):
        tensors = (episodes.observations, episodes.actions, episodes.next_observations)
        observations, actions, after = (torch.from_numpy(one) for one in tensors)  # type: ignore[arg-type]
        logits = model.logit(observations, after, data.learner.log_probs(observations, actions))
        told += ((logits > 0) == is_expert).float().mean().item() / 2
    assert measured["test/accuracy"] == pytest.approx(told, abs=0.05)  # batches may differ by a row


class Pictures(gymnasium.Env[Any, Any]):
    """Random pictures, channels last, and actions in a matrix; an episode has five steps."""

    observation_space = gymnasium.spaces.Box(0, 255, (36, 36, 3), np.uint8)
    action_space = gymnasium.spaces.Box(-1, 1, (2, 2), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self._picture(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self._picture(), 0.0, False, False, {}

    def _picture(self) -> np.ndarray:
        return self.np_random.integers(256, size=(36, 36, 3), dtype=np.uint8)


gymnasium.register("Pictures-v0", Pictures, max_episode_steps=5)


def test_log_probabilities_of_pictures_and_of_actions_in_a_matrix_are_those_that_the_policy_learns_from() -> None:
    """Of steps that were taken and not clipped: those in the buffer of PPO."""
    small = {"batch_size": 10, "n_epochs": 1, "learning_rate": 0.0, "policy_kwargs": {"log_std_init": -3.0}}
    data = Rollouts(
        "Pictures-v0",
        Demonstrations(expert=lambda _: np.zeros((2, 2)), episodes=1),
        num_environments=2,
        num_steps=5,
        learner=small,
        seed=0,
    )
    width = 36 * 36 * 3
    run(data, lambda: VAIRL(MLP(width, [4], 4), MLP(width, [4], 4), latent_dim=2), max_epochs=1)
    data._learner._reward = lambda *steps: np.zeros(10)  # type: ignore[union-attr]
    steps = data.learner.advance()
    buffer = data.learner.algorithm.rollout_buffer
    found = data.learner.log_probs(torch.from_numpy(steps.observations), torch.from_numpy(steps.actions))
    torch.testing.assert_close(found.sort().values, torch.from_numpy(buffer.log_probs).flatten().sort().values)


# --- repetition and resuming ----------------------------------------------------------------------------------------


def test_an_environment_repeats_an_episode_up_to_any_step() -> None:
    def make() -> RepeatableEnvironment:
        return RepeatableEnvironment(make_environment("Pendulum-v1"), seed=3, index=1)

    environment, other = make(), make()
    for _ in range(3):
        environment.reset()
    for step in range(5):
        observation, *_ = environment.step(np.array([step / 3], np.float32))
    assert np.array_equal(other.set_state(environment.get_state()), observation)
    ahead = [one.step(np.array([0.5], np.float32))[0] for one in (environment, other)]
    assert np.array_equal(*ahead)
    assert np.array_equal(environment.reset()[0], other.reset()[0])
    assert np.array_equal(make().reset()[0], make().reset(seed=5)[0])  # that of its number


def test_a_run_is_the_same_on_repetition_and_depends_on_the_seed_alone() -> None:
    def weights(seed: int, draws: int) -> torch.Tensor:
        data = walks(seed=seed)
        data.setup()
        torch.rand(draws)  # what else is drawn
        np.random.rand(draws)
        model, *_ = run(data)
        return flat(data, model)

    first = weights(0, 1)
    assert torch.equal(weights(0, 5), first)
    assert not torch.equal(weights(1, 1), first)


def test_without_a_seed_of_its_own_it_is_that_of_everything() -> None:
    def policy(seed: int) -> torch.Tensor:
        seed_everything(seed, verbose=False)
        data = walks()
        data.setup()
        return torch.cat([weight.detach().flatten() for weight in data.learner.algorithm.policy.parameters()])

    assert torch.equal(policy(3), policy(3))
    assert not torch.equal(policy(3), policy(4))


class SaveAt(Callback):
    """Write a checkpoint after a batch."""

    def __init__(self, path: Path, step: int) -> None:
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize(("step", "memory"), [(2, 0), (3, 0), (4, 0), (3, 2), (5, 2)])
def test_a_resumed_run_is_that_without_a_stop(step: int, memory: int, tmp_path: Path) -> None:
    """From within the first epoch, from its end, and from within the second; three batches each."""
    path = tmp_path / "stopped.ckpt"
    data = walks(memory=memory)
    model, *_ = run(data, callbacks=[SaveAt(path, step)], max_epochs=3)
    torch.load(path, weights_only=True)
    resumed = walks(memory=memory)
    again, seen, _ = run(resumed, ckpt_path=path, max_epochs=3)
    assert len(seen) == 9 - step
    assert torch.equal(flat(resumed, again), flat(data, model))
    assert resumed.episode_statistics == data.episode_statistics


def test_a_run_resumed_with_a_shorter_memory_forgets(tmp_path: Path) -> None:
    path = tmp_path / "stopped.ckpt"
    run(walks(memory=2), callbacks=[SaveAt(path, 6)], max_epochs=2)
    state = torch.load(path, weights_only=True)["Rollouts"]
    for memory in (2, 1, 0):
        data = walks(memory=memory)
        data.setup()
        data.load_state_dict(state)
        assert len(data.earlier) == memory
        if memory:
            assert torch.equal(data.earlier[-1][0], state["earlier"][-1][0])


def test_a_resumed_pendulum_is_that_without_a_stop(tmp_path: Path) -> None:
    def data() -> Rollouts:
        demonstrations = Demonstrations(expert=swing_up, episodes=1)
        return Rollouts(
            "Pendulum-v1",
            demonstrations,
            num_environments=2,
            num_steps=150,
            batch_size=100,
            learner={"batch_size": 60, "n_epochs": 2},
        )

    def model() -> VAIL:
        return VAIL(MLP(4, [8], 4), latent_dim=2)

    path, whole, resumed = tmp_path / "stopped.ckpt", data(), data()
    trained, *_ = run(whole, model, callbacks=[SaveAt(path, 4)])
    again, *_ = run(resumed, model, ckpt_path=path)
    assert torch.equal(flat(resumed, again), flat(whole, trained))
    assert whole.episode_statistics["episode_length"] == 200


def test_an_environment_that_cannot_be_restored_is_told_and_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "stopped.ckpt"
    run(walks("OddWalk-v0"), callbacks=[SaveAt(path, 4)])
    with pytest.warns(UserWarning, match="state of OddWalk-v0 cannot be restored .* new episodes begin"):
        run(walks("OddWalk-v0"), ckpt_path=path)


@pytest.mark.parametrize(
    ("step", "kwargs", "message"),
    [
        (3, {"num_environments": 3}, "num_environments=3, but the policy of the checkpoint had 2"),
        (3, {"num_environments": 1}, "num_environments=1, but the policy of the checkpoint had 2"),
        (4, {"num_steps": 20}, "within an epoch of 20 steps .* num_steps=20, passes=1 make it 40"),
        (4, {"passes": 2}, "num_steps=10, passes=2 make it 40"),
    ],
)
def test_a_checkpoint_of_other_sizes_is_refused(
    step: int, kwargs: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "stopped.ckpt"
    run(walks(), callbacks=[SaveAt(path, step)], max_epochs=2)
    with pytest.raises(ValueError, match=message):
        run(walks(**kwargs), ckpt_path=path, max_epochs=3)


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "pays"), [("positive", "staying alive"), ("negative", "ending early")])
def test_episodes_that_end_early_are_told_with_rewards_of_one_sign(form: Any, pays: str) -> None:
    """By a demonstration before a step of the policy; where none tells, at the first such episode."""
    whole = Episodes(np.zeros((7, 1), np.float32), np.ones((7, 1), np.int64), np.array([7]))
    for reason, expert in (("a demonstration ends after 1 of 7 steps", None), ("one ended after 1 steps", whole)):
        data = walks("EarlyWalk-v0")
        data._expert = expert
        why = rf"EarlyWalk-v0 can end early \({reason}\), and a {form} reward pays for {pays}"
        with pytest.warns(UserWarning, match=why) as caught:
            run(data, lambda: vail(form=form))
        assert sum("end early" in str(warning.message) for warning in caught) == 1


def test_rewards_of_both_signs_and_time_limits_are_not_told(recwarn: pytest.WarningsRecorder) -> None:
    run(walks("EarlyWalk-v0"), lambda: vail(form="airl"))
    run(walks("Walk-v0"))
    assert not [warning for warning in recwarn if "end early" in str(warning.message)]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_environments": 0}, "num_environments must be a whole number, at least 1"),
        ({"num_steps": 0}, "num_steps must be a whole number"),
        ({"batch_size": 0}, "batch_size must be a whole number"),
        ({"passes": 0}, "passes must be a whole number"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"name": "NoSuch-v0"}, "environment='NoSuch-v0' is not registered"),
        ({"environment_kwargs": {"wind": 1}}, "environment_kwargs="),
    ],
)
def test_arguments_out_of_range_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        walks(**kwargs)


def test_arguments_that_ppo_does_not_take_are_refused() -> None:
    with pytest.raises(ValueError, match=r"learner: PPO does not take \{'learning_rates': 1\}: .*learning_rates"):
        walks(learner={"learning_rates": 1}).setup()
    with pytest.raises(ValueError, match="learner: n_steps of PPO are set by Rollouts"):
        walks(learner={"n_steps": 1}).setup()


def test_actions_without_bounds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pictures, "action_space", gymnasium.spaces.Box(-np.inf, np.inf, (2, 2)))
    with pytest.raises(ValueError, match="PPO needs actions of a finite box; those of Pictures-v0 have no bounds"):
        walks("Pictures-v0")


def test_an_environment_that_gives_no_numbers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Walk, "reward", np.nan)
    environments = WatchedEnvironments("Walk-v0", {}, 1, 0)
    environments.reset()
    with pytest.raises(ValueError, match="Walk-v0 gave an observation or a reward that is not finite"):
        environments.step(np.array([1]))
    with pytest.raises(ValueError, match="episodes of right in Walk-v0: rewards must be finite numbers"):
        record(make_environment("Walk-v0"), right, 1)


def test_demonstrations_without_actions_serve_what_sees_states_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "seen.npz", observations=np.arange(14.0)[:, None], lengths=[7, 7])

    def data() -> Rollouts:
        found = walks()
        found.demonstrations = Demonstrations(tmp_path / "seen.npz")
        return found

    def model() -> VAIL:
        return VAIL(MLP(1, [8], 4), latent_dim=2, sees="state")

    _, seen, trainer = run(data(), model)
    assert {row for expert, _ in seen for row in expert.flatten().tolist()} == set(range(14))
    assert len(seen[0][1][0]) == 8  # the policy's observations, and its actions
    assert "test/accuracy" in trainer.test(model(), datamodule=data(), verbose=False)[0]
    with pytest.raises(ValueError, match=r"VAIL needs demonstrations with actions.*sees='state'"):
        run(data())
    with pytest.raises(ValueError, match=r"VAIRL needs demonstrations with actions and next_observations"):
        run(data(), lambda: VAIRL(MLP(1, [8], 4), MLP(1, [8], 4), latent_dim=2))


def test_demonstrations_of_another_environment_are_refused(tmp_path: Path) -> None:
    record(make_environment("Pendulum-v1"), swing_up, 1).save(tmp_path / "pendulum.npz")
    with pytest.raises(ValueError, match=r"pendulum\.npz: the environment needs observations of the shape \(200, 1\)"):
        Rollouts("Walk-v0", Demonstrations(tmp_path / "pendulum.npz")).setup()


def test_an_encoder_that_does_not_fit_the_spaces_is_refused_before_a_step() -> None:
    with pytest.raises(ValueError, match="the encoder takes 3 numbers beside the observation"):
        run(walks(), lambda: VAIL(MLP(4, [8], 4), latent_dim=2))


def test_the_extra_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "stable_baselines3", None)  # as where it is not there
    with pytest.raises(ImportError, match=r"package stable-baselines3: pip install 'lit_bottleneck\[imitation\]'"):
        walks()


def test_a_watched_environment_keeps_the_rewards_of_the_task_to_itself() -> None:
    environments = WatchedEnvironments("Walk-v0", {}, 2, 0)
    environments.reset()
    for _ in range(8):
        _, rewards, _, _ = environments.step(np.array([1, 0]))
        assert rewards.tolist() == [0.0, 0.0]
    assert (environments.returns, environments.lengths, environments.ended_early) == ([7.0, 7.0], [7, 7], False)
    steps = environments.take_steps()
    assert steps.observations.shape == (16, 1)
    first = slice(0, 14, 2)  # the first environment's first episode
    assert steps.next_observations[first][:-1].tolist() == steps.observations[first][1:].tolist()
    assert steps.actions[first].tolist() == [1] * 7


def test_episodes_without_next_observations_serve_states_and_actions_but_no_transitions() -> None:
    data = walks()
    data._expert = Episodes(np.zeros((7, 1), np.float32), np.ones((7, 1), np.int64), np.array([7]))
    assert run(data, max_epochs=1)[1]
    with pytest.raises(ValueError, match="VAIRL needs demonstrations with next_observations"):
        run(data, lambda: VAIRL(MLP(1, [8], 4), MLP(1, [8], 4), latent_dim=2), max_epochs=1)
