"""Experience as discriminators of behaviour take it: observations and actions, in whatever form they come."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.models.batch import described, tensor_from


class Experience(NamedTuple):
    """Rows of what an expert or a policy went through.

    Attributes:
        observations: ``(B, *dims)``, floats.
        actions: ``(B, A)``, discrete ones one-hot.
        next_observations: ``(B, *dims)``.
        log_probs: ``(B,)``, log-probabilities of the actions under the policy.
    """

    observations: Tensor
    actions: Tensor | None = None
    next_observations: Tensor | None = None
    log_probs: Tensor | None = None


def halves_of(batch: Any, keys: tuple[str, str]) -> tuple[Any, Any]:
    """Return both halves of a batch ``(expert, policy)`` or ``{"expert": ..., "policy": ...}``.

    Raises:
        ConfigurationError: for anything else.
    """
    if isinstance(batch, dict) and all(key in batch for key in keys):
        return batch[keys[0]], batch[keys[1]]
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    form = f"a batch of an imitation must be (expert, policy), or a dictionary with {keys[0]!r} and {keys[1]!r}"
    raise ConfigurationError(f"{form}; got {described(batch)}")


def observations_from(name: str, observations: Any, dims: tuple[int, ...] | None) -> Tensor:
    """Return observations as floats ``(B, *dims)``; ``(B,)`` counts as ``(B, 1)``.

    Args:
        name: whose they are, for messages.
        observations: a tensor or NumPy array of real numbers.
        dims: shape of one observation, where it is known.

    Raises:
        ConfigurationError: for none, for complex numbers, and for another shape than ``dims``.
    """
    rows = tensor_from(name, observations)
    rows = rows[:, None] if rows.dim() == 1 and dims in (None, (1,)) else rows
    if rows.dim() < 2 or not len(rows) or rows.is_complex():
        raise ConfigurationError(f"{name} must be (B, ...), real numbers of one row or more; got {described(rows)}")
    if dims is not None and tuple(rows.shape[1:]) != dims:
        known = f"(B, {', '.join(map(str, dims))}), as those before"
        raise ConfigurationError(f"{name} must be {known}; got {described(rows)}")
    return rows if rows.is_floating_point() else rows.float()


def actions_from(name: str, actions: Any, rows: int, num_actions: Sequence[int], width: int | None) -> Tensor:
    """Return actions as floats ``(B, A)``.

    Args:
        name: whose they are, for messages.
        actions: a tensor or NumPy array: floats ``(B, ...)``, or whole numbers ``(B,)`` or ``(B, len(num_actions))``.
        rows: the number B of observations.
        num_actions: how many there are of each discrete action; empty for none, or where it is not known.
        width: the number A that the encoder leaves for them, where it is known.

    Returns:
        Floats as they are, flattened; whole numbers one-hot.

    Raises:
        ConfigurationError: for another number of them, discrete actions that are no such numbers, and another width.

    >>> actions_from("actions", torch.tensor([0, 2]), 2, (3,), None)
    tensor([[1., 0., 0.],
            [0., 0., 1.]])
    """
    given = tensor_from(name, actions)
    if not given.dim() or given.is_complex() or len(given) != rows:
        needs = f"{name} must be real numbers, one row for each of the {rows} observations"
        raise ConfigurationError(f"{needs}; got {described(given)}")
    found = given.flatten(1) if given.dim() > 1 else given[:, None]
    if not found.is_floating_point():
        found = _one_hot(name, found, tuple(num_actions) or _only(width))
    elif num_actions and found.shape[1] != sum(num_actions):
        needs = f"num_actions={tuple(num_actions)} needs {name} of whole numbers, or one-hot"
        raise ConfigurationError(f"{needs} (B, {sum(num_actions)}); got {described(given)}")
    if width is not None and found.shape[1] != width:
        takes = f"the encoder takes {width} numbers beside the observation"
        raise ConfigurationError(f"{takes}, and {name} have {found.shape[1]}; got {described(given)}")
    return found


def log_probs_from(name: str, log_probs: Any, rows: int) -> Tensor:
    """Return log-probabilities ``(B,)``, without a graph.

    Raises:
        ConfigurationError: for anything but floats, one for each row.
    """
    found = tensor_from(name, log_probs)
    if not found.is_floating_point() or found.numel() != rows or found.shape[:1] != (rows,):
        raise ConfigurationError(f"{name} must be floats ({rows},), one for each row; got {described(found)}")
    return found.detach().reshape(-1)


def parts_of(name: str, half: Any, parts: Sequence[str]) -> tuple[Any, ...]:
    """Return the first parts of a half of a batch, a tuple of at least as many.

    Raises:
        ConfigurationError: for anything else, with the names of the parts.
    """
    if not isinstance(half, (tuple, list)) or len(half) < len(parts):
        raise ConfigurationError(f"the {name} half of a batch must be ({', '.join(parts)}); got {described(half)}")
    return tuple(half[: len(parts)])


def _only(width: int | None) -> tuple[int, ...]:
    """Return the number of discrete actions where the encoder leaves room for several."""
    return (width,) if width is not None and width > 1 else ()


def _one_hot(name: str, actions: Tensor, num_actions: tuple[int, ...]) -> Tensor:
    """Return whole numbers ``(B, N)`` one-hot, ``(B, sum of num_actions)``."""
    if not num_actions:
        raise ConfigurationError(f"{name} of whole numbers are discrete: set num_actions, how many of them there are")
    if actions.shape[1] != len(num_actions):
        if actions.shape[1] == sum(num_actions):
            return actions.float()  # one-hot already
        needs = f"num_actions={num_actions} needs {name} (B, {len(num_actions)})"
        raise ConfigurationError(f"{needs}; got {described(actions)}")
    limits = torch.tensor(num_actions, device=actions.device)
    outside = (actions < 0) | (actions >= limits)
    if outside.any():
        raise ConfigurationError(
            f"num_actions={num_actions} needs {name} from 0 to one less; got {actions[outside][0].item()}"
        )
    columns = [F.one_hot(actions[:, index].long(), count) for index, count in enumerate(num_actions)]
    return torch.cat(columns, 1).float()
