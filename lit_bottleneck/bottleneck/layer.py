"""``BottleneckLayer``, a bottleneck to drop into an ``nn.Sequential``."""

import warnings
import weakref
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_bottleneck.bottleneck.root import name_of
from lit_bottleneck.bottleneck.step import is_in_backward
from lit_bottleneck.checks import ConfigurationError, one_of, whole_number
from lit_bottleneck.code import Code, Scale, check_scale, gaussian_code

_is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # since torch 2.7
_CALLS_WITHOUT_A_PICKUP = 100  # before a warning
_PRICE_IT = "add rate_penalty() of the module around it, or beta * take_rate().mean(), to the loss; or forget()"


class BottleneckLayer(nn.Module):
    """A linear layer to a Gaussian code, to drop into an ``nn.Sequential``: noise in training, the mean in evaluation.

    The rate of each training pass with a graph waits in the layer until ``GaussianBottleneck.rate_penalty`` of the
    module around it (or ``take_rate``) picks it up; passes under ``no_grad`` and the recomputation of activation
    checkpoints add none. In evaluation the rates of the last calls wait, as many as the last pick-up in training found.

    Args:
        in_features: width of the input.
        latent_dim: width of the code.
        deterministic: pass on the mean, at no cost.
        scale: how a raw scale becomes a log-variance, see ``gaussian_code``.
        dim: dimension of the input's features. Default: the last, or, of ``(B, in_features, H, W)``, dimension 1.
        reduction: of the rates of several calls before a pick-up, as of a siamese network: ``"sum"`` adds them up, so
            that an example pays for all its codes; ``"none"`` returns them one after another, as those of other
            examples. Default: ``"none"``, with a warning where they have the same number of examples.

    Attributes:
        code: of the last call; without its graph once the rate is picked up.

    >>> layer = BottleneckLayer(8, 3)
    >>> layer(torch.zeros(5, 8)).shape, layer.take_rate().shape
    (torch.Size([5, 3]), torch.Size([5]))
    """

    calls_of_a_pickup: Tensor

    def __init__(
        self,
        in_features: int,
        latent_dim: int,
        deterministic: bool = False,
        scale: Scale = "bounded",
        *,
        dim: int | None = None,
        reduction: Literal["sum", "none"] | None = None,
    ) -> None:
        super().__init__()
        self.in_features = whole_number("in_features", in_features, at_least=1)
        self.latent_dim = whole_number("latent_dim", latent_dim, at_least=1)
        self.deterministic = deterministic
        self.scale: Scale = check_scale(scale)
        if dim == 0:
            raise ConfigurationError("dim must be a dimension after the batch; got 0")
        self.dim = dim
        self.reduction = None if reduction is None else one_of("reduction", reduction, ("sum", "none"))
        self.moments = nn.Linear(in_features, 2 * latent_dim)
        self._kept = _Kept()
        if reduction is not None:  # how many calls the last pick-up in training found
            self.register_buffer("calls_of_a_pickup", torch.ones((), dtype=torch.int64))
        self._has_warned = False

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Code a batch.

        Args:
            x: ``(B, in_features)``, ``(B, ..., in_features)`` or ``(B, in_features, H, W)``.
            mask: ``(B, ...)``, false at positions that cost nothing.

        Returns:
            The codes: ``x`` with ``latent_dim`` in the place of ``in_features``.

        Raises:
            ValueError: for another shape.
        """
        dim = self._feature_dim(x)
        moments = F.linear(x.movedim(dim, -1), self.moments.weight, self.moments.bias).movedim(-1, dim)
        code = gaussian_code(moments, self.training, None, self.scale, self.deterministic, dim, mask)
        if not is_in_backward():
            self._keep(code)
        return code.z

    @property
    def code(self) -> Code | None:
        """The code of the last call."""
        code: Code | None = self._kept.code
        return code

    @property
    def has_rate(self) -> bool:
        """Whether a forward pass has left a rate."""
        return bool(self._waiting)

    def take_rate(self) -> Tensor:
        """Return the rate, nats per example ``(B,)``, and forget it.

        Raises:
            RuntimeError: if there was no forward pass since the last time, or calls of different numbers of examples
                are to be added.
        """
        if not self.has_rate:
            raise RuntimeError(
                "this BottleneckLayer has no rate: it was taken already, or no forward pass (in training: with a "
                "graph, which torch.utils.checkpoint needs use_reentrant=False for) came before"
            )
        rates = self._waiting
        lengths = {len(rate) for rate in rates}
        if self.training and self.reduction is not None:
            self.calls_of_a_pickup.fill_(len(rates))
        if self.reduction == "sum" and len(lengths) > 1:
            raise RuntimeError(f"reduction='sum' needs calls of as many examples; they coded {sorted(lengths)}")
        if self.reduction is None and len(rates) > 1 and len(lengths) == 1:
            self._warn("was called several times, and each example pays the mean of its codes: set reduction='sum'")
        rate = torch.stack(rates).sum(0) if self.reduction == "sum" else torch.cat(rates)
        self.forget()
        return rate

    def forget(self) -> None:
        """Drop the rates that wait, and the graphs that they hold."""
        self._kept.calls, self._kept.evaluated = [], []
        self._kept.code = None if self.code is None else self.code.detach()

    def extra_repr(self) -> str:
        """Return the arguments, for printing."""
        return f"in_features={self.in_features}, latent_dim={self.latent_dim}, deterministic={self.deterministic}"

    @property
    def _waiting(self) -> list[Tensor]:
        in_training = self.training and not self.deterministic
        return [call.rate for call in self._kept.calls] if in_training else self._kept.evaluated

    def _feature_dim(self, x: Tensor) -> int:
        likely = [-1, 1] if x.dim() == 4 else [-1]
        dims = range(-x.dim() + 1, x.dim()) if x.dim() > 1 else []
        fits = [dim for dim in (likely if self.dim is None else [self.dim]) if dim in dims]
        fits = [dim for dim in fits if x.shape[dim] == self.in_features]
        if len(fits) != 1:
            needed = f"a batch (B, ..., {self.in_features}) or (B, {self.in_features}, H, W)"
            way_out = ": set dim=1 or dim=-1" if fits else "" if self.dim is None else f" for dim={self.dim}"
            raise ValueError(f"{name_of(self)} needs {needed}; got {tuple(x.shape)}{way_out}")
        return fits[0] % x.dim()

    def _keep(self, code: Code) -> None:
        if _is_exporting():
            return
        self._kept.code = code
        if not self.training or self.deterministic:
            calls = 1 if self.reduction is None else int(self.calls_of_a_pickup)
            self._kept.evaluated = [*self._kept.evaluated, code.rate][-calls:]
            return
        if not code.rate.requires_grad:
            return
        if any(call.code_has_gradient and not call.rate_has_gradient for call in self._kept.calls):
            self._warn(f"has a rate that nothing priced before the gradient of its code was taken: {_PRICE_IT}")
        self._kept.calls = [call for call in self._kept.calls if not (call.code_has_gradient or call.rate_has_gradient)]
        self._kept.calls.append(_Call(code))
        if len(self._kept.calls) > _CALLS_WITHOUT_A_PICKUP:
            self._warn(f"keeps the graphs of {len(self._kept.calls)} calls whose rate nothing picked up: {_PRICE_IT}")

    def _warn(self, what: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(f"{name_of(self)} {what}", stacklevel=4)

    def __getstate__(self) -> dict[str, Any]:
        # a tensor with a graph can be neither copied nor pickled
        return {**self.__dict__, "_kept": _Kept()}


class _Kept:
    """What the calls leave, in an object that ``torch.export`` does not look into.

    Attributes:
        code: of the last call.
        calls: those in training whose rate waits.
        evaluated: the rates of the last calls in evaluation.
    """

    def __init__(self) -> None:
        self.code: Code | None = None
        self.calls: list[_Call] = []
        self.evaluated: list[Tensor] = []


class _Call:
    """The rate of a call in training, and whether the gradients of code and rate were taken since."""

    def __init__(self, code: Code) -> None:
        self.rate = code.rate
        self.code_has_gradient = self.rate_has_gradient = False
        if not torch.compiler.is_compiling():
            code.z.register_hook(_Note(self, "code_has_gradient"))
            code.rate.register_hook(_Note(self, "rate_has_gradient"))


class _Note:
    """A hook that notes that a gradient was taken.

    It refers to the call weakly: the call holds the graph, and the graph the hook.
    """

    def __init__(self, call: _Call, name: str) -> None:
        self._call, self._name = weakref.ref(call), name

    def __call__(self, gradient: Tensor | None) -> None:
        call = self._call()
        # torch calls the hooks of all results of one operation, with None where no gradient came. In grad mode a
        # gradient is part of another graph, such as that of a gradient penalty.
        if call is not None and gradient is not None and not torch.is_grad_enabled():
            setattr(call, self._name, True)
