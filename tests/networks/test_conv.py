import pytest
import torch
from torch import nn

from lit_bottleneck.networks import ConvDecoder, ConvEncoder


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
@pytest.mark.parametrize("network", [ConvEncoder, ConvDecoder])
def test_images_that_cannot_be_halved_so_often_are_refused(
    network: type, dims: tuple[int, int, int], stages: int
) -> None:
    with pytest.raises(ValueError, match=rf"stages={stages} needs images .* dims=\({dims[0]}.* can be [0-3] times"):
        network(dims, 6, stages=stages)


@pytest.mark.parametrize("size", [8, 16, 28, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("numbers", [1, 2])
def test_codes_become_images_of_so_many_numbers(size: int, channels: int, numbers: int) -> None:
    network = ConvDecoder((channels, size, size), latent_dim=5, width=2, stages=2, numbers_per_output=numbers)
    assert network(torch.randn(3, 5)).shape == (3, numbers * channels, size, size)


def test_a_decoder_has_the_stages_of_the_encoder_backwards() -> None:
    encoder, decoder = ConvEncoder((3, 32, 16), 10, width=4, stages=3), ConvDecoder((3, 32, 16), 5, width=4, stages=3)
    down, up = ([part for part in network.modules() if isinstance(part, nn.Conv2d)] for network in (encoder, decoder))
    assert [part.in_channels for part in up] == [16, 16, 8, 8, 4, 4, 4]
    assert [part.out_channels for part in down] == [4, 4, 8, 8, 16, 16]
    assert decoder[1](decoder[0](torch.zeros(1, 5))).shape == (1, 16, 4, 2)


@pytest.mark.parametrize("latent_dim", [2, 8])
def test_every_pixel_depends_on_the_code_and_every_weight_has_a_gradient(latent_dim: int) -> None:
    torch.manual_seed(0)
    decoder = ConvDecoder((1, 16, 16), latent_dim, width=4, stages=2, numbers_per_output=2)
    outputs = decoder(torch.randn(8, latent_dim))
    assert (outputs.std(0) > 0).all()
    outputs.square().sum().backward()
    without = [name for name, weight in decoder.named_parameters() if not weight.grad.abs().sum() > 0]
    assert without == []


def test_encoder_and_decoder_learn_a_few_images_by_heart() -> None:
    torch.manual_seed(0)
    images = torch.rand(6, 1, 8, 8).round()
    network = nn.Sequential(
        ConvEncoder((1, 8, 8), 16, width=8, stages=1), ConvDecoder((1, 8, 8), 16, width=8, stages=1)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(network(images), images)
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    assert ((network(images) > 0) == (images > 0.5)).all()
