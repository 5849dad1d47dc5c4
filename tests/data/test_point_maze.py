"""The maze: gymnasium's contract, walls that hold, experts that arrive."""

import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import example, given
from hypothesis import strategies as st

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data.demonstrations import expert_from, record
from lit_bottleneck.data.environments import make_environment
from lit_bottleneck.data.point_maze import PointMaze, c_expert, s_expert

NAME = "lit_bottleneck.data.point_maze:PointMaze-v0"
EXPERTS = {"C": c_expert, "S": s_expert}

places = st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(np.array)


@pytest.mark.filterwarnings("ignore:.*is not within the observation space")
@pytest.mark.parametrize("shape", ["C", "S"])
def test_it_keeps_the_contract_of_gymnasium(shape: str) -> None:
    check_env(gymnasium.make(NAME, shape=shape, render_mode="rgb_array").unwrapped)
    environment = make_environment(NAME, {"shape": shape})
    environment.reset(seed=0)
    ends = [environment.step(np.ones(2, np.float32))[2:4] for _ in range(100)]
    assert ends == [(False, False)] * 99 + [(False, True)]


@example(start=np.array([0.0, 1e-268]), move=np.array([0.0, 1e-268]), length=1.0, shape="C", mirrored=False)
@given(start=places, move=places, length=st.floats(0, 5), shape=st.sampled_from("CS"), mirrored=st.booleans())
def test_no_move_of_any_length_crosses_a_wall(
    start: np.ndarray, move: np.ndarray, length: float, shape: str, mirrored: bool
) -> None:
    maze = PointMaze(shape, mirrored)
    move = length * move
    end = maze.moved(start, move)
    assert (np.abs(end) <= 1).all()
    for height, left, right in maze.walls:
        if (start[1] - height) * (end[1] - height) < 0:  # it came to the other side: through the gap
            meets = np.clip(start[0] + move[0] * (height - start[1]) / move[1], -1, 1)  # it slides along the edge
            assert not left <= meets <= right


def test_many_random_steps_leave_the_bottom_through_the_gap_alone() -> None:
    maze = PointMaze("C", noise=3.0)
    generator, passed = np.random.default_rng(0), 0
    maze.reset(seed=0)
    for _ in range(3000):
        before = maze.position
        maze.step(generator.uniform(-1, 1, 2))
        if before[1] * maze.position[1] < 0:
            passed += 1
            assert min(before[0], maze.position[0]) < -0.3  # the wall begins there
    assert passed > 10


def test_a_move_that_ends_exactly_at_a_wall_does_not_lead_through_it() -> None:
    maze = PointMaze()
    for height in (-0.5, 0.5):
        there = maze.moved(np.array([0.5, height]), np.array([0.0, -height]))
        assert there[1] * height > 0
        assert maze.moved(there, np.array([0.0, -height]))[1] * height > 0
    assert np.isfinite(maze.moved(np.array([0.5, 0.0]), np.array([0.1, 0.0]))).all()


def test_a_point_slides_along_a_wall_and_stops_at_the_edge() -> None:
    maze = PointMaze("C")
    x, y = maze.moved(np.array([0.5, -0.1]), np.array([0.2, 0.2]))
    assert x == pytest.approx(0.7)
    assert -0.01 < y < 0
    assert maze.moved(np.array([-0.9, 0.9]), np.array([-0.2, 0.2])).tolist() == [-1, 1]


@pytest.mark.parametrize("shape", ["C", "S"])
def test_the_expert_reaches_the_goal_and_stays(shape: str) -> None:
    episodes = record(gymnasium.make(NAME, shape=shape, noise=0.1, anywhere=True), EXPERTS[shape], 20)
    last = episodes.next_observations.reshape(20, 100, 2)[:, 50:]  # type: ignore[union-attr]
    assert np.linalg.norm(last - PointMaze.goal, axis=2).max() < 0.1


def test_rewards_are_distances_and_the_mirrored_maze_is_the_mirror_image() -> None:
    maze, mirror = PointMaze("S", noise=0.0), PointMaze("S", mirrored=True, noise=0.0)
    maze.reset(seed=1)
    mirror.reset(seed=1)
    mirror.position = maze.position * [-1, 1]
    for action in np.random.default_rng(0).uniform(-1, 1, (200, 2)):
        (seen, reward, *_), (mirrored, same, *_) = maze.step(action), mirror.step(action * [-1, 1])
        assert mirrored.tolist() == (seen * [-1, 1]).tolist()
        assert reward == pytest.approx(same)
        assert reward == pytest.approx(-np.hypot(seen[0], seen[1] - 0.8), abs=1e-6)


def test_a_picture_shows_walls_goal_and_point() -> None:
    maze = PointMaze("C", render_mode="rgb_array")
    maze.reset(seed=0)
    picture = maze.render()
    assert picture is not None
    assert picture.shape == (96, 96, 3)
    assert (picture[48, 60:94] == 0).all()  # the wall, in the middle of the right half
    assert picture[9, 48].tolist() == [0, 160, 0]
    assert PointMaze("C").render() is None


@pytest.mark.parametrize("wrong", [{"shape": "O"}, {"noise": -1.0}])
def test_what_is_no_maze_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        make_environment(NAME, wrong)


def test_the_extra_that_is_not_installed_is_told_by_an_experts_path_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)  # as where it is not there
    monkeypatch.delitem(sys.modules, c_expert.__module__)
    with pytest.raises(ConfigurationError, match=r"package gymnasium: pip install 'lit_bottleneck\[imitation\]'"):
        expert_from("lit_bottleneck.data.point_maze.c_expert")
