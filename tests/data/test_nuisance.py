"""Nuisances: compared with torch and scipy; factors compared with what the images show."""

import functools
import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from torchvision.transforms import v2

from lit_bottleneck import VIBClassifier
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data import Digits
from lit_bottleneck.data.dataset import Examples
from lit_bottleneck.data.image_data_module import ImageDataModule
from lit_bottleneck.data.nuisance import Nuisance, Rotation, Translation
from lit_bottleneck.networks import MLP
from tests.quiet import trainer

SIDE = 33


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def drawn_bar() -> Tensor:
    """A horizontal bar about the centre, uint8 ``(1, 33, 33)``, with soft edges, so that its angle is exact."""
    place = torch.arange(SIDE) - SIDE // 2
    return (255 * torch.exp(-((place / 5) ** 2)[None, None, :] - ((place / 2.5) ** 2)[None, :, None])).to(torch.uint8)


def drawn_dot() -> Tensor:
    """A square of three pixels about the centre, uint8 ``(1, 33, 33)``."""
    dot = torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
    dot[:, 15:18, 15:18] = 255
    return dot


class Copies(ImageDataModule):
    """A hundred copies of one image, and twenty to test."""

    def __init__(self, image: Tensor, **arguments: object) -> None:
        self.image = image
        super().__init__(dims=(1, SIDE, SIDE), num_classes=2, max_value=255, **{"batch_size": 32, **arguments})

    def load(self) -> tuple[Examples, Examples]:
        everything = Examples.of(self.image.expand(120, -1, -1, -1).contiguous(), torch.arange(120) % 2)
        return everything.select(torch.arange(100)), everything.select(torch.arange(100, 120))


class Brightness(Nuisance):
    """A nuisance of a user: pixels times a number."""

    factor_names = ("brightness",)

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        return 0.5 + torch.rand(count, 1, generator=generator)

    def apply(self, images: Tensor, factors: Tensor) -> Tensor:
        return images * factors[:, :, None, None]


def visit(data: ImageDataModule, part: str) -> tuple[Tensor, Tensor, Tensor]:
    """The images, labels and factors of a part, in the order of its loader."""
    x, y, factors = zip(*getattr(data, f"{part}_dataloader")(), strict=True)
    return torch.cat(x), torch.cat(y), torch.cat(factors)


def means_and_moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The centre of mass (right, up) of each image, and its second moments about it."""
    weight = x[:, 0].double() / x[:, 0].double().sum((1, 2), keepdim=True)
    place = torch.arange(SIDE).double() - SIDE // 2
    right, up = place[None, None, :], -place[None, :, None]
    mean_right, mean_up = (weight * right).sum((1, 2)), (weight * up).sum((1, 2))
    right, up = right - mean_right[:, None, None], up - mean_up[:, None, None]
    moments = [(weight * product).sum((1, 2)) for product in (right * right, up * up, right * up)]
    return mean_right, mean_up, *moments


# Rotation


@pytest.mark.parametrize("side", [8, 27, 28])
@pytest.mark.parametrize("quarters", [-2, -1, 1, 2])
def test_rotation_by_quarter_turns_equals_torch(quarters: int, side: int) -> None:
    images = noise(3, 2, side, side)
    turned = Rotation(180).apply(images, torch.full((3, 1), 90.0 * quarters))
    torch.testing.assert_close(turned, images.rot90(quarters, (-2, -1)), rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", [(3, 1, 28, 28), (3, 3, 5, 9)])
def test_rotation_by_zero_keeps_the_image(shape: tuple[int, ...]) -> None:
    images = noise(*shape)
    torch.testing.assert_close(Rotation().apply(images, torch.zeros(3, 1)), images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(16, 16), (15, 15), (12, 21), (21, 12)])
def test_rotation_equals_scipys_bilinear_one(shape: tuple[int, int]) -> None:
    images, degrees = noise(7, 2, *shape), torch.tensor([-180.0, -77.0, -30.0, 0.5, 12.0, 45.0, 133.0])
    turned = Rotation().apply(images.double(), degrees[:, None].double())
    for image, result, angle in zip(images, turned, degrees.tolist(), strict=True):
        expected = [
            ndimage.rotate(channel, angle, reshape=False, order=1, mode="grid-constant")
            for channel in image.double().numpy()
        ]
        np.testing.assert_allclose(result.numpy(), np.stack(expected), rtol=0, atol=1e-9)


def test_angles_are_uniform() -> None:
    angles = Rotation(30).draw(40_000, torch.Generator().manual_seed(0))
    assert (angles.shape, angles.dtype) == ((40_000, 1), torch.float32)
    counts = torch.histc(angles, bins=20, min=-30, max=30)
    assert counts.sum() == 40_000
    assert ((counts - 2000).abs() < 5 * math.sqrt(2000)).all()


# Translation


@pytest.mark.parametrize("right", [-4, -1, 0, 3])
@pytest.mark.parametrize("down", [-2, 0, 4])
def test_translation_equals_torchs_roll_without_the_wrapped_pixels(right: int, down: int) -> None:
    images = noise(3, 2, 7, 9) + 0.1
    expected = images.roll((down, right), (-2, -1))
    rows, columns = torch.arange(7)[:, None] - down, torch.arange(9) - right
    expected = expected * ((rows >= 0) & (rows < 7) & (columns >= 0) & (columns < 9))
    moved = Translation(4).apply(images, torch.tensor([[right, down]]).float().expand(3, 2))
    assert torch.equal(moved, expected)


def test_each_image_moves_by_its_own_pixels() -> None:
    images, factors = noise(5, 1, 6, 6), Translation(3).draw(5, torch.Generator().manual_seed(1))
    together = Translation(3).apply(images, factors)
    alone = [Translation(3).apply(images[[row]], factors[[row]]) for row in range(5)]
    assert torch.equal(together, torch.cat(alone))
    assert len(factors.unique(dim=0)) > 1


def test_shifts_are_whole_and_uniform() -> None:
    moves = Translation(2).draw(20_000, torch.Generator().manual_seed(0))
    assert (moves.shape, moves.dtype) == ((20_000, 2), torch.float32)
    pairs, counts = moves.unique(dim=0, return_counts=True)
    assert pairs.tolist() == [[x, y] for x in range(-2, 3) for y in range(-2, 3)]
    assert ((counts - 800).abs() < 5 * math.sqrt(800)).all()


@pytest.mark.parametrize("nuisance", [Rotation(40), Translation(2)])
def test_nothing_is_changed_in_place(nuisance: Nuisance) -> None:
    given = noise(4, 1, 8, 8), nuisance.draw(4)
    before = [tensor.clone() for tensor in given]
    nuisance.apply(*given)
    assert all(map(torch.equal, given, before))


# The data module


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0), (2.0, 5.0)])
@pytest.mark.parametrize("nuisance", [Rotation(45), Translation(3)])
def test_the_data_module_applies_the_nuisance_and_fills_with_background(
    nuisance: Nuisance, value_range: tuple[float, float]
) -> None:
    low, high = value_range
    plain = torch.cat([x for x, _ in Digits().test_dataloader()])
    x, _, factors = visit(Digits(nuisance=nuisance, value_range=value_range), "test")
    expected = nuisance.apply(plain, factors) * (high - low) + low
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-6)
    assert x.min() == low
    assert x.max() <= high
    white = torch.full((1, SIDE, SIDE), 255, dtype=torch.uint8)
    x, _, factors = visit(Copies(white, nuisance=nuisance, value_range=value_range), "test")
    far = factors.abs().amax(1) > 20 if isinstance(nuisance, Rotation) else (factors != 0).all(1)
    assert far.any()
    corners = x[far][..., [0, 0, -1, -1], [0, -1, 0, -1]].flatten(1)
    assert (corners.amin(1) == low).all()


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_the_angle_of_a_bar_equals_its_factor(part: str) -> None:
    torch.manual_seed(0)
    x, _, factors = visit(Copies(drawn_bar(), nuisance=Rotation(60), val_size=20), part)
    _, _, right, up, both = means_and_moments(x)
    angle = (torch.atan2(2 * both, right - up) / 2).rad2deg()
    torch.testing.assert_close(angle, factors[:, 0].double(), rtol=0, atol=0.05)  # degrees
    assert factors.std() > 20


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_the_position_of_a_dot_equals_its_factors(part: str) -> None:
    x, _, factors = visit(Copies(drawn_dot(), nuisance=Translation(9), val_size=20), part)
    right, up, *_ = means_and_moments(x)
    torch.testing.assert_close(torch.stack([right, -up], 1), factors.double(), rtol=0, atol=1e-5)
    assert len(factors.unique(dim=0)) > 10


def test_training_factors_are_drawn_anew_at_each_visit_and_repeat_with_the_global_seed() -> None:
    runs = []
    for _ in range(2):
        torch.manual_seed(3)
        data = Digits(nuisance=Rotation())
        runs.append([visit(data, "train") for _ in range(2)])
    assert not torch.equal(runs[0][0][2].sort(0).values, runs[0][1][2].sort(0).values)
    for first, again in zip(*runs, strict=True):
        assert all(map(torch.equal, first, again))


def test_validation_and_test_factors_are_drawn_once_from_different_seeds() -> None:
    data = [Copies(drawn_bar(), nuisance=Rotation(), val_size=20, seed=seed) for seed in (0, 1)]
    for part in ("val", "test"):
        first = visit(data[0], part)
        torch.rand(5)
        assert all(map(torch.equal, first, visit(data[0], part)))
    factors = [visit(one, part)[2] for one in data for part in ("val", "test")]
    assert torch.equal(factors[1], factors[3])
    assert len({tuple(row.flatten().tolist()) for row in factors}) == 3


def test_fixed_factors_are_independent_of_batches_and_leave_torchs_generator() -> None:
    before = torch.get_rng_state()
    whole, by_ten = (Digits(nuisance=Translation(2), batch_size=size) for size in (359, 10))
    whole.setup()
    assert torch.equal(torch.get_rng_state(), before)
    expected = visit(whole, "test")
    assert all(map(torch.equal, expected, visit(by_ten, "test")))
    assert all(map(torch.equal, whole.dataset("test")[[7, 2]], (part[[7, 2]] for part in expected)))


def test_fixed_factors_are_those_recorded_in_another_process() -> None:
    data = Digits(nuisance=Rotation(), seed=5)
    recorded = {"val": [-30.3735, 11.1579, 38.6835], "test": [10.3226, -10.7088, 12.3403]}
    for part, factors in recorded.items():
        assert data.dataset(part).factors[:3, 0].tolist() == pytest.approx(factors, abs=1e-4)


def test_worker_processes_draw_different_training_factors() -> None:
    loader = Digits(nuisance=Rotation(), batch_size=100, num_workers=2).train_dataloader()
    torch.manual_seed(0)
    visits = [torch.cat([factors for _, _, factors in loader]).flatten() for _ in range(2)]
    angles = torch.cat(visits)
    assert len(angles) == 2 * 1294
    assert len(angles.unique()) > 0.99 * len(angles)  # of two workers, and of two epochs
    torch.manual_seed(0)  # and the same again from the same state, as in a resumed training
    assert torch.equal(torch.cat([factors for _, _, factors in loader]).flatten(), visits[0])


def test_augmentation_comes_before_the_nuisance_in_training_only() -> None:
    data = Copies(drawn_bar(), nuisance=Rotation(20), augment=[v2.RandomInvert(p=1.0)], val_size=20)
    x, _, factors = visit(data, "train")
    inverted = (1 - drawn_bar().float() / 255).expand(len(x), 1, SIDE, SIDE)
    torch.testing.assert_close(x, Rotation().apply(inverted, factors), rtol=0, atol=1e-6)
    assert visit(data, "val")[0].mean() < 0.5


def test_a_nuisance_of_a_user_is_clamped_to_the_value_range() -> None:
    data = Digits(nuisance=Brightness(), value_range=(-1, 1))
    x, _, factors = visit(data, "test")
    plain = torch.cat([x for x, _ in Digits().test_dataloader()])
    torch.testing.assert_close(x, (plain * factors[..., None, None]).clamp(0, 1) * 2 - 1, rtol=0, atol=1e-6)
    assert data.factor_names == ("brightness",)


# Models


def test_a_classifier_trains_and_predicts_on_batches_with_factors() -> None:
    torch.manual_seed(0)
    data = Digits(nuisance=Rotation(20))
    adam = functools.partial(torch.optim.Adam, lr=5e-3)
    model = VIBClassifier(MLP(64, [64], 16), latent_dim=8, num_classes=10, optimizer=adam)
    fit = trainer(max_epochs=2)
    fit.fit(model, datamodule=data)
    [measured] = fit.test(model, datamodule=data, verbose=False)
    assert measured["test/accuracy"] > 0.4  # chance: 0.1
    predictions = fit.predict(model, datamodule=data)
    assert torch.equal(torch.cat([batch["label"] for batch in predictions]), visit(data, "test")[1])


# Errors


def test_translation_refuses_half_pixels() -> None:
    with pytest.raises(ConfigurationError, match=r"whole numbers of pixels; got 1.5"):
        Translation(2).apply(torch.zeros(2, 1, 8, 8), torch.tensor([[1.0, 0.0], [1.5, 0.0]]))


@pytest.mark.parametrize(
    ("images", "factors"), [((3, 1, 8, 8), (2, 1)), ((3, 1, 8, 8), (3, 2)), ((3, 1, 8, 8), (3,)), ((3, 8, 8), (3, 1))]
)
def test_factors_of_the_wrong_shape_are_refused(images: tuple[int, ...], factors: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"Rotation needs images \(B, C, H, W\) and factors \(B, 1\); got "):
        Rotation().apply(torch.zeros(images), torch.zeros(factors))
