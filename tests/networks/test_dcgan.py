"""The DCGAN networks: layers, formulas and initial weights."""

import pytest
import torch
from torch import Tensor, nn

from lit_bottleneck.networks import DCGANEncoder, DCGANGenerator


def convolutions(network: nn.Module) -> list[nn.Conv2d | nn.ConvTranspose2d]:
    return [layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))]


# --- the generator --------------------------------------------------------------------------------------------------


def test_a_generator_reaches_the_whole_value_range() -> None:
    torch.manual_seed(0)
    network = DCGANGenerator(5, (1, 8, 8), width=4)
    with torch.no_grad():
        network[-2].weight.mul_(1e4)
        images = network(torch.randn(16, 5))
    assert images.min() < -0.999
    assert images.max() > 0.999


def test_a_generator_doubles_the_image_and_halves_the_width_up_to_the_last_layer() -> None:
    network, x = DCGANGenerator(5, (3, 64, 32), width=2), torch.randn(2, 5)
    up = convolutions(network)
    assert [(layer.in_channels, layer.out_channels) for layer in up] == [(8, 4), (4, 2), (2, 3)]
    assert {(layer.kernel_size, layer.stride, layer.padding) for layer in up} == {((4, 4), (2, 2), (1, 1))}
    shapes = []
    for layer in network:
        x = layer(x)
        if isinstance(layer, (nn.Unflatten, nn.ConvTranspose2d)):
            shapes.append(tuple(x.shape[1:]))
    assert shapes == [(8, 8, 4), (4, 16, 8), (2, 32, 16), (3, 64, 32)]


def test_every_layer_of_a_generator_but_the_last_is_normalised_and_has_no_bias() -> None:
    layers = list(DCGANGenerator(5, (1, 32, 32), width=2))
    assert [type(layer).__name__ for layer in layers] == [
        *["Linear", "Unflatten", "BatchNorm2d", "ReLU"],
        *["ConvTranspose2d", "BatchNorm2d", "ReLU"] * 2,
        *["ConvTranspose2d", "Tanh"],
    ]
    weighted = [layer for layer in layers if isinstance(layer, (nn.Linear, nn.ConvTranspose2d))]
    assert [layer.bias is None for layer in weighted] == [True, True, True, False]


# --- the encoder ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", ["none", "batch", "group"])
def test_an_encoder_halves_the_image_and_doubles_the_width(normalization: str) -> None:
    network, x = DCGANEncoder((3, 64, 32), 6, width=2, normalization=normalization), torch.randn(2, 3, 64, 32)  # type: ignore[arg-type]
    down = convolutions(network)
    assert [(layer.in_channels, layer.out_channels) for layer in down] == [(3, 2), (2, 4), (4, 8)]
    assert {(layer.kernel_size, layer.stride, layer.padding) for layer in down} == {((4, 4), (2, 2), (1, 1))}
    shapes = []
    for layer in network:
        x = layer(x)
        if isinstance(layer, nn.Conv2d):
            shapes.append(tuple(x.shape[1:]))
    assert shapes == [(2, 32, 16), (4, 16, 8), (8, 8, 4)]
    assert [layer.bias is None for layer in down] == [False, *[normalization != "none"] * 2]


def test_a_spatial_code_depends_on_nearby_pixels_only() -> None:
    """Three layers of kernel 4 and stride 2 see 22 pixels: position 0 of 8 does not see the right half of 64."""
    torch.manual_seed(0)
    network = DCGANEncoder((1, 32, 64), 4, width=2, spatial=True)
    x = torch.randn(1, 1, 32, 64, requires_grad=True)
    codes = network(x)
    assert codes.shape == (1, 4, 4, 8)
    [gradient] = torch.autograd.grad(codes[:, :, :, 0].square().sum(), x)
    assert gradient[..., :15].abs().sum() > 0
    assert not gradient[..., 15:].any()


def by_hand(network: DCGANEncoder, x: Tensor, normalization: str) -> Tensor:
    F = nn.functional
    down = convolutions(network)
    norms = [layer for layer in network if isinstance(layer, (nn.BatchNorm2d, nn.GroupNorm))]
    for number, layer in enumerate(down):
        x = F.conv2d(x, layer.weight, layer.bias, stride=2, padding=1)
        if number and normalization != "none":
            over = (0, 2, 3) if normalization == "batch" else (1, 2, 3)
            variance, mean = torch.var_mean(x, over, correction=0, keepdim=True)
            norm = norms[number - 1]
            scale, shift = norm.weight[:, None, None], norm.bias[:, None, None]
            x = (x - mean) / (variance + norm.eps).sqrt() * scale + shift
        x = torch.where(x > 0, x, 0.2 * x)
    return x.flatten(1) @ network[-1][1].weight.T + network[-1][1].bias


@pytest.mark.parametrize("normalization", ["none", "batch", "group"])
def test_an_encoder_is_its_formula(normalization: str) -> None:
    torch.manual_seed(0)
    network = DCGANEncoder((3, 16, 32), 6, width=3, normalization=normalization).double()  # type: ignore[arg-type]
    for weight in network.parameters():  # scales other than 1 and shifts other than 0
        nn.init.normal_(weight, mean=0.2, std=0.5)
    x = torch.randn(5, 3, 16, 32, dtype=torch.float64)
    torch.testing.assert_close(network(x), by_hand(network, x, normalization))


# --- initial weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "network",
    [
        lambda: DCGANGenerator(50, (3, 32, 32), width=16),
        lambda: DCGANEncoder((3, 32, 32), 20, width=16, normalization="batch"),
        lambda: DCGANEncoder((3, 32, 32), 20, width=16, normalization="batch", spatial=True),
    ],
)
def test_initial_weights_before_batch_normalisation_are_normal_with_a_standard_deviation_of_002(
    network: object,
) -> None:
    torch.manual_seed(0)
    for layer in network().modules():  # type: ignore[operator]
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            n = layer.weight.numel()
            assert layer.weight.std().item() == pytest.approx(0.02, rel=5 / (2 * n) ** 0.5)  # five standard errors
            assert abs(layer.weight.mean()) < 5 * 0.02 / n**0.5
            assert layer.weight.abs().max() > 2.2 * 0.02  # no uniform distribution reaches so far
            assert layer.bias is None or not layer.bias.any()
        if isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all()
            assert not layer.bias.any()


@pytest.mark.parametrize("normalization", ["none", "group"])
def test_initial_weights_without_batch_normalisation_are_those_of_torch(normalization: str) -> None:
    torch.manual_seed(0)
    network = DCGANEncoder((1, 8, 16), 6, width=4, normalization=normalization)  # type: ignore[arg-type]
    torch.manual_seed(0)
    for layer, plain in [(network[0], nn.Conv2d(1, 4, 4, 2, 1)), (network[-1][1], nn.Linear(4 * 4 * 8, 6))]:
        assert torch.equal(layer.weight, plain.weight)
        assert torch.equal(layer.bias, plain.bias)
