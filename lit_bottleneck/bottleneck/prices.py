"""The prices of a module: remembered when they are paid, moved when an optimizer step ends."""

import math
import warnings
from collections.abc import Iterable, Set
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_bottleneck.beta import BetaController
from lit_bottleneck.bottleneck.root import log_price, root_of, writes_this_step
from lit_bottleneck.bottleneck.step import may_train, trains
from lit_bottleneck.bottleneck.window import StepWindow, means
from lit_bottleneck.training.distributed import are_several_processes, sum_over_processes


def by_name(controller: BetaController | nn.ModuleDict) -> dict[str, BetaController]:
    """Return the controllers of a module by the name of their price, which is ``""`` for one without a name."""
    if isinstance(controller, nn.ModuleDict):
        return dict(controller.items())  # type: ignore[arg-type]
    return {"": controller}


def has_controllers(value: Any) -> bool:
    """Return whether a value is a controller, or a ``ModuleDict`` of some."""
    several = isinstance(value, nn.ModuleDict) and len(value) > 0
    return all(isinstance(part, BetaController) for part in (value.values() if several else [value]))


class Prices:
    """The rates that a module has paid for since the last optimizer step, by the name of the price.

    Args:
        names: of the prices.

    Attributes:
        has_coded: whether the module has drawn a code in training, for which somebody should pay.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._windows = {name: StepWindow() for name in names}
        self._never_paid = set(self._windows)
        self._first_epoch: int | None = None
        self.has_coded = False

    def __reduce__(self) -> Any:
        return Prices, (tuple(self._windows),)  # a copy has paid nothing

    @property
    def names(self) -> Set[str]:
        """The names of the prices."""
        return self._windows.keys()

    def remember(self, module: Any, name: str, rate: Tensor, distortion: Tensor | None, penalty: Tensor) -> None:
        """Add the rates ``(B,)`` that a penalty was computed of."""
        trainer = _trainer_of(root_of(module)[0])
        if name not in self._windows:  # a price that was put into the ModuleDict later
            self._windows[name] = StepWindow()
        elif self._windows[name].is_stale(trainer):
            self._discard(module, name)
        window = self._windows[name]
        window.check_second_call(trainer, f"rate_penalty of {type(module).__name__}")
        window.add(rate, distortion, penalty, trainer)
        self._never_paid.discard(name)
        if window.should_have_ended(trainer) and not by_name(module.beta_controller)[name].constant:
            window.has_warned = True
            warnings.warn(
                f"{type(module).__name__}.rate_penalty() was called {window.penalties} times and beta has not moved: "
                "no optimizer of torch that holds the parameters of this rate has stepped, or the penalty is no part "
                "of the loss; with another optimizer call step_beta() after each of its steps",
                stacklevel=4,
            )

    def end_step(self, module: Any, optimizer: Optimizer, skipped: bool) -> None:
        """Move the prices whose rates an optimizer trains after it has stepped, or discard them if it was skipped."""
        ended = [
            name
            for name, window in self._windows.items()
            if window.penalties and trains(optimizer, module, window.sources, window.has_gradient)
        ]
        if ended or (are_several_processes() and self._may_have_ended(module, optimizer)):
            root, path = root_of(module)
            for name in ended:
                if skipped or self._windows[name].is_stale(_trainer_of(root)):
                    self._discard(module, name)
            device = next((group["params"][0].device for group in optimizer.param_groups if group["params"]), None)
            self._move(module, ended, root, path, device)
        if self._never_paid and module.training:
            self._warn_of_never_paid(module)

    def _may_have_ended(self, module: Any, optimizer: Optimizer) -> bool:
        """Return whether a price of another process may have ended with the step."""
        sources = {number: weight for window in self._windows.values() for number, weight in window.sources.items()}
        known = may_train(optimizer, module, sources)
        if known is None:  # a module without parameters that has not paid yet
            root, _ = root_of(module)
            return self.has_coded if root is None else optimizer in root.trainer.optimizers
        return known

    def _warn_of_never_paid(self, module: nn.Module) -> None:
        names = [name for name in self._never_paid if name or self.has_coded]
        trainer = _trainer_of(root_of(module)[0]) if names else None  # a search, which a copy would repeat in each step
        if trainer is None:
            return
        self._first_epoch = trainer.current_epoch if self._first_epoch is None else self._first_epoch
        if trainer.is_last_batch or trainer.current_epoch > self._first_epoch:
            calls = " or ".join(f"rate_penalty(rate, name={name!r})" if name else "rate_penalty" for name in names)
            never = f"{type(module).__name__} has not called {calls} in the first epoch"
            warnings.warn(f"{never}: this code costs nothing", stacklevel=2)
            self._never_paid.clear()

    def step(self, module: Any) -> None:
        """Move all prices that were paid."""
        weight = next(module.parameters(), None)
        paid = [name for name, window in self._windows.items() if window.penalties]
        self._move(module, paid, *root_of(module), None if weight is None else weight.device)

    def discard(self, module: Any) -> None:
        """Forget what was paid for a step that is skipped, and count it."""
        for name, window in self._windows.items():
            if window.penalties:
                self._discard(module, name)

    def _discard(self, module: Any, name: str) -> None:
        self._windows[name] = StepWindow(self._windows[name])
        by_name(module.beta_controller)[name].skipped_updates += 1

    def _move(self, module: Any, ended: list[str], root: Any, path: str, device: torch.device | None) -> None:
        """Move the prices ``ended``, and those that only another process has paid, by the rates of all processes."""
        controllers = by_name(module.beta_controller)
        windows = {name: self._windows[name] for name in ended if name in controllers}
        self._windows |= {name: StepWindow(window) for name, window in windows.items()}
        logs = root is not None and writes_this_step(root)
        concerned = controllers if are_several_processes() else windows
        if not concerned or not (logs or any(not controllers[name].constant for name in concerned)):
            return
        totals = [(windows[name] if name in windows else StepWindow()).totals() for name in controllers]
        if are_several_processes():
            local = torch.tensor(totals, dtype=torch.float64, device=device)
            totals = sum_over_processes(local).tolist()
        for (name, controller), sums in zip(controllers.items(), totals, strict=True):
            if not sums[0]:  # no process has paid it
                continue
            mean_rate, mean_distortion = means(sums)
            applied = controller.beta
            controller.update(mean_rate, mean_distortion)
            if not math.isfinite(mean_rate):
                step = f"an optimizer step of {type(module).__name__}"
                warnings.warn(f"no rate of {step} is finite: beta has not moved", stacklevel=2)
            if logs:
                log_price(root, path, name, mean_rate, applied)


def _trainer_of(root: Any) -> Any:
    return None if root is None else root.trainer
