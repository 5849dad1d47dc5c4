"""`GaussianBottleneck`, the mixin that all models share, and `BottleneckLayer`, the drop-in layer.

The way of the data: a network gives moments, `bottleneck` makes a `Code` of them, `rate_penalty` prices its rate, and
after the optimizer's step `step_beta` moves the price. The last of these happens by itself: `rate_penalty` asks the
trainer's optimizers to call it.
"""

import inspect
import math
import warnings
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_bottleneck.beta import BetaController, controller_from
from lit_bottleneck.code import Code, Scale, check_scale, gaussian_code
from lit_bottleneck.training.step_window import StepWindow

_CONTROLLER_STATE = "beta_controller._extra_state"
_PENALTIES_WITHOUT_A_STEP = 100


class GaussianBottleneck:
    """Mixin that puts a priced Gaussian code into a LightningModule (or into a bare ``nn.Module``).

    It stands *before* the module in the bases: ``class Mine(GaussianBottleneck, LightningModule)``.

    Under a Lightning trainer everything else happens by itself: beta moves after each optimizer step by the mean rate
    over all processes and accumulated batches, is logged as ``train/beta`` beside ``train/rate``, and is in the
    checkpoint. Over a bare ``nn.Module``, or in a loop of your own, call `step_beta` after each optimizer step.

    Args:
        *args: passed on to the next class.
        beta: the price of a nat: a number, or a `BetaController`.
        deterministic: the code is the mean, rate and penalty are 0: the model's plain twin.
        scale: how a raw scale becomes a log-variance, see `gaussian_code`.
        **kwargs: passed on to the next class.

    Raises:
        TypeError: at the definition of a class that has the mixin after the module, or takes one of its names.
        ValueError: for a price that is negative or not finite.
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
        first = next(base for base in cls.__mro__ if base is GaussianBottleneck or base is nn.Module)
        if first is nn.Module:
            bases = [base.__name__ for base in cls.__bases__ if base is not GaussianBottleneck]
            raise TypeError(
                f"GaussianBottleneck must stand before the module: class {cls.__name__}(GaussianBottleneck, "
                f"{', '.join(bases)}); otherwise its constructor never runs"
            )
        own = vars(GaussianBottleneck)
        taken = [name for name in _RESERVED if inspect.getattr_static(cls, name) is not own[name]]
        if taken:
            raise TypeError(
                f"{cls.__name__} overwrites {', '.join(taken)} of GaussianBottleneck; choose another name. "
                "(What a nat costs is changed by another BetaController.)"
            )

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _RESERVED and not (name == "beta_controller" and isinstance(value, BetaController)):
            raise TypeError(
                f"{name} belongs to GaussianBottleneck and cannot be set to {type(value).__name__}: choose another "
                "name for it. (To change what a nat costs, assign a BetaController to beta_controller.)"
            )
        super().__setattr__(name, value)

    @property
    def beta_controller(self) -> BetaController:
        """The controller of the price."""
        modules: dict[str, Any] = self.__dict__.get("_modules", {})
        if "beta_controller" not in modules:
            # Not an AttributeError: nn.Module.__getattr__ would put a message of its own in its place.
            raise RuntimeError(
                f"GaussianBottleneck was not initialised: {type(self).__name__}.__init__ must call "
                "super().__init__(beta=...) first"
            )
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
        self.beta_controller  # noqa: B018  (raises if the mixin was not initialised)
        if sample is None:
            sample = self.training or noise is not None
        elif noise is not None and not sample:
            raise ValueError("noise was given with sample=False: there is nothing to add it to")
        return gaussian_code(moments, sample, noise, self._bottleneck_scale, self._bottleneck_deterministic)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def rate_penalty(
        self, rate: Tensor | None = None, distortion: Tensor | None = None, priced_rate: Tensor | None = None
    ) -> Tensor:
        """Price the rate; in training, also remember it for the next update of beta.

        Args:
            rate: ``(B,)``, nats per example. Default: the summed rates of the `BottleneckLayer` modules that this
                forward pass went through.
            distortion: ``(B,)`` or their mean, nats, for a controller that is driven by it.
            priced_rate: ``(B,)``, a transform of the rate that is paid for in its place, such as
                `functional.free_bits_rate`. What moves beta and is logged is ``rate``.

        Returns:
            A scalar to add to the loss.

        Raises:
            RuntimeError: without ``rate``, if no `BottleneckLayer` has one, or one adds noise in a deterministic
                module.
            ValueError: if ``rate`` is not one number per example.
        """
        controller = self.beta_controller
        if rate is None:
            rate = self._rate_of_layers()
        elif rate.dim() != 1:
            raise ValueError(
                f"rate needs the nats of each example, (B,), such as code.rate; got the shape {tuple(rate.shape)}"
            )
        if self._bottleneck_deterministic:
            return rate.detach().new_zeros(())
        if self.training:
            self._remember(rate, distortion)
        penalty: Tensor = controller(rate if priced_rate is None else priced_rate)
        return penalty

    def step_beta(self) -> None:
        """Move beta by one step, from what was remembered since the last; without anything remembered, do nothing.

        Called for you after each step of the trainer's optimizers. With several processes all of them must call it.
        """
        controller = self.beta_controller
        window = self._bottleneck_window
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
            warnings.warn(
                f"the mean rate of an optimizer step of {type(self).__name__} is {mean_rate}: beta has not moved",
                stacklevel=2,
            )
        if logs:
            values = {"train/rate": mean_rate, "train/beta": applied}
            self.log_dict(values, prog_bar=True)  # type: ignore[attr-defined]

    @property
    def logs_this_step(self) -> bool:
        """Whether a trainer is training this module and its loggers will write this step, or the epoch ends with it.

        Logging costs as much as all the rest of Lightning's loop together: what is logged in the other steps is thrown
        away.
        """
        trainer = getattr(self, "_trainer", None)
        if trainer is None or not trainer.training or trainer.lightning_module is not self:
            return False
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

    def _layers(self) -> "list[BottleneckLayer]":
        return [module for module in self.modules() if isinstance(module, BottleneckLayer)]  # type: ignore[attr-defined]

    def _rate_of_layers(self) -> Tensor:
        rates = [layer.take_rate() for layer in self._layers() if layer.has_rate]
        if not rates:
            raise RuntimeError(
                "rate_penalty() without a rate takes those of the BottleneckLayer modules that the forward pass went "
                "through, and there was none: call it after the forward pass, once, or give it code.rate"
            )
        if self._bottleneck_deterministic and not all(layer.deterministic for layer in self._layers()):
            raise RuntimeError(
                f"{type(self).__name__} is deterministic, but a BottleneckLayer in it adds noise: make it with "
                "deterministic=True too"
            )
        lengths = {len(rate) for rate in rates}
        if len(lengths) > 1:
            raise RuntimeError(
                f"the BottleneckLayer modules coded different numbers of examples, {sorted(lengths)}: their rates "
                "cannot be added. Price them yourself: rate_penalty(rate)"
            )
        return torch.stack(rates).sum(0)

    def _remember(self, rate: Tensor, distortion: Tensor | None) -> None:
        trainer = getattr(self, "_trainer", None)
        if trainer is not None:
            if self._was_skipped():
                self.discard_step()
            for optimizer in trainer.optimizers:
                if not hasattr(optimizer, "_bottlenecks"):
                    optimizer._bottlenecks = WeakSet()
                    optimizer.register_step_post_hook(_after_step)
                if self not in optimizer._bottlenecks:
                    self.discard_step()  # of another fit
                    optimizer._bottlenecks.add(self)
            self._bottleneck_window.loss_scale = self._loss_scale()
        self._bottleneck_window.add(rate.detach(), None if distortion is None else distortion.detach())
        patience = _PENALTIES_WITHOUT_A_STEP
        hooked = trainer is not None and trainer.training and self.automatic_optimization
        if self._bottleneck_window.penalties == patience and not hooked and not self.beta_controller.constant:
            warnings.warn(
                f"{type(self).__name__}.rate_penalty() was called {patience} times and beta has not moved: outside a "
                "Lightning trainer, or with an optimizer that configure_optimizers did not return, call step_beta() "
                "after each optimizer step",
                stacklevel=4,
            )

    def _loss_scale(self) -> float:
        """The scale of the trainer's gradient scaler, if it has one: it falls with each step that is skipped."""
        trainer = getattr(self, "_trainer", None)
        scaler = None if trainer is None else getattr(trainer.precision_plugin, "scaler", None)
        return 0.0 if scaler is None else float(scaler.get_scale())

    def _was_skipped(self) -> bool:
        """Whether the step that the window belongs to was skipped by a gradient scaler."""
        return self._bottleneck_window.penalties > 0 and self._loss_scale() < self._bottleneck_window.loss_scale

    def discard_step(self) -> None:
        """Forget the rates of an optimizer step that is skipped, so that beta does not move by them; count it."""
        if self._bottleneck_window.penalties:
            self._bottleneck_window = StepWindow()
            self.beta_controller.skipped_updates += 1


# What a subclass may not take for itself: everything but the hook that each class may extend.
_RESERVED = frozenset(name for name in vars(GaussianBottleneck) if not name.startswith("__")) - {"on_save_checkpoint"}


class BottleneckLayer(nn.Module):
    """A linear layer to a Gaussian code, to drop into an ``nn.Sequential``: noise in training, the mean in evaluation.

    The rate waits in the layer until `GaussianBottleneck.rate_penalty` of the module around it (or `take_rate`) picks
    it up. A layer that is called several times before that gives the rates of all calls, one after another. In
    evaluation only the last call is remembered.

    Args:
        in_features: width of the input.
        latent_dim: width of the code.
        deterministic: pass on the mean, at no cost.
        scale: how a raw scale becomes a log-variance, see `gaussian_code`.

    >>> layer = BottleneckLayer(8, 3)
    >>> layer(torch.zeros(5, 8)).shape, layer.take_rate().shape
    (torch.Size([5, 3]), torch.Size([5]))
    """

    def __init__(
        self, in_features: int, latent_dim: int, deterministic: bool = False, scale: Scale = "bounded"
    ) -> None:
        super().__init__()
        self.in_features, self.latent_dim = in_features, latent_dim
        self.deterministic = deterministic
        self.scale: Scale = check_scale(scale)
        self.moments = nn.Linear(in_features, 2 * latent_dim)
        self._rates: list[Tensor] = []
        self._in_training = True

    def forward(self, x: Tensor) -> Tensor:
        """Code a batch: ``(B, in_features)`` to ``(B, latent_dim)``."""
        if x.dim() != 2:
            raise ValueError(f"BottleneckLayer needs a batch of vectors, (B, {self.in_features}); got {tuple(x.shape)}")
        code = gaussian_code(self.moments(x), self.training, None, self.scale, self.deterministic)
        if not (self.training and self._in_training):
            self.forget()
        self._in_training = self.training
        self._rates.append(code.rate)
        if len(self._rates) > _PENALTIES_WITHOUT_A_STEP:
            self.forget()
            warnings.warn(
                "nothing picks up the rate of a BottleneckLayer: add rate_penalty() of the module around it (or "
                "beta * take_rate().mean()) to the loss",
                stacklevel=2,
            )
        return code.z

    @property
    def has_rate(self) -> bool:
        """Whether a forward pass has left a rate."""
        return bool(self._rates)

    def take_rate(self) -> Tensor:
        """Hand over the rate, nats per example ``(B,)``, and forget it.

        Raises:
            RuntimeError: if there was no forward pass since the last time.
        """
        if not self._rates:
            raise RuntimeError("this BottleneckLayer has no rate: it was taken already, or no forward pass came before")
        rate = torch.cat(self._rates)
        self.forget()
        return rate

    def forget(self) -> None:
        """Drop the rate, and the graph that it holds."""
        self._rates.clear()

    def extra_repr(self) -> str:
        """The arguments, for printing."""
        return f"in_features={self.in_features}, latent_dim={self.latent_dim}, deterministic={self.deterministic}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rates": []}  # a tensor with a graph can be neither copied nor pickled


def _after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Post hook of an optimizer's step: move beta, unless a gradient scaler has had a fused optimizer do nothing."""
    found_inf = getattr(optimizer, "found_inf", None)
    for module in list(optimizer._bottlenecks):  # type: ignore[attr-defined]
        if (found_inf is not None and bool(found_inf)) or module._was_skipped():
            module.discard_step()
        else:
            module.step_beta()
