"""The base of all prices, and the constant price."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from numbers import Real
from typing import Any, ClassVar

from torch import Tensor, nn

from lit_bottleneck.checks import not_negative
from lit_bottleneck.hparams import Described, from_description


class BetaController(Described, nn.Module, ABC):
    """Base of all prices. A subclass gives `beta` and `advance` (or `update`), and names its state in `state_names`.

    Attributes:
        state_names: the attributes that move, numbers that a checkpoint keeps.
        constant: whether the price never moves: then nothing is reduced over processes for it.
        skipped_updates: updates that were refused because the rate (or the distortion) was not finite.
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
        """Whether the penalty is ``beta`` times the mean rate, and nothing else."""
        return type(self).forward is BetaController.forward

    def advance(self, mean_rate: float, mean_distortion: float | None) -> None:
        """Move the price by one optimizer step; the arguments are finite."""

    def forward(self, rate: Tensor) -> Tensor:
        """Price the rates of a batch.

        Args:
            rate: ``(B,)``, nats per example.

        Returns:
            The penalty, a scalar: ``beta`` times the mean rate.
        """
        return self.beta * mean_over_examples(rate)

    def update(self, mean_rate: float, mean_distortion: float | None = None) -> None:
        """Move the price, once per optimizer step. Values that are not finite do not move it, and are counted.

        Args:
            mean_rate: nats, the mean over all examples of the step, on all processes.
            mean_distortion: nats, likewise, for a controller that is driven by it.
        """
        if math.isfinite(mean_rate) and (mean_distortion is None or math.isfinite(mean_distortion)):
            self.advance(mean_rate, mean_distortion)
        else:
            self.skipped_updates += 1

    def extra_repr(self) -> str:
        """The arguments, for printing."""
        return ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())

    @property
    def state_kind(self) -> str:
        """What the state belongs to."""
        return type(self).__name__

    def get_extra_state(self) -> dict[str, Any]:
        """The state, in numbers and strings."""
        return {
            "kind": self.state_kind,
            **{name: getattr(self, name) for name in (*self.state_names, "skipped_updates")},
        }

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take over a state of the same kind of controller."""
        names = (*self.state_names, "skipped_updates")
        if set(state) != {"kind", *names} or state["kind"] != self.state_kind:
            raise ValueError(
                f"the checkpoint holds another state of beta, {dict(state)}, than that of {self.state_kind} "
                f"({', '.join(names)}): build the model with the controller that it was trained with"
            )
        for name in names:
            setattr(self, name, state[name])


class ConstantBeta(BetaController):
    """The same price for ever. It has no state, so that a checkpoint never overrides a price that is given.

    Args:
        beta: price of a nat, at least 0. For a classifier `beta >= 1` makes the collapsed code optimal.

    >>> import torch
    >>> ConstantBeta(0.5)(torch.tensor([1.0, 3.0])).item()
    1.0
    """

    constant = True
    get_extra_state = nn.Module.get_extra_state  # none, then torch stores none
    set_extra_state = nn.Module.set_extra_state

    def __init__(self, beta: float) -> None:
        super().__init__()
        self._beta = not_negative("beta", beta)

    @property
    def beta(self) -> float:
        return self._beta


def controller_from(beta: float | BetaController | Mapping[str, Any]) -> BetaController:
    """Make a controller of what a model takes as ``beta``.

    Args:
        beta: a number (then the price is constant); a controller, which is returned as it is; or the description of
            one, as checkpoints keep it: ``{"class_path": "lit_bottleneck.beta.DualBeta", "init_args": {"capacity":
            8.0}}``.

    Raises:
        ValueError: for a description of a class that is not a `BetaController` imported by now.
        TypeError: for anything else.
    """
    if isinstance(beta, BetaController):
        return beta
    if isinstance(beta, Mapping):
        return from_description(BetaController, "beta", beta)  # type: ignore[type-abstract]
    if isinstance(beta, bool) or not isinstance(beta, Real):
        raise TypeError(f"beta must be a number or a BetaController; got {beta!r}")
    return ConstantBeta(beta)


def mean_over_examples(values: Tensor) -> Tensor:
    """Mean of ``(B,)`` values (or of one); 0, not NaN, for an empty batch."""
    return values.sum() / max(values.numel(), 1)
