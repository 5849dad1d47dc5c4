"""``BottleneckLayer``, a bottleneck to drop into an ``nn.Sequential``."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from lit_bottleneck.code import Scale, check_scale, gaussian_code

_CALLS_WITHOUT_A_PICKUP = 100  # before a warning


class BottleneckLayer(nn.Module):
    """A linear layer to a Gaussian code, to drop into an ``nn.Sequential``: noise in training, the mean in evaluation.

    The rate waits in the layer until ``GaussianBottleneck.rate_penalty`` of the module around it (or ``take_rate``)
    picks it up. A layer that is called several times before that returns the rates of all calls, one after another. In
    evaluation only the last call is remembered.

    Args:
        in_features: width of the input.
        latent_dim: width of the code.
        deterministic: pass on the mean, at no cost.
        scale: how a raw scale becomes a log-variance, see ``gaussian_code``.

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
        if len(self._rates) > _CALLS_WITHOUT_A_PICKUP:
            self.forget()
            add = "add rate_penalty() of the module around it, or beta * take_rate().mean(), to the loss"
            warnings.warn(f"nothing picks up the rate of a BottleneckLayer: {add}", stacklevel=2)
        return code.z

    @property
    def has_rate(self) -> bool:
        """Whether a forward pass has left a rate."""
        return bool(self._rates)

    def take_rate(self) -> Tensor:
        """Return the rate, nats per example ``(B,)``, and forget it.

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
        """Return the arguments, for printing."""
        return f"in_features={self.in_features}, latent_dim={self.latent_dim}, deterministic={self.deterministic}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rates": []}  # a tensor with a graph can be neither copied nor pickled
