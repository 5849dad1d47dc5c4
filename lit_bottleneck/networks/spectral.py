"""Spectral normalisation of whole networks."""

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def add_spectral_norm(*networks: nn.Module) -> None:
    """Add spectral normalisation to all linear and convolutional layers, in place (arXiv 1802.05957).

    Layers whose weight is already parametrized stay as they are.

    >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> add_spectral_norm(network)
    >>> sorted(name for name, _ in network.named_parameters())
    ['0.bias', '0.parametrizations.weight.original']
    """
    for layer in [layer for network in networks for layer in network.modules()]:
        if isinstance(layer, _LAYERS) and "weight" in layer._parameters:
            spectral_norm(layer)
