"""Base of the controllers of beta, and the constant beta."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from lit_bottleneck.checks import ConfigurationError, is_number, not_negative
from lit_bottleneck.hparams import RecordsArguments, from_config


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

    def get_extra_state(self) -> dict[str, Any]:
        """Return the state, in numbers and strings."""
        names = (*self.state_names, "skipped_updates")
        return {"kind": self.state_kind} | {name: getattr(self, name) for name in names}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Load the state of a controller of the same kind.

        Raises:
            ConfigurationError: for the state of another kind.
        """
        names = (*self.state_names, "skipped_updates")
        if set(state) != {"kind", *names} or state["kind"] != self.state_kind:
            got = f"the checkpoint holds another state of beta, {dict(state)}; got {self.state_kind}"
            raise ConfigurationError(f"beta must be the controller that the model was trained with: {got}")
        for name in names:
            setattr(self, name, state[name])


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
    """Build the controller from a model's ``beta``.

    Args:
        beta: a number, for a constant beta; a controller, which is returned as it is; or its description in a
            checkpoint, ``{"class_path": "lit_bottleneck.beta.DualBeta", "init_args": {"capacity": 8.0}}``.

    Raises:
        ConfigurationError: for anything else.
        ValueError: for the description of a class that is not an imported ``BetaController``.
    """
    if isinstance(beta, (BetaController, Mapping)):
        return from_config(BetaController, "beta", beta)  # type: ignore[type-abstract]
    if not is_number(beta):
        raise ConfigurationError(f"beta must be a number or a BetaController; got {beta!r}")
    return ConstantBeta(beta)


def mean_over_examples(values: Tensor) -> Tensor:
    """Return the mean of ``(B,)`` values (or of one); 0, not NaN, for an empty batch."""
    return values.sum() / max(values.numel(), 1)
