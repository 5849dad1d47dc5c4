"""The residual networks: blocks, formulas and widths."""

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from lit_bottleneck.cli.recipes import recipe_paths
from lit_bottleneck.networks import ResNetEncoder, ResNetGenerator
from lit_bottleneck.networks.resnet import ResidualBlock


def blocks(network: nn.Module) -> list[ResidualBlock]:
    return [layer for layer in network if isinstance(layer, ResidualBlock)]


def block_by_hand(block: ResidualBlock, x: Tensor) -> Tensor:
    """Compute ``x + conv(act(conv(act(x)))) / 10`` from the weights."""
    weights = dict(block.named_parameters())
    y = F.conv2d(torch.where(x > 0, x, 0.2 * x), weights["first.weight"], weights["first.bias"], padding=1)
    y = F.conv2d(torch.where(y > 0, y, 0.2 * y), weights["second.weight"], weights["second.bias"], padding=1)
    if "shortcut.weight" in weights:
        x = torch.einsum("oc,bchw->bohw", weights["shortcut.weight"][:, :, 0, 0], x)
    return x + y / 10


# --- the block ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "out_channels"), [(3, 3), (2, 5), (5, 2), (1, 1)])
def test_a_block_is_its_formula(channels: int, out_channels: int) -> None:
    torch.manual_seed(0)
    block, x = ResidualBlock(channels, out_channels).double(), torch.randn(4, channels, 5, 7, dtype=torch.float64)
    assert block(x).shape == (4, out_channels, 5, 7)
    torch.testing.assert_close(block(x), block_by_hand(block, x))


@pytest.mark.parametrize(("channels", "out_channels"), [(3, 3), (2, 5), (5, 2)])
def test_a_block_has_its_smaller_width_inside(channels: int, out_channels: int) -> None:
    shapes = {name: tuple(weight.shape) for name, weight in ResidualBlock(channels, out_channels).named_parameters()}
    hidden = min(channels, out_channels)
    shortcut = {} if channels == out_channels else {"shortcut.weight": (out_channels, channels, 1, 1)}
    assert shapes == shortcut | {
        "first.weight": (hidden, channels, 3, 3),
        "first.bias": (hidden,),
        "second.weight": (out_channels, hidden, 3, 3),
        "second.bias": (out_channels,),
    }


def test_a_block_with_a_zero_last_layer_is_the_identity() -> None:
    block, x = ResidualBlock(3, 3), torch.randn(2, 3, 4, 4)
    nn.init.zeros_(block.second.weight)
    nn.init.zeros_(block.second.bias)
    assert torch.equal(block(x), x)


# --- the generator --------------------------------------------------------------------------------------------------


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


# --- the encoder ----------------------------------------------------------------------------------------------------


def encoder_by_hand(network: ResNetEncoder, x: Tensor, spatial: bool, last_activation: bool = True) -> Tensor:
    x = F.conv2d(x, network[0].weight, network[0].bias, padding=1)
    first, *halving = blocks(network)
    x = block_by_hand(first, x)
    for block in halving:
        channels = x.shape[1]  # mean of 3 x 3 pixels, every second one, with zeros around the image
        ninth = torch.full((channels, 1, 3, 3), 1 / 9, dtype=x.dtype)
        x = block_by_hand(block, F.conv2d(x, ninth, stride=2, padding=1, groups=channels))
    if last_activation:
        x = torch.where(x > 0, x, 0.2 * x)
    if spatial:
        moments = network[-1]
        return torch.einsum("oc,bchw->bohw", moments.weight[:, :, 0, 0], x) + moments.bias[:, None, None]
    moments = network[-1][1]
    return x.flatten(1) @ moments.weight.T + moments.bias


@pytest.mark.parametrize("spatial", [False, True])
@pytest.mark.parametrize("last_activation", [False, True])
def test_an_encoder_is_its_formula(spatial: bool, last_activation: bool) -> None:
    torch.manual_seed(0)
    chosen = {} if last_activation else {"last_activation": False}  # True is the default
    network = ResNetEncoder((3, 16, 32), 6, width=2, spatial=spatial, **chosen).double()
    x = torch.randn(4, 3, 16, 32, dtype=torch.float64)
    torch.testing.assert_close(network(x), encoder_by_hand(network, x, spatial, last_activation))


def test_the_recipe_with_the_authors_settings_has_their_encoder() -> None:
    """Theirs ends in a residual block and the convolution of the moments, with nothing between them."""
    recipe = yaml.safe_load(recipe_paths()["vdbgan_cifar10"].read_text())["model"]["init_args"]["encoder"]
    assert recipe["class_path"] == "lit_bottleneck.networks.ResNetEncoder"
    *_, block, moments = ResNetEncoder(**recipe["init_args"] | {"width": 2})
    assert isinstance(block, ResidualBlock)
    assert isinstance(moments, nn.Conv2d)


def test_the_default_keeps_the_names_of_the_weights() -> None:
    """Weights of before load: the moments stay where they were, after the activation."""
    names = ResNetEncoder((1, 8, 8), 4, width=2).state_dict()
    assert list(names)[-2:] == ["5.1.weight", "5.1.bias"]


@pytest.mark.parametrize(
    ("side", "widths"), [(8, [2, 4]), (28, [2, 4, 8]), (64, [2, 4, 8, 16, 32]), (256, [2, 4, 8, 16, 32, 32, 32])]
)
def test_an_encoder_doubles_its_width_to_at_most_sixteen_times_the_first(side: int, widths: list[int]) -> None:
    network = ResNetEncoder((1, side, side), 4, width=2)
    assert [block.second.out_channels for block in blocks(network)] == widths
    assert [block.first.in_channels for block in blocks(network)] == [2, *widths[:-1]]
