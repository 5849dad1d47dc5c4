"""``lit_bottleneck.data.point_maze:PointMaze-v0`` of gymnasium, and its scripted experts."""

from typing import Any

import numpy as np

from lit_bottleneck.checks import not_negative, one_of
from lit_bottleneck.data.environments import installed

installed("gymnasium")  # else the error does not say what to install
import gymnasium  # noqa: E402

_WALLS = {"C": [(0.0, -0.3, 1.0)], "S": [(-0.35, -1.0, 0.2), (0.35, -0.2, 1.0)]}  # height, from, to
_REACH, _SPEED = 0.2, 0.6  # of a step; of an expert, of the largest
_GAP, _PIXELS = 1e-3, 96  # between a wall and a point that slides along it; of a picture


class PointMaze(gymnasium.Env[np.ndarray, np.ndarray]):
    """Move a point around one wall (C) or two (S) to a goal (after arXiv 1710.11248 and arXiv 1810.00821).

    An observation is the position ``(2,)`` in ``[-1, 1]``, an action the move ``(2,)`` in ``[-1, 1]``, in fifths. A
    point that meets a wall slides along it. The reward is minus the distance from the goal. An episode has 100 steps.

    Args:
        shape: ``"C"`` or ``"S"``.
        mirrored: whether left and right are exchanged.
        anywhere: whether an episode begins anywhere, and not along the bottom alone.
        noise: standard deviation of what is added to each action.
        render_mode: ``"rgb_array"``, or None.

    Attributes:
        walls: height, left and right end of each, from the bottom up.
        goal: ``(2,)``.

    Raises:
        ConfigurationError: for another shape, or a negative noise.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012  (gymnasium's)
    goal = np.array([0.0, 0.8])

    def __init__(
        self,
        shape: str = "C",
        mirrored: bool = False,
        anywhere: bool = False,
        noise: float = 0.5,
        render_mode: str | None = None,
    ) -> None:
        walls = _WALLS[one_of("shape", shape, tuple(_WALLS))]
        self.walls = [(height, -right, -left) for height, left, right in walls] if mirrored else walls
        self.starts = [-0.9, -0.9], [0.9, 0.9 if anywhere else -0.6]
        self.noise, self.render_mode = not_negative("noise", noise), render_mode
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.position = np.zeros(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin at a random place."""
        super().reset(seed=seed)
        self.position = self.np_random.uniform(*self.starts)
        return self.position.astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move, and return minus the distance from the goal."""
        noise = self.noise * self.np_random.normal(size=2)
        self.position = self.moved(self.position, _REACH * (np.clip(action, -1.0, 1.0) + noise))
        distance = float(np.linalg.norm(self.position - self.goal))
        return self.position.astype(np.float32), -distance, False, False, {"distance": distance}

    def moved(self, start: np.ndarray, move: np.ndarray) -> np.ndarray:
        """Return where a move of any length ends: at the first wall in its way, or the edge, it goes on along it."""
        x, y = start + move
        for height, left, right in self.walls if move[1] > 0 else reversed(self.walls):
            if min(start[1], y) <= height <= max(start[1], y) and start[1] != y:
                meets = np.clip(start[0] + move[0] * (height - start[1]) / move[1], -1.0, 1.0)
                if left <= meets <= right:
                    y = height - np.sign(move[1]) * _GAP
                    break
        return np.array([x, y]).clip(-1.0, 1.0)

    def render(self) -> np.ndarray | None:
        """Return a picture ``(96, 96, 3)``: walls black, the goal green, the point blue."""
        if self.render_mode != "rgb_array":
            return None
        picture = np.zeros((_PIXELS, _PIXELS, 3), np.uint8)
        picture[1:-1, 1:-1] = 255
        y, x = np.mgrid[1 : -1 : _PIXELS * 1j, -1 : 1 : _PIXELS * 1j]
        for height, left, right in self.walls:
            picture[(abs(y - height) < 0.03) & (left <= x) & (x <= right)] = 0
        for place, colour in ((self.goal, (0, 160, 0)), (self.position, (0, 0, 255))):
            picture[np.hypot(x - place[0], y - place[1]) < 0.07] = colour
        return picture


def c_expert(observation: np.ndarray) -> np.ndarray:
    """Return the move of an expert in the C maze, ``(2,)``.

    >>> c_expert(np.array([0.0, 0.8]))
    array([0., 0.], dtype=float32)
    """
    return _towards_goal(observation, "C")


def s_expert(observation: np.ndarray) -> np.ndarray:
    """Return the move of an expert in the S maze, ``(2,)``."""
    return _towards_goal(observation, "S")


def _towards_goal(position: np.ndarray, shape: str) -> np.ndarray:
    """Head for the gap beside the lowest wall that is still above, at last for the goal."""
    target = PointMaze.goal
    for height, left, _ in reversed(_WALLS[shape]):
        if position[1] < height + 0.05:
            target = np.array([0.6 if left == -1.0 else -0.6, height + 0.1])
    way = target - position
    return np.asarray(_SPEED * way / max(np.linalg.norm(way), _SPEED * _REACH), np.float32)


gymnasium.register("PointMaze-v0", f"{__name__}:PointMaze", max_episode_steps=100, disable_env_checker=True)
