"""``GaussianBottleneck``, the mixin that all models share.

A network returns moments, ``bottleneck`` makes a ``Code`` of them, ``rate_penalty`` prices its rate, and after the
optimizer's step ``step_beta`` moves the price. The last of these happens by itself, in any loop: after each step of any
optimizer torch calls a hook, which moves the prices whose rates depend on the optimizer's parameters.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_bottleneck.beta import BetaController, controller_from, controllers_from
from lit_bottleneck.bottleneck.layer import BottleneckLayer
from lit_bottleneck.bottleneck.prices import Prices, by_name, has_controllers
from lit_bottleneck.bottleneck.root import is_trained, store_live_prices, writes_this_step
from lit_bottleneck.bottleneck.step import is_in_backward, watch, watched
from lit_bottleneck.checks import whole_number
from lit_bottleneck.code import Code, Scale, check_scale, check_width, gaussian_code
from lit_bottleneck.fused import is_batch


class GaussianBottleneck:
    """Mixin that puts a priced Gaussian code into a LightningModule (or into a bare ``nn.Module``).

    It stands before the module in the bases: ``class Mine(GaussianBottleneck, LightningModule)``.

    Beta moves after each step of an optimizer that holds a parameter of the module on which the rate depends, in any
    loop, by the mean rate over all processes and accumulated batches. (If the rate depends on none of the module's, any
    of them counts; if the module has none, those of the network that the rate came from.) All processes must take the
    same steps; an optimizer that steps others itself, as ``ZeroRedundancyOptimizer``, is not supported.

    Beta is in the state dict. Under a Lightning trainer it is logged as ``train/beta`` beside ``train/rate``; that of a
    module inside another by its path, as ``train/beta/encoder.code``.

    A module may have several prices: ``beta={"shared": DualBeta(4.0), "private": 1e-3}``, each paid by
    ``rate_penalty(rate, name="shared")`` and logged as ``train/rate/shared`` and ``train/beta/shared``. Then ``beta``
    and ``beta_controller`` hold one of each by name.

    Args:
        *args: passed on to the next class.
        beta: the price of a nat: a number, or a ``BetaController`` (which is copied); or several of these by name.
        deterministic: the plain twin of the module: the code is the mean, rate and penalty are 0.
        scale: how a raw scale becomes a log-variance, see ``gaussian_code``.
        latent_dim: width K of the code, which then is checked. Default: any.
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
        beta: float | BetaController | Mapping[str, Any],
        deterministic: bool = False,
        scale: Scale = "bounded",
        latent_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        several = isinstance(beta, Mapping) and "class_path" not in beta
        make: Any = controllers_from if several else controller_from
        setattr(self, "beta_controller", make(beta))  # noqa: B010  (a property for mypy, a submodule for torch)
        self._bottleneck_deterministic = deterministic
        self._bottleneck_scale: Scale = check_scale(scale)
        self._bottleneck_width = None if latent_dim is None else whole_number("latent_dim", latent_dim, at_least=1)
        watch(self)

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
        if name in _RESERVED:
            self._check_assignment(name, value)
        super().__setattr__(name, value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Watch the optimizers for a copy too."""
        super().__setstate__(state)  # type: ignore[misc]
        watch(self)

    @property
    def beta_controller(self) -> Any:
        """The controller of beta; of several prices, a ``ModuleDict`` of them by name."""
        modules: dict[str, Any] = self.__dict__.get("_modules", {})
        if "beta_controller" not in modules:
            # Not an AttributeError: nn.Module.__getattr__ would replace it by a message of its own.
            call = f"{type(self).__name__}.__init__ must call super().__init__(beta=...)"
            raise RuntimeError(f"GaussianBottleneck was not initialised: {call} first")
        return modules["beta_controller"]

    @property
    def beta(self) -> Any:
        """The current price of a nat, a float; of several prices, a dictionary of them by name."""
        betas = {name: controller.beta for name, controller in by_name(self.beta_controller).items()}
        return betas.get("", betas)

    @property
    def deterministic(self) -> bool:
        """Whether the code is the mean and costs nothing."""
        self.beta_controller  # noqa: B018  (raises if the mixin was not initialised)
        return self._bottleneck_deterministic

    def bottleneck(
        self,
        moments: Tensor,
        sample: bool | None = None,
        noise: Tensor | None = None,
        dim: int = 1,
        mask: Tensor | None = None,
    ) -> Code:
        """Make a code of a network's output.

        Args:
            moments: ``(B, 2K)`` or ``(B, 2K, *spatial)``, means and raw scales along dimension 1, or along ``dim``.
            sample: whether ``z`` is a draw or the mean. Default: a draw in training and where ``noise`` is given.
            noise: ``(B, K, ...)``, in place of the drawn noise.
            dim: dimension of the ``2K`` numbers: -1 for sequences ``(B, T, 2K)``.
            mask: ``(B, *positions)``: positions where it is false, such as padding, cost nothing.

        Raises:
            ValueError: for moments that cannot be halved along ``dim`` or are not of ``latent_dim``, or noise or a mask
                that does not fit.
        """
        deterministic = self.deterministic
        if sample is None:
            sample = self.training or noise is not None
        elif noise is not None and not sample:
            raise ValueError("noise was given with sample=False: there is nothing to add it to")
        if sample and self.training:
            self._bottleneck_prices.has_coded = True
        if self._bottleneck_width is not None:
            check_width(moments, dim, self._bottleneck_width)
        return gaussian_code(moments, sample, noise, self._bottleneck_scale, deterministic, dim, mask)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def rate_penalty(
        self,
        rate: Tensor | None = None,
        distortion: Tensor | None = None,
        priced_rate: Tensor | None = None,
        name: str | None = None,
    ) -> Tensor:
        """Price the rate; in training, also remember it for the next update of beta.

        The rates of all calls between two optimizer steps are averaged, as those of accumulated batches: rates that
        belong to one example are added before the call. Calls under ``no_grad`` or ``vmap`` are not remembered.

        Args:
            rate: ``(B,)``, nats per example. Default: the summed rates of the ``BottleneckLayer`` modules that this
                forward pass went through.
            distortion: ``(B,)`` or their mean, nats, for a controller that is driven by it.
            priced_rate: ``(B,)``, a transform of the rate that is priced in its place, such as
                ``functional.free_bits_rate``. Beta moves by ``rate``, which is also what is logged.
            name: which of several prices.

        Returns:
            A scalar to add to the loss.

        Raises:
            RuntimeError: without ``rate``, if no ``BottleneckLayer`` has one, or one adds noise in a deterministic
                module. At a second call for the same price within one ``training_step`` of a trainer, unless the
                gradient of the first was taken before.
            ValueError: if ``rate`` is not one number per example, or ``name`` is none of the prices.
        """
        controllers, key = by_name(self.beta_controller), name or ""
        if key not in controllers:
            names = f"one of {', '.join(map(repr, controllers))}"
            known = "which is one without a name" if "" in controllers else names
            raise ValueError(f"name must be that of a price of {type(self).__name__}, {known}; got {name!r}")
        if rate is None:
            rate = self._rate_of_layers()
        elif not isinstance(rate, Tensor) or rate.dim() != 1:
            got = f"shape {tuple(rate.shape)}" if isinstance(rate, Tensor) else type(rate).__name__
            raise ValueError(f"rate must be (B,), nats per example, such as code.rate; got {got}")
        if self._bottleneck_deterministic:
            return rate.detach().new_zeros(())
        penalty: Tensor = controllers[key](rate if priced_rate is None else priced_rate)
        if self.training and torch.is_grad_enabled() and not (is_in_backward() or is_batch(rate) or rate.is_meta):
            self._bottleneck_prices.remember(self, key, rate, distortion, penalty)
        return penalty

    def step_beta(self) -> None:
        """Move beta by one step, by the rates since the last; without any, do nothing.

        Called for you after each step of an optimizer of torch. With several processes all of them must call it.
        """
        self.beta_controller  # noqa: B018  (raises if the mixin was not initialised)
        self._bottleneck_prices.step(self)

    def end_step(self, optimizer: Optimizer, skipped: bool) -> None:
        """Move each price whose rate ``optimizer`` trains; called after each step of any optimizer.

        Args:
            optimizer: the one that has stepped.
            skipped: whether it is known to have done nothing; then the rates are forgotten.
        """
        if not self._bottleneck_deterministic:
            self._bottleneck_prices.end_step(self, optimizer, skipped)

    def discard_step(self) -> None:
        """Forget the rates of an optimizer step that is skipped, so that beta does not move by them; count it.

        Called for you where a trainer's gradient scaler skips a step. In a loop by hand call it where the scale of a
        scaler has fallen or a step fails: beta stays either way, but the next step would take the rates of both.
        """
        self._bottleneck_prices.discard(self)

    @property
    def logs_this_step(self) -> bool:
        """Whether a trainer is training this module and its loggers will write this step, or the epoch ends with it.

        In other steps a logged value would be thrown away, and logging costs as much as the rest of Lightning's loop.
        """
        return is_trained(self) and writes_this_step(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the live state of beta: a weight-averaging callback has put in that of its copy, which never moves."""
        parent = getattr(super(), "on_save_checkpoint", None)
        if parent is not None:
            parent(checkpoint)
        store_live_prices(self, checkpoint)

    def _check_assignment(self, name: str, value: Any) -> None:
        """Refuse to overwrite one of the mixin's names, but for the controllers, whose prices are then new."""
        if name != "beta_controller" or not has_controllers(value):
            belongs = f"{name} belongs to GaussianBottleneck and cannot be set to {type(value).__name__}"
            raise TypeError(f"{belongs}: choose another name (for another price assign to beta_controller)")
        others = [by_name(other.beta_controller).values() for other in watched() if other is not self]
        if any(controller in theirs for theirs in others for controller in by_name(value).values()):
            raise TypeError("another module moves this controller: give each its own, such as copy.deepcopy of it")
        prices: Prices | None = self.__dict__.get("_bottleneck_prices")
        if prices is None or prices.names != by_name(value).keys():
            self._bottleneck_prices = Prices(by_name(value))

    def _layers(self) -> list[BottleneckLayer]:
        """Return the layers of this module, but not those of a bottleneck inside, which pays for its own."""
        inside: list[BottleneckLayer] = []
        waiting: list[nn.Module] = [*self.children()]  # type: ignore[attr-defined]
        while waiting:
            module = waiting.pop(0)
            if isinstance(module, BottleneckLayer):
                inside.append(module)
            elif not isinstance(module, GaussianBottleneck):
                waiting += module.children()
        return inside

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


# What a subclass may not overwrite: everything but the hook that each class may extend.
_RESERVED = frozenset(name for name in vars(GaussianBottleneck) if not name.startswith("__")) - {"on_save_checkpoint"}
