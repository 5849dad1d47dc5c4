"""The DCGAN pair, and how often the networks of this kind halve an image."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lit_bottleneck.networks import DCGANEncoder, DCGANGenerator
from lit_bottleneck.networks.images import halvings, moments_layer

DIMS = [(1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 28, 28), (1, 32, 32), (3, 32, 32), (1, 64, 64), (3, 64, 64), (2, 8, 20)]


def convolutions(network: nn.Module) -> list[nn.Conv2d | nn.ConvTranspose2d]:
    return [layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))]


def without_gradient(network: nn.Module) -> list[str]:
    return [
        name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.abs().sum() > 0
    ]


# --- halving --------------------------------------------------------------------------------------------------------


@given(st.integers(4, 7), st.integers(4, 7), st.integers(1, 6), st.integers(0, 3))
def test_a_side_is_halved_down_to_between_four_and_seven(height: int, width: int, count: int, longer: int) -> None:
    assert halvings((3, height << count, width << (count + longer))) == count
    assert halvings((3, width << (count + longer), height << count)) == count


@given(st.integers(1, 200), st.integers(1, 200))
def test_what_is_halved_is_whole_at_least_four_and_cannot_be_halved_again(height: int, width: int) -> None:
    if height % 2 or width % 2 or min(height, width) < 8:
        with pytest.raises(ValueError, match=rf"even and at least 8 .* got dims=\(1, {height}, {width}\)"):
            halvings((1, height, width))
        return
    count = halvings((1, height, width))
    assert height % 2**count == width % 2**count == 0
    assert count >= 1
    small = [side >> count for side in (height, width)]
    assert min(small) >= 4
    assert min(small) < 8 or any(side % 2 for side in small)


@pytest.mark.parametrize("dims", [(1, 7, 7), (3, 6, 6), (1, 9, 8), (1, 8, 9), (3, 4, 32)])
def test_images_that_cannot_be_halved_are_refused_by_both_networks(dims: tuple[int, int, int]) -> None:
    for make in (lambda: DCGANGenerator(4, dims, width=2), lambda: DCGANEncoder(dims, 4, width=2)):
        with pytest.raises(
            ValueError, match=rf"such as 8, 28, 32 or 64.* got dims=\({dims[0]}, {dims[1]}, {dims[2]}\)"
        ):
            make()


def test_moments_of_positions_are_the_same_affine_map_of_each() -> None:
    torch.manual_seed(0)
    layer, x = moments_layer(3, 2, 5, 4, spatial=True), torch.randn(2, 3, 2, 5)
    weight, bias = layer.weight[:, :, 0, 0], layer.bias
    torch.testing.assert_close(layer(x), torch.einsum("oc,bchw->bohw", weight, x) + bias[:, None, None])


def test_moments_of_an_image_are_an_affine_map_of_all_of_it() -> None:
    torch.manual_seed(0)
    layer, x = moments_layer(3, 2, 5, 4, spatial=False), torch.randn(2, 3, 2, 5)
    torch.testing.assert_close(layer(x), x.flatten(1) @ layer[1].weight.T + layer[1].bias)


# --- the generator --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", DIMS)
def test_noise_becomes_images_of_the_shape_and_range_that_the_generator_tells(dims: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    network = DCGANGenerator(5, list(dims), width=2)
    assert (network.noise_dim, network.dims, network.value_range) == (5, dims, (-1.0, 1.0))
    for scale in (1.0, 1e6):
        images = network(scale * torch.randn(3, network.noise_dim))
        assert images.shape == (3, *network.dims)
        assert network.value_range[0] <= images.min() <= images.max() <= network.value_range[1]


def test_the_whole_range_is_within_reach() -> None:
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


def test_every_layer_of_a_generator_but_the_last_is_normalised_and_has_no_bias_of_its_own() -> None:
    layers = list(DCGANGenerator(5, (1, 32, 32), width=2))
    kinds = [type(layer).__name__ for layer in layers]
    assert kinds == [
        *["Linear", "Unflatten", "BatchNorm2d", "ReLU"],
        *["ConvTranspose2d", "BatchNorm2d", "ReLU"] * 2,
        *["ConvTranspose2d", "Tanh"],
    ]
    assert [
        layer.bias is None for layer in layers if hasattr(layer, "bias") and "Batch" not in type(layer).__name__
    ] == [
        *[True] * 3,
        False,
    ]


def test_every_pixel_depends_on_the_noise_and_every_weight_has_a_gradient() -> None:
    torch.manual_seed(0)
    network = DCGANGenerator(5, (3, 28, 28), width=4)
    images = network(torch.randn(8, 5))
    assert (images.std(0) > 0).all()
    (images - 0.5).square().sum().backward()
    assert without_gradient(network) == []


def test_a_generator_in_evaluation_makes_each_image_of_its_own_noise() -> None:
    torch.manual_seed(0)
    network, noise = DCGANGenerator(5, (1, 8, 8), width=4), torch.randn(6, 5)
    network(noise)
    network.eval()
    torch.testing.assert_close(torch.cat([network(row[None]) for row in noise]), network(noise))


# --- the encoder ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("spatial", [False, True])
def test_images_become_the_moments_that_the_encoder_tells(dims: tuple[int, int, int], spatial: bool) -> None:
    network = DCGANEncoder(list(dims), 6, width=2, spatial=spatial)
    assert (network.dims, network.out_features) == (dims, 6)
    assert network(torch.randn(3, *dims)).shape == (3, *network.out_dims)
    stages = halvings(dims)
    assert network.out_dims == ((6, dims[1] >> stages, dims[2] >> stages) if spatial else (6,))


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


def test_a_spatial_code_of_a_position_depends_on_what_is_near_it_alone() -> None:
    """Three layers of kernel 4 and stride 2 look at 22 pixels: position 0 of 8 does not see the right half of 64."""
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


@pytest.mark.parametrize("normalization", ["none", "group"])
@pytest.mark.parametrize("spatial", [False, True])
def test_examples_do_not_see_one_another_without_batch_normalisation_in_training_either(
    normalization: str, spatial: bool
) -> None:
    torch.manual_seed(0)
    network = DCGANEncoder((1, 16, 16), 6, width=4, normalization=normalization, spatial=spatial)  # type: ignore[arg-type]
    x = torch.randn(4, 1, 16, 16, requires_grad=True)
    for mode in (True, False):
        together = network.train(mode)(x)
        torch.testing.assert_close(torch.cat([network(row[None]) for row in x]), together)
        [gradient] = torch.autograd.grad(together[1].square().sum(), x)
        assert gradient[1].any()
        assert not gradient[[0, 2, 3]].any()


def test_with_batch_normalisation_they_see_one_another_in_training_alone() -> None:
    torch.manual_seed(0)
    network, x = DCGANEncoder((1, 16, 16), 6, width=4, normalization="batch"), torch.randn(4, 1, 16, 16)
    together = network(x)
    assert not torch.allclose(torch.cat([network(row[None]) for row in x]), together, atol=1e-3)
    network.eval()
    torch.testing.assert_close(torch.cat([network(row[None]) for row in x]), network(x))


@pytest.mark.parametrize("normalization", ["none", "batch", "group"])
@pytest.mark.parametrize("spatial", [False, True])
def test_gradients_reach_every_weight_of_an_encoder(normalization: str, spatial: bool) -> None:
    torch.manual_seed(0)
    network = DCGANEncoder((3, 32, 32), 6, width=4, normalization=normalization, spatial=spatial)  # type: ignore[arg-type]
    (network(torch.randn(8, 3, 32, 32)) - 1).square().sum().backward()
    assert without_gradient(network) == []


@pytest.mark.parametrize("normalization", ["none", "group"])
@pytest.mark.parametrize("spatial", [False, True])
def test_the_gradient_of_an_input_gradient_is_that_of_finite_differences(normalization: str, spatial: bool) -> None:
    torch.manual_seed(0)
    network = DCGANEncoder((1, 16, 16), 4, width=2, normalization=normalization, spatial=spatial).double()  # type: ignore[arg-type]
    x = torch.randn(3, 1, 16, 16, dtype=torch.float64, requires_grad=True)

    def penalty() -> Tensor:
        [gradient] = torch.autograd.grad(network(x).square().sum(), x, create_graph=True)
        return gradient.square().sum()

    weights = list(network.parameters())
    gradients = torch.autograd.grad(penalty(), weights)
    assert all(gradient.any() for gradient in gradients)
    directions = [torch.randn_like(weight) / weight.numel() ** 0.5 for weight in weights]
    slope = sum((gradient * way).sum() for gradient, way in zip(gradients, directions, strict=True))
    values = []
    for step in (1e-6, -2e-6):
        for weight, way in zip(weights, directions, strict=True):
            weight.data.add_(way, alpha=step)
        values.append(penalty().item())
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(float(slope), rel=1e-4)


# --- initial weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "network",
    [
        lambda: DCGANGenerator(50, (3, 32, 32), width=16),
        lambda: DCGANEncoder((3, 32, 32), 20, width=16, normalization="batch"),
        lambda: DCGANEncoder((3, 32, 32), 20, width=16, normalization="batch", spatial=True),
    ],
)
def test_with_batch_normalisation_weights_begin_normal_with_a_deviation_of_one_fiftieth(network: object) -> None:
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
def test_without_it_they_are_those_of_plain_layers(normalization: str) -> None:
    torch.manual_seed(0)
    network = DCGANEncoder((1, 8, 16), 6, width=4, normalization=normalization)  # type: ignore[arg-type]
    torch.manual_seed(0)
    for layer, plain in [(network[0], nn.Conv2d(1, 4, 4, 2, 1)), (network[-1][1], nn.Linear(4 * 4 * 8, 6))]:
        assert torch.equal(layer.weight, plain.weight)
        assert torch.equal(layer.bias, plain.bias)


def test_an_unknown_normalisation_is_named() -> None:
    with pytest.raises(ValueError, match="normalization must be one of 'none', 'batch', 'group'; got 'layer'"):
        DCGANEncoder((1, 8, 8), 4, normalization="layer")  # type: ignore[arg-type]
