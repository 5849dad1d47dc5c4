"""The convolutional encoder and its mirror-image decoder."""

import pytest
import torch
from torch import nn

from lit_bottleneck.networks import ConvDecoder, ConvEncoder


def test_each_stage_is_two_convolutions_of_twice_the_width() -> None:
    network = ConvEncoder((3, 16, 16), out_features=10, width=4, stages=3)
    convolutions = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    assert [part.out_channels for part in convolutions] == [4, 4, 8, 8, 16, 16]
    assert [part.in_channels for part in convolutions] == [3, 4, 4, 8, 8, 16]
    assert {part.kernel_size for part in convolutions} == {(3, 3)}


@pytest.mark.parametrize(("dims", "stages"), [((1, 9, 8), 1), ((1, 8, 6), 2), ((1, 28, 28), 3), ((1, 8, 8), 0)])
@pytest.mark.parametrize("network", [ConvEncoder, ConvDecoder])
def test_images_that_cannot_be_halved_so_often_are_refused(
    network: type, dims: tuple[int, int, int], stages: int
) -> None:
    with pytest.raises(ValueError, match=rf"stages must be .* at most [0-3], .* dims=\({dims[0]}.*; got {stages}"):
        network(dims, 6, stages=stages)


def test_a_decoder_has_the_stages_of_the_encoder_in_reverse() -> None:
    encoder, decoder = ConvEncoder((3, 32, 16), 10, width=4, stages=3), ConvDecoder((3, 32, 16), 5, width=4, stages=3)
    down, up = ([part for part in network.modules() if isinstance(part, nn.Conv2d)] for network in (encoder, decoder))
    assert [part.in_channels for part in up] == [16, 16, 8, 8, 4, 4, 4]
    assert [part.out_channels for part in down] == [4, 4, 8, 8, 16, 16]
    assert decoder[1](decoder[0](torch.zeros(1, 5))).shape == (1, 16, 4, 2)
