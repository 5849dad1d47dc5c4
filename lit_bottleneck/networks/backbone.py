"""Pretrained networks as encoders."""

from typing import Any, Self

from torch import Tensor, nn

from lit_bottleneck.checks import ConfigurationError, whole_number


class Backbone(nn.Module):
    """A pretrained network, and one linear layer from its features to the moments of a code.

    A network that returns ``2 * latent_dim`` numbers, as ``resnet18(num_classes=512)`` does, needs no ``Backbone``.

    Args:
        network: Any module from inputs to features ``(B, num_features)``, or ``(B, num_features, ...)``, which are
            averaged over positions. It is modified in place, not copied.
        num_features: Width of the features.
        out_features: Numbers per example: ``2 * latent_dim``.
        without: Name of a submodule to replace by the identity, such as ``"fc"`` of a ResNet.
        frozen: Whether to keep the network's weights, and the network always in evaluation mode.

    Raises:
        ConfigurationError: For sizes below 1, or a submodule that the network does not have; in ``forward`` for
            features that are no tensor or of another width.

    >>> import torch
    >>> from torchvision.models import resnet18
    >>> encoder = Backbone(resnet18(weights=None), num_features=512, out_features=2 * 16, without="fc", frozen=True)
    >>> encoder(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 32])
    """

    def __init__(
        self, network: nn.Module, num_features: int, out_features: int, without: str | None = None, frozen: bool = False
    ) -> None:
        super().__init__()
        self.num_features = whole_number("num_features", num_features, at_least=1)
        self.out_features = whole_number("out_features", out_features, at_least=1)
        if without is not None:
            parts = dict(network.named_modules())
            if not without or without not in parts:
                raise ConfigurationError(
                    f"without must be a submodule of {type(network).__name__}, such as "
                    f"{', '.join(name for name, _ in network.named_children())}; got {without!r}"
                )
            owner, _, name = without.rpartition(".")
            setattr(parts[owner], name, nn.Identity())
        self.network = network
        self.frozen = frozen
        self.moments = nn.Linear(self.num_features, self.out_features)
        if frozen:
            network.requires_grad_(False).eval()

    def forward(self, x: Any) -> Tensor:
        """Map inputs to ``(B, out_features)``."""
        features: Any = self.network(x)
        if not isinstance(features, Tensor):
            raise ConfigurationError(
                f"network={type(self.network).__name__} must return a tensor of features; got a "
                f"{type(features).__name__}: wrap it in a module that returns one tensor"
            )
        if features.dim() < 2 or features.shape[1] != self.num_features:
            raise ConfigurationError(
                f"num_features={self.num_features} needs a network that returns (B, {self.num_features}) or "
                f"(B, {self.num_features}, ...); {type(self.network).__name__} returns {tuple(features.shape)}"
            )
        moments: Tensor = self.moments(features.flatten(2).mean(2) if features.dim() > 2 else features)
        return moments

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frozen network stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.network.eval()
        return self
