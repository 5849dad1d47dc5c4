"""The residual pair."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_bottleneck.networks import ResNetEncoder, ResNetGenerator
from lit_bottleneck.networks.images import halvings
from lit_bottleneck.networks.resnet import ResidualBlock

DIMS = [(1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 28, 28), (1, 32, 32), (3, 32, 32), (1, 64, 64), (3, 64, 64), (2, 8, 20)]


def blocks(network: nn.Module) -> list[ResidualBlock]:
    return [layer for layer in network if isinstance(layer, ResidualBlock)]


def block_by_hand(block: ResidualBlock, x: Tensor) -> Tensor:
    """``x + conv(act(conv(act(x)))) / 10``, from the weights alone."""
    weights = dict(block.named_parameters())
    y = F.conv2d(torch.where(x > 0, x, 0.2 * x), weights["first.weight"], weights["first.bias"], padding=1)
    y = F.conv2d(torch.where(y > 0, y, 0.2 * y), weights["second.weight"], weights["second.bias"], padding=1)
    if "shortcut.weight" in weights:
        x = torch.einsum("oc,bchw->bohw", weights["shortcut.weight"][:, :, 0, 0], x)
    return x + y / 10


def without_gradient(network: nn.Module) -> list[str]:
    return [
        name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.abs().sum() > 0
    ]


# --- the block ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "out_channels"), [(3, 3), (2, 5), (5, 2), (1, 1)])
def test_a_block_is_its_formula(channels: int, out_channels: int) -> None:
    torch.manual_seed(0)
    block, x = ResidualBlock(channels, out_channels).double(), torch.randn(4, channels, 5, 7, dtype=torch.float64)
    assert block(x).shape == (4, out_channels, 5, 7)
    torch.testing.assert_close(block(x), block_by_hand(block, x))


@pytest.mark.parametrize(("channels", "out_channels"), [(3, 3), (2, 5), (5, 2)])
def test_a_block_is_as_narrow_inside_as_at_its_narrower_end(channels: int, out_channels: int) -> None:
    shapes = {name: tuple(weight.shape) for name, weight in ResidualBlock(channels, out_channels).named_parameters()}
    hidden = min(channels, out_channels)
    shortcut = {} if channels == out_channels else {"shortcut.weight": (out_channels, channels, 1, 1)}
    assert shapes == shortcut | {
        "first.weight": (hidden, channels, 3, 3),
        "first.bias": (hidden,),
        "second.weight": (out_channels, hidden, 3, 3),
        "second.bias": (out_channels,),
    }


def test_a_block_without_change_passes_its_input_on() -> None:
    block, x = ResidualBlock(3, 3), torch.randn(2, 3, 4, 4)
    nn.init.zeros_(block.second.weight)
    nn.init.zeros_(block.second.bias)
    assert torch.equal(block(x), x)


# --- the generator --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", DIMS)
def test_noise_becomes_images_of_the_shape_and_range_that_the_generator_tells(dims: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    network = ResNetGenerator(5, list(dims), width=2)
    assert (network.noise_dim, network.dims, network.value_range) == (5, dims, (-1.0, 1.0))
    for scale in (1.0, 1e6):
        images = network(scale * torch.randn(3, network.noise_dim))
        assert images.shape == (3, *network.dims)
        assert network.value_range[0] <= images.min() <= images.max() <= network.value_range[1]
    assert images.min() < -0.999 < 0.999 < images.max()  # all of the range is within reach


def generator_by_hand(network: ResNetGenerator, noise: Tensor, shape: tuple[int, int, int]) -> Tensor:
    x = (noise @ network[0].weight.T + network[0].bias).unflatten(1, shape)
    *doubling, last = blocks(network)
    for block in doubling:
        x = block_by_hand(block, x).repeat_interleave(2, 2).repeat_interleave(2, 3)
    x = block_by_hand(last, x)
    [convolution] = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    return F.conv2d(torch.where(x > 0, x, 0.2 * x), convolution.weight, convolution.bias, padding=1).tanh()


def test_a_generator_is_its_formula() -> None:
    torch.manual_seed(0)
    network, noise = ResNetGenerator(5, (3, 16, 32), width=2).double(), torch.randn(4, 5, dtype=torch.float64)
    torch.testing.assert_close(network(noise), generator_by_hand(network, noise, (8, 4, 8)))


@pytest.mark.parametrize(
    ("side", "widths"), [(8, [4, 2]), (28, [8, 4, 2]), (64, [32, 16, 8, 4, 2]), (256, [32, 32, 32, 16, 8, 4, 2])]
)
def test_a_generator_halves_its_width_from_at_most_sixteen_times_the_last(side: int, widths: list[int]) -> None:
    network = ResNetGenerator(3, (1, side, side), width=2)
    assert [block.first.in_channels for block in blocks(network)] == widths
    assert [block.second.out_channels for block in blocks(network)] == [*widths[1:], 2]


def test_every_pixel_depends_on_the_noise_and_every_weight_has_a_gradient() -> None:
    torch.manual_seed(0)
    network = ResNetGenerator(5, (3, 28, 28), width=4)
    images = network(torch.randn(8, 5))
    assert (images.std(0) > 0).all()
    (images - 0.5).square().sum().backward()
    assert without_gradient(network) == []


def test_each_image_is_of_its_own_noise_in_training_too() -> None:
    torch.manual_seed(0)
    network, noise = ResNetGenerator(5, (1, 16, 16), width=4), torch.randn(4, 5)
    for mode in (True, False):
        torch.testing.assert_close(torch.cat([network.train(mode)(row[None]) for row in noise]), network(noise))


# --- the encoder ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("spatial", [False, True])
def test_images_become_the_moments_that_the_encoder_tells(dims: tuple[int, int, int], spatial: bool) -> None:
    network = ResNetEncoder(list(dims), 6, width=2, spatial=spatial)
    assert (network.dims, network.out_features) == (dims, 6)
    assert network(torch.randn(3, *dims)).shape == (3, *network.out_dims)
    stages = halvings(dims)
    assert network.out_dims == ((6, dims[1] >> stages, dims[2] >> stages) if spatial else (6,))


def encoder_by_hand(network: ResNetEncoder, x: Tensor, spatial: bool) -> Tensor:
    x = F.conv2d(x, network[0].weight, network[0].bias, padding=1)
    first, *halving = blocks(network)
    x = block_by_hand(first, x)
    for block in halving:
        channels = x.shape[1]  # mean of 3 x 3 pixels, every second one, with zeros around the image
        ninth = torch.full((channels, 1, 3, 3), 1 / 9, dtype=x.dtype)
        x = block_by_hand(block, F.conv2d(x, ninth, stride=2, padding=1, groups=channels))
    x = torch.where(x > 0, x, 0.2 * x)
    if spatial:
        moments = network[-1]
        return torch.einsum("oc,bchw->bohw", moments.weight[:, :, 0, 0], x) + moments.bias[:, None, None]
    moments = network[-1][1]
    return x.flatten(1) @ moments.weight.T + moments.bias


@pytest.mark.parametrize("spatial", [False, True])
def test_an_encoder_is_its_formula(spatial: bool) -> None:
    torch.manual_seed(0)
    network = ResNetEncoder((3, 16, 32), 6, width=2, spatial=spatial).double()
    x = torch.randn(4, 3, 16, 32, dtype=torch.float64)
    torch.testing.assert_close(network(x), encoder_by_hand(network, x, spatial))


@pytest.mark.parametrize(
    ("side", "widths"), [(8, [2, 4]), (28, [2, 4, 8]), (64, [2, 4, 8, 16, 32]), (256, [2, 4, 8, 16, 32, 32, 32])]
)
def test_an_encoder_doubles_its_width_to_at_most_sixteen_times_the_first(side: int, widths: list[int]) -> None:
    network = ResNetEncoder((1, side, side), 4, width=2)
    assert [block.second.out_channels for block in blocks(network)] == widths
    assert [block.first.in_channels for block in blocks(network)] == [2, *widths[:-1]]


@pytest.mark.parametrize("spatial", [False, True])
def test_examples_do_not_see_one_another_in_training_either(spatial: bool) -> None:
    torch.manual_seed(0)
    network = ResNetEncoder((1, 16, 16), 6, width=4, spatial=spatial)
    x = torch.randn(4, 1, 16, 16, requires_grad=True)
    for mode in (True, False):
        together = network.train(mode)(x)
        torch.testing.assert_close(torch.cat([network(row[None]) for row in x]), together)
        [gradient] = torch.autograd.grad(together[1].square().sum(), x)
        assert gradient[1].any()
        assert not gradient[[0, 2, 3]].any()


@pytest.mark.parametrize("spatial", [False, True])
def test_gradients_reach_every_weight_of_an_encoder(spatial: bool) -> None:
    torch.manual_seed(0)
    network = ResNetEncoder((3, 32, 32), 6, width=4, spatial=spatial)
    (network(torch.randn(8, 3, 32, 32)) - 1).square().sum().backward()
    assert without_gradient(network) == []


@pytest.mark.parametrize("spatial", [False, True])
def test_the_gradient_of_an_input_gradient_is_that_of_finite_differences(spatial: bool) -> None:
    torch.manual_seed(0)
    network = ResNetEncoder((1, 16, 16), 4, width=2, spatial=spatial).double()
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


@pytest.mark.parametrize("dims", [(1, 7, 7), (3, 6, 6), (1, 9, 8), (1, 8, 9), (3, 4, 32)])
def test_images_that_cannot_be_halved_are_refused_by_both_networks(dims: tuple[int, int, int]) -> None:
    for make in (lambda: ResNetGenerator(4, dims, width=2), lambda: ResNetEncoder(dims, 4, width=2)):
        with pytest.raises(ValueError, match=rf"even and at least 8 .* got dims=\({dims[0]}, {dims[1]}, {dims[2]}\)"):
            make()
