"""Films of episodes, in environments that render without a screen."""

import os
import sys
from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from lit_bottleneck.data.demonstrations import Expert, record_one
from lit_bottleneck.data.episodes import Episodes


class Film(NamedTuple):
    """An episode and its pictures.

    Attributes:
        episode: a single one.
        frames: from its start to its end; none where it was not filmed.
        seconds: from one frame to the next.
        problem: why it was not filmed.
    """

    episode: Episodes
    frames: list[Image.Image]
    seconds: float = 0.0
    problem: str = ""


def rendered(make: Callable[..., Any]) -> tuple[Any, str]:
    """Return an environment that renders off screen; if none does, one that does not, and why.

    Args:
        make: a function of arguments of the environment.
    """
    if not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # else pygame prints that it finds no screen
        if sys.platform == "linux":
            os.environ.setdefault("MUJOCO_GL", "egl")  # else MuJoCo ends the process where it finds no screen twice
    environment = make()
    if "rgb_array" not in environment.metadata.get("render_modes", ()):
        return environment, "it has no render mode rgb_array"
    try:
        rendering = make(render_mode="rgb_array")
        rendering.reset()
        Image.fromarray(rendering.render())
    except Exception as error:  # whatever a graphics library or its driver raises
        reason = str(error).strip().splitlines() or [""]
        return environment, f"rendering raises {type(error).__name__}: {reason[0]}"
    return rendering, ""


def film(environment: Any, act: Expert, seed: int, every: int, height: int, problem: str = "") -> Film:
    """Film an episode.

    Args:
        environment: one that renders, unless there is a ``problem``.
        act: a function of an observation that returns an action.
        seed: of the environment.
        every: steps from one frame to the next.
        height: of a frame, in pixels.
        problem: why it cannot be filmed, but only recorded.
    """
    frames, steps = [], count()

    def filmed(observation: np.ndarray) -> Any:
        if next(steps) % every == 0 and not problem:
            frames.append(_frame(environment, height))
        return act(observation)

    episode = record_one(environment, filmed, seed)
    if problem:
        return Film(episode, [], problem=problem)
    frames.append(_frame(environment, height))
    return Film(episode, frames, every / environment.metadata.get("render_fps", 30))


def replay(environment: Any, episode: Episodes, every: int, height: int, problem: str = "") -> Film:
    """Film a recorded episode, by repeating its actions; arguments as for ``film``."""
    if problem or episode.actions is None or episode.seeds is None:
        return Film(episode, [], problem=problem or "its demonstrations have no actions or no seeds")
    actions = iter(episode.actions.reshape(-1, *environment.action_space.shape))
    try:
        found = film(environment, lambda _: next(actions), int(episode.seeds[0]), every, height)
    except StopIteration:
        found = None
    if found is None or not np.array_equal(found.episode.observations, episode.observations):
        return Film(episode, [], problem="its actions come to other observations")
    return found


def _frame(environment: Any, height: int) -> Image.Image:
    image = Image.fromarray(environment.render()).convert("RGB")
    return image.resize((max(1, round(image.width * height / image.height)), height))
