"""Experts: functions of an observation that return an action, and the search that found one of them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

_SWIMMER = (1, 2, 6, 7)  # angles and angular velocities of the two joints
_GAIT = np.array([[-0.5, -8.04, 0.95, -0.18], [1.03, 1.54, 3.9, 1.72]])  # of random_search, 300 trials, seed 0


def swing_up(observation: np.ndarray) -> np.ndarray:
    """Return the torque that swings up the pendulum of gymnasium's ``Pendulum-v1`` and holds it there.

    Far from the top it pumps energy along the velocity until the pendulum has that of standing upright; near the top it
    is a proportional and derivative controller.

    Args:
        observation: cosine and sine of the angle from the top, and the velocity, ``(3,)``.

    Returns:
        ``(1,)``, from -2 to 2.

    >>> swing_up(np.array([1.0, 0.0, 0.5], dtype=np.float32))
    array([-1.], dtype=float32)
    """
    angle, velocity = math.atan2(observation[1], observation[0]), float(observation[2])
    if abs(angle) < 0.5 and abs(velocity) < 4.0:
        torque = -10.0 * angle - 2.0 * velocity
    else:
        energy = velocity**2 / 6 + 5.0 * (math.cos(angle) - 1.0)  # 0 when it stands upright
        torque = -2.0 * energy * velocity if velocity else 2.0
    return np.array([min(max(torque, -2.0), 2.0)], dtype=np.float32)


def swim(observation: np.ndarray) -> np.ndarray:
    """Return the torques by which the swimmer of MuJoCo, ``Swimmer-v5`` of gymnasium, swims.

    They are linear in angles and velocities of its joints, within their box. ``random_search`` found the weights.

    Args:
        observation: as the environment has it, ``(8,)``.

    Returns:
        ``(2,)``, from -1 to 1.

    >>> swim(np.array([0.0, 0.0, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0]))
    array([-0.804,  0.154], dtype=float32)
    """
    torques: np.ndarray = np.clip(_GAIT @ observation[list(_SWIMMER)], -1.0, 1.0)
    return torques.astype(np.float32)


def random_search(
    environment: Any, columns: Sequence[int] = _SWIMMER, trials: int = 300, steps: int = 400, seed: int = 0
) -> np.ndarray:
    """Return the weights of a linear policy with a high return, found by random steps that are kept if they raise it.

    A simple form of the random search of arXiv 1803.07055. It sees the rewards of the task.

    Args:
        environment: of gymnasium, with actions from a box.
        columns: the C numbers of an observation that the policy reads.
        trials: how many policies to try.
        steps: from which the return is taken.
        seed: of the steps and of the start of every episode.

    Returns:
        ``(A, C)``.
    """
    draws, box = np.random.default_rng(seed), environment.action_space
    highest, best = -np.inf, np.zeros((len(box.low), len(columns)))
    for _ in range(trials):
        weights = best + draws.standard_normal(best.shape)
        observation, _ = environment.reset(seed=seed)
        total = 0.0
        for _ in range(steps):
            action = np.clip(weights @ observation[list(columns)], box.low, box.high)
            observation, reward, terminated, truncated, _ = environment.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        if total > highest:
            highest, best = total, weights
    return best
