"""Somebody else's network as an encoder."""

from typing import Any, Self

from torch import Tensor, nn

from lit_bottleneck.checks import whole_number


class Backbone(nn.Module):
    """A network that somebody else made, and one linear layer from its features to the moments of a code.

    A network that ends in ``2 * latent_dim`` numbers by itself, as ``resnet18(num_classes=512)`` does, is an encoder as
    it is. This is for one that comes with weights, and so with an end of its own:

    Args:
        network: any module from inputs to a tensor of features ``(B, num_features)``, or ``(B, num_features, ...)``,
            which are averaged over their positions. It is changed in its place, not copied.
        num_features: width of the features.
        out_features: what is returned per example: ``2 * latent_dim``.
        without: name of a part of the network that is left out, such as ``"fc"`` of a ResNet: what goes into it are
            the features.
        frozen: whether the network's weights stay as they are, and it in evaluation mode whatever is around it.

    Raises:
        ValueError: for sizes below 1, or a part that the network does not have; by ``forward`` for features of another
            width.

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
                raise ValueError(
                    f"without={without!r} is no part of {type(network).__name__}; it has "
                    f"{', '.join(name for name, _ in network.named_children())}"
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
            raise ValueError(
                f"network={type(self.network).__name__} must return a tensor of features; got a "
                f"{type(features).__name__}: wrap it in a module that picks one"
            )
        if features.dim() < 2 or features.shape[1] != self.num_features:
            raise ValueError(
                f"num_features={self.num_features} needs a network that returns (B, {self.num_features}) or "
                f"(B, {self.num_features}, ...); {type(self.network).__name__} returns {tuple(features.shape)}"
            )
        moments: Tensor = self.moments(features.flatten(2).mean(2) if features.dim() > 2 else features)
        return moments

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all but a frozen network."""
        super().train(mode)
        if self.frozen:
            self.network.eval()
        return self
