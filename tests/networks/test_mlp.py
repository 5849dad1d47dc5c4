import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from lit_bottleneck.networks import MLP, MLPDecoder


def linear_layers(network: nn.Module) -> list[nn.Linear]:
    return [layer for layer in network if isinstance(layer, nn.Linear)]


def by_hand(network: MLP, x: torch.Tensor, slope: float = 0.0) -> np.ndarray:
    """The same map in numpy: matrix products, and in between the positive part (and ``slope`` times the negative)."""
    values = x.double().numpy().reshape(len(x), -1)
    layers = linear_layers(network)
    for layer in layers:
        values = values @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
        if layer is not layers[-1]:
            values = np.maximum(values, 0) + slope * np.minimum(values, 0)
    return values


@pytest.mark.parametrize("hidden", [[], [7], [7, 5, 9]])
@pytest.mark.parametrize("shape", [(12,), (3, 4), (3, 2, 2)])
def test_it_is_matrix_products_with_relu_in_between(hidden: list[int], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network, x = MLP(12, hidden, 6), torch.randn(4, *shape)
    y = network(x)
    assert y.shape == (4, 6)
    np.testing.assert_allclose(y.detach().numpy(), by_hand(network, x), rtol=1e-5, atol=1e-6)
    assert [layer.out_features for layer in linear_layers(network)] == [*hidden, 6]


def test_without_hidden_layers_it_is_affine() -> None:
    torch.manual_seed(0)
    network = MLP(5, [], 3).double()
    x1, x2 = torch.randn(2, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(network(0.3 * x1 + 0.7 * x2), 0.3 * network(x1) + 0.7 * network(x2))
    assert sum(weight.numel() for weight in network.parameters()) == 5 * 3 + 3


def test_it_tells_its_widths() -> None:
    network = MLP(12, (7, 5), 6)
    assert (network.in_features, network.out_features) == (12, 6)


def test_xavier_weights_fill_their_uniform_interval_and_biases_are_zero() -> None:
    torch.manual_seed(0)
    for layer in linear_layers(MLP(60, [40, 50], 20, initialization="xavier")):
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


def test_an_unknown_initialization_is_named() -> None:
    with pytest.raises(ValueError, match="initialization must be 'torch' or 'xavier'; got 'glorot'"):
        MLP(6, [5], 4, initialization="glorot")  # type: ignore[arg-type]


@pytest.mark.parametrize("dims", [(5,), (1, 8, 8), (3, 4, 6)])
@pytest.mark.parametrize("numbers", [1, 2, 256])
def test_a_decoder_has_the_shape_of_the_data(dims: tuple[int, ...], numbers: int) -> None:
    decoder = MLPDecoder(3, [7], dims, numbers_per_output=numbers)
    z = torch.randn(2, 3)
    outputs = decoder(z)
    assert outputs.shape == (2, numbers * dims[0], *dims[1:])
    torch.testing.assert_close(outputs.flatten(1), decoder[0](z))
    kinds = outputs.unflatten(1, (numbers, dims[0]))  # all numbers of the first kind, then of the second
    torch.testing.assert_close(kinds[:, 0].flatten(1), decoder[0](z)[:, : kinds[0, 0].numel()])


def test_a_decoder_has_the_initialization_of_its_layers() -> None:
    decoder = MLPDecoder(3, [7], (1, 2, 2), initialization="xavier")
    assert all((layer.bias == 0).all() for layer in decoder.modules() if isinstance(layer, nn.Linear))


@pytest.mark.parametrize(("activation", "slope"), [("relu", 0.0), ("leaky_relu", 0.2)])
@pytest.mark.parametrize("hidden", [[], [7], [7, 5, 9]])
def test_the_activation_is_the_positive_part_with_or_without_a_fifth_of_the_negative(
    hidden: list[int], activation: str, slope: float
) -> None:
    torch.manual_seed(0)
    network, x = MLP(12, hidden, 6, activation=activation), torch.randn(4, 12)  # type: ignore[arg-type]
    np.testing.assert_allclose(network(x).detach().numpy(), by_hand(network, x, slope), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("activation", "slope"), [("relu", 0.0), ("leaky_relu", 0.2)])
def test_a_decoder_has_the_activation_of_its_layers(activation: str, slope: float) -> None:
    torch.manual_seed(0)
    decoder, z = MLPDecoder(3, [7, 8], (1, 2, 2), activation=activation), torch.randn(4, 3)  # type: ignore[arg-type]
    expected = by_hand(decoder[0], z, slope)
    np.testing.assert_allclose(decoder(z).detach().flatten(1).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_default_activation_is_relu_and_the_other_has_the_same_weights() -> None:
    x = torch.randn(4, 12)
    networks = []
    for kwargs in ({}, {"activation": "relu"}, {"activation": "leaky_relu"}):
        torch.manual_seed(0)
        networks.append(MLP(12, [7], 6, **kwargs))  # type: ignore[arg-type]
    assert torch.equal(networks[0](x), networks[1](x))
    assert not torch.allclose(networks[0](x), networks[2](x))
    networks[2].load_state_dict(networks[0].state_dict())


@pytest.mark.parametrize("make", [lambda **k: MLP(6, [5], 4, **k), lambda **k: MLPDecoder(6, [5], (1, 2, 2), **k)])
def test_an_unknown_activation_is_named(make: Callable[..., nn.Module]) -> None:
    with pytest.raises(ValueError, match="activation must be one of 'relu', 'leaky_relu'; got 'tanh'"):
        make(activation="tanh")
