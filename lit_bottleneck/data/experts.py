"""Scripted experts: functions of an observation that return an action."""

import math

import numpy as np


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
