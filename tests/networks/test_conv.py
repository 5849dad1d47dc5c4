import pytest
import torch
from torch import nn

from lit_bottleneck.networks import ConvEncoder


@pytest.mark.parametrize(
    ("dims", "stages"), [((1, 8, 8), 1), ((1, 8, 8), 3), ((3, 12, 20), 2), ((2, 2, 2), 1), ((1, 28, 28), 2)]
)
def test_images_become_vectors(dims: tuple[int, int, int], stages: int) -> None:
    network = ConvEncoder(dims, out_features=10, width=4, stages=stages).eval()
    assert network(torch.randn(5, *dims)).shape == (5, 10)
    assert network.out_features == 10
    channels, height, width = 4 * 2 ** (stages - 1), dims[1] >> stages, dims[2] >> stages
    assert network.features(torch.randn(5, *dims)).shape == (5, channels * height * width)


def test_each_stage_is_two_convolutions_of_twice_the_width() -> None:
    network = ConvEncoder((3, 16, 16), out_features=10, width=4, stages=3)
    convolutions = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    assert [part.out_channels for part in convolutions] == [4, 4, 8, 8, 16, 16]
    assert [part.in_channels for part in convolutions] == [3, 4, 4, 8, 8, 16]
    assert {part.kernel_size for part in convolutions} == {(3, 3)}


def test_examples_do_not_see_one_another_in_evaluation() -> None:
    torch.manual_seed(0)
    network, x = ConvEncoder((1, 8, 8), out_features=6, width=4).eval(), torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(torch.cat([network(row[None]) for row in x]), network(x))


def test_gradients_reach_every_weight() -> None:
    torch.manual_seed(0)
    network = ConvEncoder((1, 8, 8), out_features=6, width=4)
    network(torch.randn(16, 1, 8, 8)).square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in network.parameters())


@pytest.mark.parametrize(("dims", "stages"), [((1, 9, 8), 1), ((1, 8, 6), 2), ((1, 28, 28), 3), ((1, 8, 8), 0)])
def test_images_that_cannot_be_halved_so_often_are_refused(dims: tuple[int, int, int], stages: int) -> None:
    with pytest.raises(ValueError, match=rf"stages={stages} needs images that can be halved .* got dims=\({dims[0]}"):
        ConvEncoder(dims, out_features=6, stages=stages)
