"""Environments of gymnasium by name, and what their spaces are as plain sizes."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from lit_bottleneck.checks import ConfigurationError

INSTALL = "pip install 'lit_bottleneck[imitation]'"


class Spaces(NamedTuple):
    """Observations and actions of an environment.

    Attributes:
        observation_dims: shape of one observation.
        action_dims: shape of one action; of discrete ones ``(number of them,)``, as ``VAIL`` sees them.
        num_actions: how many there are of each discrete action; empty for floating ones.
        low: least action, in the shape of one; None for discrete ones.
        high: greatest action.
    """

    observation_dims: tuple[int, ...]
    action_dims: tuple[int, ...]
    num_actions: tuple[int, ...] = ()
    low: np.ndarray | None = None
    high: np.ndarray | None = None


def installed(package: str) -> Any:
    """Return an imported package of the extra ``imitation``.

    Raises:
        ImportError: without it, with what to install.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ImportError(f"imitation needs the package {package.replace('_', '-')}: {INSTALL}") from error


def make_environment(name: str, arguments: Mapping[str, Any] | None = None) -> Any:
    """Make an environment of gymnasium.

    Raises:
        ConfigurationError: for a name that is not registered, and for arguments that the environment does not take.
        ImportError: without gymnasium, or a package that the environment needs.
    """
    gymnasium = installed("gymnasium")
    try:
        return gymnasium.make(name, **(arguments or {}))
    except gymnasium.error.DependencyNotInstalled as error:
        raise ImportError(f"environment={name!r}: {error}") from error
    except gymnasium.error.Error as error:
        registers = "name a package that registers it before a colon, as in 'my_package:Maze-v0'"
        raise ConfigurationError(f"environment={name!r} is not registered: {error} ({registers})") from error
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"environment={name!r} names a package that is not there: {error}") from error
    except TypeError as error:
        raise ConfigurationError(f"environment_kwargs={dict(arguments or {})} of {name!r}: {error}") from error


def spaces_of(environment: Any) -> Spaces:
    """Return the spaces of an environment as sizes.

    Raises:
        ConfigurationError: for observations that are no ``Box``, and actions other than ``Box``, ``Discrete`` (from 0)
            and ``MultiDiscrete``.
    """
    spaces = installed("gymnasium").spaces
    seen, acts = environment.observation_space, environment.action_space
    if not isinstance(seen, spaces.Box):
        wrap = "register an environment that wraps this one, in gymnasium.wrappers.FlattenObservation or the like"
        raise ConfigurationError(f"observations must be a Box; got {seen}: {wrap}")
    dims = tuple(seen.shape) or (1,)
    if isinstance(acts, spaces.Box):
        return Spaces(dims, tuple(acts.shape), (), acts.low, acts.high)
    if isinstance(acts, spaces.Discrete) and acts.start == 0:
        return Spaces(dims, (int(acts.n),), (int(acts.n),))
    if isinstance(acts, spaces.MultiDiscrete) and acts.nvec.ndim == 1:
        counts = tuple(int(count) for count in acts.nvec)
        return Spaces(dims, (sum(counts),), counts)
    raise ConfigurationError(f"actions must be a Box, Discrete from 0, or MultiDiscrete; got {acts}")
