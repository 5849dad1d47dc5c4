"""Terms of a loss: their names, and whether they are finite."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.models.batch import described


def check_terms(hook: str, terms: dict[str, Tensor], taken: Collection[str]) -> dict[str, Tensor]:
    """Return the terms that a user's hook adds to a loss, if they are scalars under names of their own.

    Raises:
        ConfigurationError: with the hook's name, for other values, and for names of the price or in ``taken``.
    """
    if not isinstance(terms, Mapping):
        raise ConfigurationError(f"{hook} must return a dictionary of scalars; got {described(terms)}")
    for name, value in terms.items():
        is_key = "." not in name and not hasattr(nn.ModuleDict, name)  # of the metrics of a split
        if name in {"beta", "rate_penalty", *taken} or not is_key:
            raise ConfigurationError(f"{hook} must return terms of other names than the model's own; got {name!r}")
        if not isinstance(value, Tensor) or value.dim():
            raise ConfigurationError(f"{hook} must return scalars, as tensors; got {name}: {described(value)}")
    return terms


def check_finite(model: Any, loss: Tensor, terms: Mapping[str, Tensor], network: str) -> None:
    """Refuse a loss that is not finite.

    Raises:
        FloatingPointError: with the terms, and the networks whose weights are not finite.
    """
    if math.isfinite(loss.item()):
        return
    values = {name: term.item() for name, term in terms.items()}
    bad = [name for name, value in values.items() if not math.isfinite(value)] or ["their sum"]
    step = "" if model._trainer is None else f" at step {model._trainer.global_step}"
    broken = broken_networks(model)
    why = f"The weights of {broken} are not finite since the last step. " if broken else ""
    raise FloatingPointError(
        f"the loss{f' of the {network}' if network else ''} is not finite{step}: {', '.join(bad)} of "
        f"{', '.join(f'{name}={value:.6g}' for name, value in values.items())} (beta={model.beta:.6g}). {why}"
        "Look at the data, lower the learning rate, or set "
        f"{'trainer.' if model.automatic_optimization else ''}gradient_clip_val."
    )


def broken_networks(module: nn.Module) -> str:
    """Return the names of the networks with a weight or a buffer that is not finite."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return ", ".join(sorted({name.split(".")[0] for name, value in tensors if not value.isfinite().all()}))
