"""Pretrained networks as encoders."""

from typing import Any, Self

from torch import Tensor, nn

from lit_bottleneck.checks import ConfigurationError, sizes


class Backbone(nn.Module):
    """A pretrained network, and one linear layer from its features to the moments of a code.

    A network that returns ``2 * latent_dim`` numbers, as ``resnet18(num_classes=512)`` does, needs no ``Backbone``.

    Args:
        network: any module from inputs to features ``(B, num_features)``, or ``(B, num_features, ...)``, which are
            averaged over positions. It is modified in place, not copied.
        num_features: width of the features.
        out_features: numbers per example: ``2 * latent_dim``.
        without: name of a submodule to replace by the identity, such as ``"fc"`` of a ResNet.
        frozen: whether to keep the network's weights, and the network always in evaluation mode.

    Raises:
        ConfigurationError: for sizes below 1, or a submodule that the network does not have; in ``forward`` for
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
        self.num_features, self.out_features = sizes(num_features=num_features, out_features=out_features)
        if without is not None:
            parts = dict(network.named_modules())
            if not without or without not in parts:
                known = f"{type(network).__name__}, such as {', '.join(name for name, _ in network.named_children())}"
                raise ConfigurationError(f"without must be a submodule of {known}; got {without!r}")
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
        name, width = type(self.network).__name__, self.num_features
        if not isinstance(features, Tensor):
            found = type(features).__name__
            raise ConfigurationError(f"network={name} must return a tensor of features; got a {found}: wrap it")
        if features.dim() < 2 or features.shape[1] != width:
            found = f"{name} returns {tuple(features.shape)}"
            raise ConfigurationError(f"num_features={width} needs features (B, {width}) or (B, {width}, ...); {found}")
        moments: Tensor = self.moments(features.flatten(2).mean(2) if features.dim() > 2 else features)
        return moments

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frozen network stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.network.eval()
        return self
