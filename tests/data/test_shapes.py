"""Drawn shapes: pixels, factors, and their correspondence."""

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from lit_bottleneck.data import Shapes
from lit_bottleneck.data.shapes import draw_shapes


def shapes(**kwargs: object) -> Shapes:
    return Shapes(**{"image_size": 32, "num_examples": 300, "test_size": 50, "batch_size": 40} | kwargs)


def rows(data: Shapes, part: str) -> tuple[Tensor, Tensor]:
    dataset = data.dataset(part)
    return dataset.__getitems__(list(range(len(dataset))))


def factors(shape: int = 0, scale: float = 1.0, rotation: float = 0.0, x: float = 0.5, y: float = 0.5) -> Tensor:
    return torch.tensor([[shape, scale, rotation, x, y]])


def pixels(**kwargs: float) -> Tensor:
    return draw_shapes(factors(**kwargs), 64)[0, 0].double()


def centre(image: Tensor) -> tuple[float, float]:
    """The centre of mass: columns from the left and rows from the top."""
    places = torch.arange(64, dtype=torch.float64)
    return (image.sum(0) @ places / image.sum()).item(), (image.sum(1) @ places / image.sum()).item()


def test_images_are_binary_and_factors_on_their_grid() -> None:
    data = shapes()
    assert data.dims == (1, 32, 32)
    for part, count in (("train", 270), ("val", 30), ("test", 50)):
        images, values = rows(data, part)
        assert (images.shape, images.dtype) == ((count, 1, 32, 32), torch.float32)
        assert (values.shape, values.dtype) == ((count, 5), torch.float32)
        assert set(images.unique().tolist()) == {0, 1}
        for column, grid in zip(values.unbind(1), data.factor_values, strict=True):
            assert torch.isin(column, grid).all()
        indices = data.factor_indices(values)
        taken = torch.stack([grid[index] for grid, index in zip(data.factor_values, indices.unbind(1), strict=True)], 1)
        assert torch.equal(taken, values)
    assert tuple(map(len, data.factor_values)) == data.factor_sizes


def test_images_are_drawn_from_their_factors() -> None:
    images, values = rows(shapes(), "test")
    assert torch.equal(images, draw_shapes(values, 32).float())
    loaded, beside = next(iter(shapes().train_dataloader()))
    assert torch.equal(loaded, draw_shapes(beside, 32).float())


def test_no_combination_is_in_two_parts() -> None:
    data = shapes(num_examples=2000, test_size=500)
    together = torch.cat([rows(data, part)[1] for part in ("train", "val", "test")])
    assert len(together.unique(dim=0)) == 2500


@pytest.mark.parametrize("shape", [0, 1, 2])
def test_x_and_y_move_the_shape(shape: int) -> None:
    left, right = pixels(shape=shape, x=0.0), pixels(shape=shape, x=1.0)
    assert centre(right)[0] - centre(left)[0] == pytest.approx((1 - 2 * 0.28) * 64, abs=0.5)
    assert centre(right)[1] == pytest.approx(centre(left)[1], abs=0.2)
    top, bottom = pixels(shape=shape, y=0.0), pixels(shape=shape, y=1.0)
    assert centre(bottom)[1] - centre(top)[1] == pytest.approx((1 - 2 * 0.28) * 64, abs=0.5)


@pytest.mark.parametrize("shape", [0, 1, 2])
def test_the_area_grows_with_the_square_of_the_scale(shape: int) -> None:
    for rotation in (0.0, 0.7):
        small, large = (pixels(shape=shape, scale=scale, rotation=rotation).sum() for scale in (0.5, 1.0))
        assert (large / small).item() == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("shape", [0, 1, 2])
def test_rotation_by_a_quarter_turn_rotates_the_image(shape: int) -> None:
    for angle in (0.0, 0.3):
        turned = pixels(shape=shape, rotation=angle + math.pi / 2)
        difference = (turned - pixels(shape=shape, rotation=angle).rot90()).abs().sum()
        assert difference < 0.02 * turned.sum()


@pytest.mark.parametrize("shape", [0, 1, 2])
def test_all_angles_give_different_images(shape: int) -> None:
    angles = torch.arange(24) * (2 * math.pi / 24)
    images = torch.stack([pixels(shape=shape, rotation=angle) for angle in angles]).flatten(1)
    apart = torch.cdist(images, images, p=1) + 1e9 * torch.eye(24)
    assert apart.min() > 30  # pixels


def test_every_shape_is_wholly_inside() -> None:
    """In the corners it has as many pixels as in the middle, up to discretisation."""
    grid = itertools.product(range(3), [1.0], (torch.arange(24) * (2 * math.pi / 24)).tolist(), (0, 1), (0, 1))
    corners = torch.tensor(list(grid), dtype=torch.float32)
    central = corners.clone()
    central[:, 3:] = 0.5
    areas, central_areas = (draw_shapes(values, 64).flatten(1).sum(1).double() for values in (corners, central))
    assert ((areas - central_areas).abs() / central_areas).max() < 0.06
    framed = draw_shapes(central, 64)[:, 0]
    assert not framed[:, :13].any()
    assert not framed[:, :, :13].any()


def test_a_triangle_equals_the_polygon_that_pillow_draws() -> None:
    """Compared with an independent drawing, sixteen times as large and averaged."""
    angle, scale, x, y = 0.7, 0.9, 0.3, 0.6
    radius = 0.28 * scale
    middle = (0.28 + 0.44 * x, 0.28 + 0.44 * y)
    corners = []
    for u, v in ((0, 1), (0.6, -0.8), (-0.6, -0.8)):
        right, up = u * math.cos(angle) - v * math.sin(angle), u * math.sin(angle) + v * math.cos(angle)
        corners.append((1024 * (middle[0] + radius * right), 1024 * (middle[1] - radius * up)))
    canvas = Image.new("L", (1024, 1024))
    ImageDraw.Draw(canvas).polygon(corners, fill=1)
    drawn = np.asarray(canvas).reshape(64, 16, 64, 16).mean((1, 3)) > 0.5
    ours = pixels(shape=0, scale=scale, rotation=angle, x=x, y=y).bool().numpy()
    assert (drawn != ours).sum() <= 6
    assert ours.sum() > 200
