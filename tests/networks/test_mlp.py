"""The perceptrons: their formula, and initial weights."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lit_bottleneck.networks import MLP, MLPDecoder


def linear_layers(network: nn.Module) -> list[nn.Linear]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]


def by_hand(network: nn.Module, x: torch.Tensor, slope: float) -> np.ndarray:
    """Compute the map in numpy: matrix products, and in between the positive part plus ``slope`` times the negative."""
    values = x.double().numpy().reshape(len(x), -1)
    layers = linear_layers(network)
    for layer in layers:
        values = values @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
        if layer is not layers[-1]:
            values = np.maximum(values, 0) + slope * np.minimum(values, 0)
    return values


@pytest.mark.parametrize(
    ("kwargs", "slope"), [({}, 0.0), ({"activation": "relu"}, 0.0), ({"activation": "leaky_relu"}, 0.2)]
)
@pytest.mark.parametrize("hidden", [[], [7], [7, 5, 9]])
@pytest.mark.parametrize("shape", [(12,), (3, 2, 2)])
def test_perceptrons_are_their_formula(
    kwargs: dict[str, Any], slope: float, hidden: list[int], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    network, x = MLP(12, hidden, 6, **kwargs), torch.randn(4, *shape)
    np.testing.assert_allclose(network(x).detach().numpy(), by_hand(network, x, slope), rtol=1e-5, atol=1e-6)
    decoder, z = MLPDecoder(12, hidden, (1, 2, 2), **kwargs), torch.randn(4, 12)
    found = decoder(z).detach().flatten(1).numpy()
    np.testing.assert_allclose(found, by_hand(decoder, z, slope), rtol=1e-5, atol=1e-6)
    for each in (network, decoder):
        assert [layer.out_features for layer in linear_layers(each)[:-1]] == hidden


@pytest.mark.parametrize("numbers", [1, 2, 256])
def test_a_decoder_returns_all_numbers_of_the_first_kind_and_then_those_of_the_second(numbers: int) -> None:
    decoder, z = MLPDecoder(3, [7], (3, 4, 6), numbers_per_output=numbers), torch.randn(2, 3)
    kinds = decoder(z).unflatten(1, (numbers, 3))
    torch.testing.assert_close(kinds[:, 0].flatten(1), decoder[0](z)[:, : 3 * 4 * 6])


def test_xavier_weights_fill_their_uniform_interval_and_biases_are_zero() -> None:
    torch.manual_seed(0)
    for network in (MLP(60, [40, 50], 20, "xavier"), MLPDecoder(60, [40, 50], (20,), initialization="xavier")):
        for layer in linear_layers(network):
            bound = math.sqrt(6 / (layer.in_features + layer.out_features))
            largest = layer.weight.abs().max().item()
            assert 0.99 * bound < largest <= bound
            # variance of the uniform distribution; its standard error over n draws is .894 of it / sqrt(n)
            n = layer.weight.numel()
            assert layer.weight.var().item() == pytest.approx(bound**2 / 3, rel=5 * 0.894 / math.sqrt(n))
            assert not layer.bias.any()


def test_torch_initialization_is_that_of_plain_layers() -> None:
    torch.manual_seed(0)
    network = MLP(6, [5], 4)
    torch.manual_seed(0)
    for layer, plain in zip(linear_layers(network), [nn.Linear(6, 5), nn.Linear(5, 4)], strict=True):
        assert torch.equal(layer.weight, plain.weight)
        assert torch.equal(layer.bias, plain.bias)
