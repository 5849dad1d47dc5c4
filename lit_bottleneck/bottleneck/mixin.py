"""``GaussianBottleneck``, the mixin that all models share.

A network returns moments, ``bottleneck`` makes a ``Code`` of them, ``rate_penalty`` prices its rate, and after the
optimizer's step ``step_beta`` moves the price. The last of these happens by itself under a Lightning trainer:
``rate_penalty`` registers a hook on the trainer's optimizers.
"""

import inspect
import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from lit_bottleneck.beta import BetaController, controller_from
from lit_bottleneck.bottleneck.layer import BottleneckLayer
from lit_bottleneck.bottleneck.step import StepWindow, call_after_steps
from lit_bottleneck.code import Code, Scale, check_scale, gaussian_code
from lit_bottleneck.training.precision import loss_scale

_CONTROLLER_STATE = "beta_controller._extra_state"
_PENALTIES_WITHOUT_A_STEP = 100  # before a warning


class GaussianBottleneck:
    """Mixin that puts a priced Gaussian code into a LightningModule (or into a bare ``nn.Module``).

    It stands before the module in the bases: ``class Mine(GaussianBottleneck, LightningModule)``.

    Under a Lightning trainer beta moves after each optimizer step by the mean rate over all processes and accumulated
    batches, is logged as ``train/beta`` beside ``train/rate``, and is in the checkpoint. Over a bare ``nn.Module``, or
    in a loop of your own, call ``step_beta`` after each optimizer step.

    Args:
        *args: passed on to the next class.
        beta: the price of a nat: a number, or a ``BetaController``.
        deterministic: the plain twin of the module: the code is the mean, rate and penalty are 0.
        scale: how a raw scale becomes a log-variance, see ``gaussian_code``.
        **kwargs: passed on to the next class.

    Raises:
        TypeError: at the definition of a class that has the mixin after the module, or overwrites one of its names.
        ConfigurationError: for a price that is negative or not finite.
    """

    training: bool
    automatic_optimization: bool

    def __init__(
        self,
        *args: Any,
        beta: float | BetaController,
        deterministic: bool = False,
        scale: Scale = "bounded",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        setattr(self, "beta_controller", controller_from(beta))  # noqa: B010  (a property for mypy, a submodule for torch)
        self._bottleneck_deterministic = deterministic
        self._bottleneck_scale: Scale = check_scale(scale)
        self._bottleneck_window = StepWindow()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # nn.Module.__init__ calls no super().__init__, so that a mixin behind it would never be initialised:
        # https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html
        if next(base for base in cls.__mro__ if base in (GaussianBottleneck, nn.Module)) is nn.Module:
            others = ", ".join(base.__name__ for base in cls.__bases__ if base is not GaussianBottleneck)
            right = f"class {cls.__name__}(GaussianBottleneck, {others})"
            raise TypeError(f"GaussianBottleneck must stand before the module, or its constructor never runs: {right}")
        own = vars(GaussianBottleneck)
        taken = [name for name in _RESERVED if inspect.getattr_static(cls, name) is not own[name]]
        if taken:
            overwrites = f"{cls.__name__} overwrites {', '.join(taken)} of GaussianBottleneck"
            raise TypeError(f"{overwrites}: choose another name (or for another price write a BetaController)")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _RESERVED and not (name == "beta_controller" and isinstance(value, BetaController)):
            belongs = f"{name} belongs to GaussianBottleneck and cannot be set to {type(value).__name__}"
            raise TypeError(f"{belongs}: choose another name (for another price assign to beta_controller)")
        super().__setattr__(name, value)

    @property
    def beta_controller(self) -> BetaController:
        """The controller of beta."""
        modules: dict[str, Any] = self.__dict__.get("_modules", {})
        if "beta_controller" not in modules:
            # Not an AttributeError: nn.Module.__getattr__ would replace it by a message of its own.
            call = f"{type(self).__name__}.__init__ must call super().__init__(beta=...)"
            raise RuntimeError(f"GaussianBottleneck was not initialised: {call} first")
        controller: BetaController = modules["beta_controller"]
        return controller

    @property
    def beta(self) -> float:
        """The current price of a nat."""
        return self.beta_controller.beta

    @property
    def deterministic(self) -> bool:
        """Whether the code is the mean and costs nothing."""
        self.beta_controller  # noqa: B018  (raises if the mixin was not initialised)
        return self._bottleneck_deterministic

    def bottleneck(self, moments: Tensor, sample: bool | None = None, noise: Tensor | None = None) -> Code:
        """Make a code of a network's output.

        Args:
            moments: ``(B, 2K)`` or ``(B, 2K, *spatial)``, means and raw scales along dimension 1.
            sample: whether ``z`` is a draw or the mean. Default: a draw in training and where ``noise`` is given.
            noise: ``(B, K, ...)``, in place of the drawn noise.

        Raises:
            ValueError: for moments that cannot be halved, or noise that does not fit.
        """
        deterministic = self.deterministic
        if sample is None:
            sample = self.training or noise is not None
        elif noise is not None and not sample:
            raise ValueError("noise was given with sample=False: there is nothing to add it to")
        return gaussian_code(moments, sample, noise, self._bottleneck_scale, deterministic)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def rate_penalty(
        self, rate: Tensor | None = None, distortion: Tensor | None = None, priced_rate: Tensor | None = None
    ) -> Tensor:
        """Price the rate; in training, also remember it for the next update of beta.

        Args:
            rate: ``(B,)``, nats per example. Default: the summed rates of the ``BottleneckLayer`` modules that this
                forward pass went through.
            distortion: ``(B,)`` or their mean, nats, for a controller that is driven by it.
            priced_rate: ``(B,)``, a transform of the rate that is priced in its place, such as
                ``functional.free_bits_rate``. Beta moves by ``rate``, which is also what is logged.

        Returns:
            A scalar to add to the loss.

        Raises:
            RuntimeError: without ``rate``, if no ``BottleneckLayer`` has one, or one adds noise in a deterministic
                module.
            ValueError: if ``rate`` is not one number per example.
        """
        controller = self.beta_controller
        if rate is None:
            rate = self._rate_of_layers()
        elif rate.dim() != 1:
            raise ValueError(f"rate must be (B,), nats per example, such as code.rate; got shape {tuple(rate.shape)}")
        if self._bottleneck_deterministic:
            return rate.detach().new_zeros(())
        if self.training:
            self._remember(rate, distortion)
        penalty: Tensor = controller(rate if priced_rate is None else priced_rate)
        return penalty

    def step_beta(self) -> None:
        """Move beta by one step, by the rates since the last; without any, do nothing.

        Called for you after each step of the trainer's optimizers. With several processes all of them must call it.
        """
        controller, window = self.beta_controller, self._bottleneck_window
        if not window.penalties:
            return
        self._bottleneck_window = StepWindow()
        for layer in self._layers():
            layer.forget()
        logs = self.logs_this_step
        if controller.constant and not logs:
            return
        mean_rate, mean_distortion = window.global_means()
        applied = controller.beta
        controller.update(mean_rate, mean_distortion)
        if not math.isfinite(mean_rate):
            step = f"an optimizer step of {type(self).__name__}"
            warnings.warn(f"the mean rate of {step} is {mean_rate}: beta has not moved", stacklevel=2)
        if logs:
            self.log_dict({"train/rate": mean_rate, "train/beta": applied}, prog_bar=True)  # type: ignore[attr-defined]

    def discard_step(self) -> None:
        """Forget the rates of an optimizer step that is skipped, so that beta does not move by them; count it."""
        if self._bottleneck_window.penalties:
            self._bottleneck_window = StepWindow()
            self.beta_controller.skipped_updates += 1

    def end_step(self, skipped: bool) -> None:
        """Move beta after an optimizer step, or discard the rates of one that a gradient scaler skipped."""
        if skipped or self._bottleneck_window.was_skipped(loss_scale(getattr(self, "_trainer", None))):
            self.discard_step()
        else:
            self.step_beta()

    @property
    def logs_this_step(self) -> bool:
        """Whether a trainer is training this module and its loggers will write this step, or the epoch ends with it.

        In other steps a logged value would be thrown away, and logging costs as much as the rest of Lightning's loop.
        """
        trainer = getattr(self, "_trainer", None)
        if trainer is None or not trainer.training or trainer.lightning_module is not self:
            return False
        # The loggers' count of steps, which has no public name: global_step counts the steps of every optimizer.
        step = trainer.fit_loop.epoch_loop._batches_that_stepped + 1
        every = trainer.log_every_n_steps
        return bool(trainer.is_last_batch or (every and step % every == 0))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the live state of beta: a weight-averaging callback has put in that of its copy, which never moves."""
        parent = getattr(super(), "on_save_checkpoint", None)
        if parent is not None:
            parent(checkpoint)
        if _CONTROLLER_STATE in checkpoint.get("state_dict", {}):
            checkpoint["state_dict"][_CONTROLLER_STATE] = self.beta_controller.get_extra_state()

    def _layers(self) -> list[BottleneckLayer]:
        return [module for module in self.modules() if isinstance(module, BottleneckLayer)]  # type: ignore[attr-defined]

    def _rate_of_layers(self) -> Tensor:
        layers = self._layers()
        rates = [layer.take_rate() for layer in layers if layer.has_rate]
        if not rates:
            none = "rate_penalty() without a rate takes those of BottleneckLayer modules, and none has one"
            raise RuntimeError(f"{none}: call it once, after the forward pass, or give it code.rate")
        if self._bottleneck_deterministic and not all(layer.deterministic for layer in layers):
            name = type(self).__name__
            raise RuntimeError(f"{name} is deterministic: set deterministic=True of each BottleneckLayer in it too")
        lengths = {len(rate) for rate in rates}
        if len(lengths) > 1:
            numbers = f"the BottleneckLayer modules coded different numbers of examples, {sorted(lengths)}"
            raise RuntimeError(f"{numbers}, whose rates cannot be added: price them yourself with rate_penalty(rate)")
        return torch.stack(rates).sum(0)

    def _remember(self, rate: Tensor, distortion: Tensor | None) -> None:
        trainer, window = getattr(self, "_trainer", None), self._bottleneck_window
        if trainer is not None:
            if window.was_skipped(loss_scale(trainer)):
                self.discard_step()
            for optimizer in trainer.optimizers:
                if call_after_steps(optimizer, self):
                    self.discard_step()  # of another fit
            window = self._bottleneck_window
            window.loss_scale = loss_scale(trainer)
        window.add(rate.detach(), None if distortion is None else distortion.detach())
        steps_by_itself = trainer is not None and trainer.training and self.automatic_optimization
        if window.penalties == _PENALTIES_WITHOUT_A_STEP and not steps_by_itself and not self.beta_controller.constant:
            warnings.warn(
                f"{type(self).__name__}.rate_penalty() was called {window.penalties} times and beta has not moved: "
                "outside a Lightning trainer, or with an optimizer that configure_optimizers did not return, call "
                "step_beta() after each optimizer step",
                stacklevel=4,
            )


# What a subclass may not overwrite: everything but the hook that each class may extend.
_RESERVED = frozenset(name for name in vars(GaussianBottleneck) if not name.startswith("__")) - {"on_save_checkpoint"}
