"""Demonstrations: what is recorded, files, and what is refused."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from lit_bottleneck.data import Demonstrations
from lit_bottleneck.data.demonstrations import record
from lit_bottleneck.data.environments import Spaces, make_environment, spaces_of
from lit_bottleneck.data.episodes import Episodes, read_episodes
from lit_bottleneck.data.experts import swing_up


def left(observation: np.ndarray) -> int:
    return 0


def too_strong(observation: np.ndarray) -> list[float]:
    return [3.0]


@pytest.fixture(scope="module")
def pendulum() -> Any:
    return make_environment("Pendulum-v1")


def test_recorded_episodes_are_what_the_environment_does(pendulum: Any) -> None:
    episodes = record(pendulum, swing_up, 2, seed=3)
    assert episodes.lengths.tolist() == [200, 200]
    assert (episodes.observations.shape, episodes.actions.shape) == ((400, 3), (400, 1))
    again = record(gymnasium.make("Pendulum-v1"), swing_up, 2, seed=3)
    assert all(np.array_equal(one, other) for one, other in zip(episodes, again, strict=True))
    assert not np.array_equal(record(pendulum, swing_up, 1, seed=4).observations[0], episodes.observations[0])
    np.testing.assert_array_equal(episodes.next_observations[:199], episodes.observations[1:200])
    cos, sin, velocity = episodes.observations.T
    angle, torque = np.arctan2(sin, cos), episodes.actions[:, 0]
    cost = angle**2 + 0.1 * velocity**2 + 0.001 * torque**2
    np.testing.assert_allclose(episodes.rewards, -cost, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(episodes.returns, [-cost[:200].sum(), -cost[200:].sum()], rtol=1e-4)


def test_the_scripted_expert_swings_up_from_anywhere(pendulum: Any) -> None:
    episodes = record(pendulum, swing_up, 20)
    ends = episodes.next_observations[199::200]
    assert (ends[:, 0] > 0.99).all()
    assert episodes.returns.mean() > -220


def test_a_file_gives_back_the_episodes_and_the_first_of_them(tmp_path: Path, pendulum: Any) -> None:
    episodes = record(pendulum, swing_up, 3)
    episodes.save(tmp_path / "pendulum.npz")
    again = Demonstrations(tmp_path / "pendulum.npz").load(pendulum)
    assert all(np.array_equal(one, other) for one, other in zip(episodes, again, strict=True))
    two = Demonstrations(str(tmp_path / "pendulum.npz"), episodes=2).load(pendulum)
    assert all(np.array_equal(one, other) for one, other in zip(episodes.part(0, 2), two, strict=True))
    with pytest.raises(ValueError, match="episodes=4, and there are 3"):
        Demonstrations(tmp_path / "pendulum.npz", episodes=4).load(pendulum)
    expert = Demonstrations(expert="lit_bottleneck.data.experts.swing_up", episodes=3).load(pendulum)
    assert np.array_equal(expert.observations, episodes.observations)


def test_a_file_of_observations_and_actions_is_one_episode(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", observations=np.zeros((5, 4)), actions=np.array([0, 1, 1, 0, 1], dtype=np.uint8))
    episodes = Demonstrations(tmp_path / "mine.npz").load(make_environment("CartPole-v1"))
    assert (episodes.lengths.tolist(), episodes.actions.tolist()) == ([5], [[0], [1], [1], [0], [1]])
    assert episodes.returns is None


class Trap:
    """What runs where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("it was unpickled",))


def test_nothing_in_a_file_is_unpickled(tmp_path: Path) -> None:
    trap = np.empty(3, dtype=object)
    trap[0] = Trap()
    np.savez(tmp_path / "trap.npz", observations=np.zeros((3, 3)), actions=trap)
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps({"observations": 1}))
    (tmp_path / "text.npz").write_text("observations")
    np.savez(tmp_path / "beside.npz", observations=np.zeros((3, 3)), actions=np.zeros((3, 1)), infos=trap)
    np.savez(tmp_path / "more.npz", observations=np.zeros((3, 3)), actions=np.zeros((3, 1)))
    with zipfile.ZipFile(tmp_path / "more.npz", "a") as archive:
        archive.writestr("code.py", "print(1)")
    np.save(tmp_path / "one.npz.npy", np.zeros(3))
    (tmp_path / "one.npz").write_bytes((tmp_path / "one.npz.npy").read_bytes())
    np.savez_compressed(tmp_path / "whole.npz", observations=np.random.default_rng(0).normal(size=(99, 3)))
    whole = bytearray((tmp_path / "whole.npz").read_bytes())
    whole[300:900] = bytes(600)
    (tmp_path / "damaged.npz").write_bytes(whole)
    (tmp_path / "folder.npz").mkdir()
    for name in ("trap", "beside", "more", "pickle", "text", "one", "damaged", "folder"):
        with pytest.raises(ValueError, match=rf"{name}\.npz is no \.npz file of plain arrays") as error:
            read_episodes(tmp_path / f"{name}.npz")
        assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.npz"):
        read_episodes(tmp_path / "none.npz")


FINE: dict[str, Any] = {"observations": np.zeros((4, 3)), "actions": np.zeros((4, 1)), "lengths": np.array([1, 3])}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({"observations": FINE["observations"][:0], "lengths": np.array([], int)}, "one episode or more"),
    "an empty episode": ({"lengths": np.array([0, 4])}, r"of a step or more each, 4 steps in all; got \[0, 4\]"),
    "broken lengths": ({"lengths": np.array([1.5, 2.5])}, r"lengths must be whole numbers, .* got \[1.5, 2.5\]"),
    "truths for lengths": ({"lengths": np.ones(4, dtype=bool)}, "lengths must be whole numbers"),
    "one number": ({"observations": np.zeros(()), "lengths": np.array(1)}, r"of the shape \(1, 3\); got \(1,\)"),
    "other lengths": ({"lengths": np.array([1, 4])}, r"4 steps in all; got \[1, 4\]"),
    "NaN": ({"observations": np.where(np.eye(4, 3), np.nan, 0)}, "observations must be finite .* got nan in step 0"),
    "infinite actions": ({"actions": np.full((4, 1), np.inf)}, "actions must be finite numbers; got inf in step 0"),
    "infinite rewards": ({"rewards": np.array([0, 0, 0, -np.inf])}, "rewards must be finite .* got -inf in step 3"),
    "text": ({"actions": np.array(["left"] * 4)}, "actions must be finite numbers; got <U4"),
    "other observations": ({"observations": np.zeros((4, 2))}, r"observations of the shape \(4, 3\); got \(4, 2\)"),
    "other actions": ({"actions": np.zeros((4, 2))}, r"needs actions of the shape \(4, 1\); got \(4, 2\)"),
    "actions out of their box": ({"actions": np.full((4, 1), 2.5)}, r"from \[-2.0\] to \[2.0\]; got \[2.5\] in step 0"),
    "fewer next observations": ({"next_observations": np.zeros((3, 3))}, "needs next_observations of the shape"),
    "negative seeds": ({"seeds": np.array([3, -1])}, r"seeds must be whole numbers, 0 or above; got \[3, -1\]"),
    "broken seeds": ({"seeds": np.array([0.5, 1])}, "seeds must be whole numbers"),
    "fewer seeds": ({"seeds": np.array([1])}, r"seeds must be \(2,\); got \(1,\)"),
    "fewer rewards": ({"rewards": np.zeros(3)}, r"rewards must be \(4,\); got \(3,\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_episodes_that_are_not_of_the_environment_are_refused(case: str, tmp_path: Path, pendulum: Any) -> None:
    arrays, message = BAD[case]
    np.savez(tmp_path / "bad.npz", **FINE | arrays)
    with pytest.raises(ValueError, match=message) as error:
        Demonstrations(tmp_path / "bad.npz").load(pendulum)
    assert "bad.npz" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.array([0, 2, 0, 0]), r"needs actions from 0 to \[1\]; got 2"),
        (np.array([0, -1, 0, 0]), r"needs actions from 0 to \[1\]; got -1"),
        (np.zeros(4), r"needs actions of whole numbers, of the shape \(4, 1\); got float64"),
        (np.zeros((4, 2), int), r"of the shape \(4, 1\); got int64 \(4, 2\)"),
    ],
)
def test_discrete_actions_that_are_not_of_the_environment_are_refused(
    actions: np.ndarray, message: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "bad.npz", observations=np.zeros((4, 4)), actions=actions)
    with pytest.raises(ValueError, match=message):
        Demonstrations(tmp_path / "bad.npz").load(make_environment("CartPole-v1"))


def test_a_file_without_observations_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", actions=np.zeros((4, 4)))
    with pytest.raises(ValueError, match=r"bad\.npz has no array observations .*; got actions"):
        read_episodes(tmp_path / "bad.npz")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "need one source, path, minari or expert; got none"),
        ({"path": "a.npz", "expert": swing_up}, "got path and expert: set all but one to null"),
        ({"expert": swing_up, "episodes": 0}, "episodes must be a whole number, at least 1"),
        ({"expert": swing_up, "seed": -1}, "seed must be a whole number"),
        ({"expert": "lit_bottleneck.data.experts.no_such"}, "expert='lit_bottleneck.data.experts.no_such' cannot be"),
        ({"expert": "no_such_module.expert"}, "cannot be imported: No module named 'no_such_module'"),
        ({"expert": "swing_up"}, "must be the import path of a function"),
        ({"expert": "math.pi"}, "must be the import path of a function"),
    ],
)
def test_sources_that_are_none_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Demonstrations(**kwargs)


def test_a_file_that_is_not_there_is_refused_at_once() -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file no\.npz: lit-bottleneck demonstrate writes one"):
        Demonstrations("no.npz")


def test_an_action_that_is_none_of_the_environment_is_refused(pendulum: Any) -> None:
    with pytest.raises(ValueError, match=r"the expert must return actions of Box.*; got \[3.0\]"):
        record(pendulum, too_strong, 1)
    with pytest.raises(ValueError, match="the expert must return actions of Box"):
        record(pendulum, left, 1)
    for action in (0.7, None, "left", np.nan):  # a cast to whole numbers would make 0 of the first
        with pytest.raises(ValueError, match=r"the expert must return actions of Discrete\(2\); got"):
            record(make_environment("CartPole-v1"), lambda _, action=action: action, 1)


def test_minari_that_is_not_installed_is_told(pendulum: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "minari", None)  # as where it is not there
    with pytest.raises(ImportError, match="pip install minari"):
        Demonstrations(minari="pendulum/expert-v0").load(pendulum)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("Pendulum-v7", {}, "environment='Pendulum-v7' is not registered: "),
        ("NoSuch-v0", {}, "environment='NoSuch-v0' is not registered: "),
        ("no_such_package:Maze-v0", {}, "environment='no_such_package:Maze-v0'"),
        ("Pendulum-v1", {"gravity": 9.8}, r"environment_kwargs=\{'gravity': 9.8\} of 'Pendulum-v1'"),
    ],
)
def test_environments_that_cannot_be_made_are_refused(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_environment(name, arguments)


def test_spaces_are_sizes() -> None:
    low, high = np.array([-2], np.float32), np.array([2], np.float32)
    assert spaces_of(make_environment("Pendulum-v1")) == Spaces((3,), (1,), (), low, high)
    assert spaces_of(make_environment("CartPole-v1"))[:3] == ((4,), (2,), (2,))

    class Odd(gymnasium.Env[Any, Any]):
        observation_space = gymnasium.spaces.Box(-1, 1, (2,))
        action_space = gymnasium.spaces.MultiDiscrete([2, 3])

    assert spaces_of(Odd())[:3] == ((2,), (5,), (2, 3))
    Odd.action_space = gymnasium.spaces.Discrete(3, start=1)
    with pytest.raises(ValueError, match="actions must be a Box, Discrete from 0, or MultiDiscrete; got Discrete"):
        spaces_of(Odd())
    Odd.observation_space = gymnasium.spaces.Discrete(3)
    with pytest.raises(ValueError, match="observations must be a Box; got Discrete"):
        spaces_of(Odd())


def test_what_is_no_episode_has_no_return() -> None:
    assert Episodes(np.zeros((1, 1)), np.zeros((1, 1)), np.array([1])).returns is None


def test_a_data_set_of_minari_gives_its_episodes(
    tmp_path: Path, pendulum: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    expected = record(pendulum, swing_up, 2, seed=3)
    buffers = []
    for index in range(2):
        one = expected.part(index, index + 1)
        seen = [*one.observations, one.next_observations[-1]]
        ends = [*[False] * 199, True]
        buffers.append(
            minari.data_collector.EpisodeBuffer(
                id=index,
                seed=int(one.seeds[0]),
                observations=seen,
                actions=list(one.actions),
                rewards=list(one.rewards),
                terminations=[False] * 200,
                truncations=ends,
            )
        )
    minari.create_dataset_from_buffers(
        "pendulum/expert-v0",
        buffers,
        env=pendulum,
        eval_env="Pendulum-v1",
        algorithm_name="swing_up",
        author="nobody",
        author_email="nobody@example.org",
        code_permalink="https://example.org",
        description="two episodes",
        data_format="arrow",
    )
    found = Demonstrations(minari="pendulum/expert-v0").load(pendulum)
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
    assert Demonstrations(minari="pendulum/expert-v0", episodes=1, actions=False).load(pendulum).actions is None
    with pytest.raises(
        ValueError, match=r"minari='pendulum/no-v0' is not on this machine: minari download pendulum/no-v0"
    ):
        Demonstrations(minari="pendulum/no-v0").load(pendulum)
