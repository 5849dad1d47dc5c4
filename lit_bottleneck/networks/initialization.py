"""Initial weights of linear and convolutional layers."""

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn

Initialization = Literal["torch", "xavier"]

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)


def initialize(network: nn.Module, draw: Callable[[Tensor], Any]) -> None:
    """Draw the weights of all linear and convolutional layers in place by ``draw``, and set their biases to 0."""
    for layer in network.modules():
        if isinstance(layer, _LAYERS):
            draw(layer.weight)
            if isinstance(layer.bias, Tensor):
                nn.init.zeros_(layer.bias)
