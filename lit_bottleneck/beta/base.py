"""Base of the controllers of beta, and the constant beta."""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lit_bottleneck.checks import ConfigurationError, is_number, not_negative
from lit_bottleneck.hparams import RecordsArguments, from_config

_AFRESH = "the state of beta is not loaded, and {} starts afresh"


class BetaController(RecordsArguments, nn.Module, ABC):
    """Base of the controllers of beta.

    A subclass defines ``beta`` and ``advance`` (or ``update``), and lists its state in ``state_names``.

    Attributes:
        state_names: the attributes that change, numbers that the checkpoint stores.
        constant: whether beta never changes: then no rate is reduced over processes for it.
        skipped_updates: number of updates skipped because the rate (or the distortion) was not finite.
    """

    state_names: ClassVar[tuple[str, ...]] = ()
    constant: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.skipped_updates = 0
        self.register_load_state_dict_pre_hook(_settle_state)  # type: ignore[no-untyped-call]

    @property
    @abstractmethod
    def beta(self) -> float:
        """The current price of a nat."""

    @property
    def linear(self) -> bool:
        """Whether the penalty is exactly ``beta`` times the mean rate."""
        return type(self).forward is BetaController.forward

    def advance(self, mean_rate: float, mean_distortion: float | None) -> None:
        """Update beta by one optimizer step; the arguments are finite."""

    def forward(self, rate: Tensor) -> Tensor:
        """Return the penalty for the rates of a batch.

        Args:
            rate: ``(B,)``, nats per example.

        Returns:
            The penalty, a scalar: ``beta`` times the mean rate.
        """
        return self.beta * mean_over_examples(rate)

    def update(self, mean_rate: float, mean_distortion: float | None = None) -> None:
        """Update beta, once per optimizer step; skip and count updates with values that are not finite.

        Args:
            mean_rate: mean over all examples of the step on all processes, in nats.
            mean_distortion: likewise, for a controller that is driven by the distortion.
        """
        if math.isfinite(mean_rate) and (mean_distortion is None or math.isfinite(mean_distortion)):
            self.advance(mean_rate, mean_distortion)
        else:
            self.skipped_updates += 1

    @property
    def state_kind(self) -> str:
        """The kind of controller that the state belongs to."""
        return type(self).__name__

    def get_extra_state(self) -> Tensor:
        """Return the state as one float64 tensor, which neither a cast nor a moving average of the module touches.

        It holds how many numbers there are, the numbers (-inf for None), and ``state_kind`` in UTF-8.
        """
        numbers = [-math.inf if value is None else float(value) for value in self._state().values()]
        return torch.tensor([len(numbers), *numbers, *self.state_kind.encode()], dtype=torch.float64, device="cpu")

    def set_extra_state(self, state: Tensor | Mapping[str, Any]) -> None:
        """Load the state of a controller of the same kind; start afresh, with a warning, at that of another.

        Args:
            state: as ``get_extra_state`` returns it, or a dictionary, of checkpoints before version 0.2.0.
        """
        own, kind = self._state(), _kind_of(state)
        if isinstance(state, Mapping):
            state = {name: value for name, value in state.items() if name != "kind"}
        else:
            count, *numbers = torch.flatten(state).tolist()
            state = dict(zip(own, numbers[: int(count)], strict=False)) if count == len(own) else {}
        if kind != self.state_kind or state.keys() != own.keys():
            warnings.warn(f"{_AFRESH.format(self.state_kind)}: the checkpoint holds that of {kind}", stacklevel=2)
            return
        for name, value in state.items():
            whole = isinstance(own[name], int)
            setattr(self, name, None if value in (None, -math.inf) else int(value) if whole else value)

    def _state(self) -> dict[str, float | None]:
        return {name: getattr(self, name) for name in (*self.state_names, "skipped_updates")}


class ConstantBeta(BetaController):
    """Constant beta. It has no state, so that a checkpoint never overrides the given value.

    Args:
        beta: the price of a nat, at least 0. For a classifier ``beta >= 1`` makes the collapsed code optimal.

    >>> import torch
    >>> ConstantBeta(0.5)(torch.tensor([1.0, 3.0])).item()
    1.0
    """

    constant = True
    get_extra_state = nn.Module.get_extra_state  # torch's own: no state is stored
    set_extra_state = nn.Module.set_extra_state

    def __init__(self, beta: float) -> None:
        super().__init__()
        self._beta = not_negative("beta", beta)

    @property
    def beta(self) -> float:
        return self._beta


def controller_from(beta: float | BetaController | Mapping[str, Any]) -> BetaController:
    """Build the controller from a module's ``beta``.

    Args:
        beta: a number, for a constant beta; a controller, which is copied, so that no two modules move the same; or
            its description in a checkpoint,
            ``{"class_path": "lit_bottleneck.beta.DualBeta", "init_args": {"capacity": 8.0}}``.

    Raises:
        ConfigurationError: for anything else.
        ValueError: for the description of a class that is not an imported ``BetaController``.
    """
    if isinstance(beta, BetaController):
        return deepcopy(beta)
    if isinstance(beta, Mapping):
        return from_config(BetaController, "beta", beta)  # type: ignore[type-abstract]
    if not is_number(beta):
        raise ConfigurationError(f"beta must be a number or a BetaController; got {beta!r}")
    return ConstantBeta(beta)


def controllers_from(beta: Mapping[str, Any]) -> nn.ModuleDict:
    """Build the controllers of several prices from a module's ``beta``, see ``controller_from``.

    Raises:
        ConfigurationError: for no price at all, a name that torch does not take for a submodule, or what
            ``controller_from`` refuses, with the name.
    """
    if not beta:
        raise ConfigurationError("beta must have at least one price; got an empty dictionary")
    controllers = nn.ModuleDict()
    controllers.register_load_state_dict_pre_hook(_leave_out_others)
    for name, price in beta.items():
        try:
            controllers[name] = controller_from(price)
        except (KeyError, TypeError) as error:
            raise ConfigurationError(f"beta needs names that can name a submodule; got {name!r}: {error}") from error
        except ValueError as error:
            raise ConfigurationError(f"price {name!r}: {error}") from error
    return controllers


def mean_over_examples(values: Tensor) -> Tensor:
    """Return the mean of ``(B,)`` values (or of one); 0, not NaN, for an empty batch."""
    return values.sum() / max(values.numel(), 1)


def _kind_of(state: Tensor | Mapping[str, Any]) -> str:
    """Return the kind of controller that a state of either form belongs to."""
    if isinstance(state, Mapping):
        return str(state["kind"])
    count, *numbers = torch.flatten(state).tolist()  # flatten loads what a sharded strategy has not loaded yet
    return bytes(map(int, numbers[int(count) :])).decode()


def _leave_out_others(prices: nn.Module, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Let a checkpoint load that has states of prices that the module does not have, with a warning."""
    own, states = prices.state_dict(prefix=prefix), (key for key in list(state_dict) if key.endswith("_extra_state"))
    none = f"a {type(prices).__name__} has not" if isinstance(prices, BetaController) else "these prices have not"
    for key in (key for key in states if key.startswith(prefix) and key not in own):
        kind = _kind_of(state_dict.pop(key))
        warnings.warn(f"the checkpoint holds a state of beta, which {none}: {key}, of {kind}", stacklevel=2)


def _settle_state(controller: BetaController, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Let a checkpoint load that has a state where the controller has none, or the reverse, with a warning."""
    _leave_out_others(controller, state_dict, prefix)
    key = f"{prefix}_extra_state"
    if type(controller).get_extra_state is not nn.Module.get_extra_state and key not in state_dict:
        state_dict[key] = controller.get_extra_state()
        warnings.warn(f"{_AFRESH.format(controller.state_kind)}: the checkpoint holds none", stacklevel=2)
