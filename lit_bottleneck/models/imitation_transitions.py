"""Networks of a transition between two states: their codes side by side, and what is read from them."""

import torch
from torch import Tensor, nn

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.models.base import output_width


class TransitionEncoder(nn.Module):
    """Code a transition by the encoders of reward and shaping: ``(B, 2, *dims)`` to the moments of three codes.

    Args:
        reward: from observations to ``2 * latent_dim`` numbers.
        shaping: the same.
        latent_dim: width K of each code.
    """

    def __init__(self, reward: nn.Module, shaping: nn.Module, latent_dim: int) -> None:
        super().__init__()
        self.reward, self.shaping, self.latent_dim = reward, shaping, latent_dim
        for name, network in (("reward", reward), ("shaping", shaping)):
            self._check(name, output_width(network))

    def forward(self, transitions: Tensor) -> Tensor:
        """Return the moments ``(B, 6 K)``: means of the codes of ``g(s)``, ``h(s)`` and ``h(s')``, then raw scales."""
        before, after = transitions.unbind(1)
        both = self.moments_of("shaping", torch.cat([before, after])).chunk(2)
        moments = (self.moments_of("reward", before), *both)
        means, scales = zip(*(one.chunk(2, 1) for one in moments), strict=True)
        return torch.cat([*means, *scales], 1)

    def moments_of(self, name: str, observations: Tensor) -> Tensor:
        """Return the moments of one of the encoders, ``"reward"`` or ``"shaping"``, ``(B, 2 K)``."""
        moments: Tensor = getattr(self, name)(observations)
        self._check(name, moments.shape[1] if moments.dim() == 2 else tuple(moments.shape[1:]))
        return moments

    def _check(self, name: str, width: int | tuple[int, ...] | None) -> None:
        if width not in (None, 2 * self.latent_dim):
            needs = f"latent_dim={self.latent_dim} needs a {name}_encoder that returns {2 * self.latent_dim} numbers"
            raise ConfigurationError(f"{needs} per example; got {width}")


class TransitionHead(nn.Module):
    """Read ``f = g + gamma * h' - h`` from the codes of a transition, ``(B, 3 K)`` to ``(B, 1)``."""

    def __init__(self, reward: nn.Module, shaping: nn.Module, gamma: float) -> None:
        super().__init__()
        self.reward, self.shaping, self.gamma = reward, shaping, gamma

    def forward(self, z: Tensor) -> Tensor:
        """Return ``f``."""
        of_reward, before, after = z.chunk(3, 1)
        found: Tensor = self.reward(of_reward) + self.gamma * self.shaping(after) - self.shaping(before)
        return found
