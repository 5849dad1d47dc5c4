"""How often an image is halved, and the layer of moments."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_bottleneck.networks.layers import halvings, moments_layer


@given(st.integers(4, 7), st.integers(4, 7), st.integers(1, 6), st.integers(0, 3))
def test_a_side_is_halved_until_four_to_seven_pixels_are_left(height: int, width: int, count: int, longer: int) -> None:
    assert halvings((3, height << count, width << (count + longer))) == (count, height, width << longer)
    assert halvings((3, width << (count + longer), height << count)) == (count, width << longer, height)


@given(st.integers(1, 200), st.integers(1, 200))
def test_halved_sides_are_whole_at_least_four_and_cannot_be_halved_again(height: int, width: int) -> None:
    if height % 2 or width % 2 or min(height, width) < 8:
        with pytest.raises(ValueError, match=rf"even and at least 8; got \(1, {height}, {width}\)"):
            halvings((1, height, width))
        return
    count, *small = halvings((1, height, width))
    assert count >= 1
    assert [side << count for side in small] == [height, width]
    assert min(small) >= 4
    assert min(small) < 8 or any(side % 2 for side in small)


def test_moments_are_an_affine_map_of_each_position_or_of_the_whole_image() -> None:
    torch.manual_seed(0)
    layer, x = moments_layer(3, 2, 5, 4, spatial=True), torch.randn(2, 3, 2, 5)
    weight, bias = layer.weight[:, :, 0, 0], layer.bias
    torch.testing.assert_close(layer(x), torch.einsum("oc,bchw->bohw", weight, x) + bias[:, None, None])
    layer = moments_layer(3, 2, 5, 4, spatial=False)
    torch.testing.assert_close(layer(x), x.flatten(1) @ layer[1].weight.T + layer[1].bias)
