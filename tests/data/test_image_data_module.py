import pytest
import torch
from torch import nn
from torchvision.transforms import v2
from torchvision.transforms.functional import to_tensor

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data.dataset import Examples
from lit_bottleneck.data.image_data_module import ImageDataModule
from lit_bottleneck.data.image_dataset import ImageDataset

LEVELS = torch.arange(256, dtype=torch.uint8).reshape(4, 1, 8, 8)
LABELS = torch.arange(4)


class Ramps(ImageDataModule):
    """A hundred images of the same ramp of grey levels from 0 to 63 (white), and twenty to test."""

    def __init__(self, shape=(1, 8, 8), **arguments):
        super().__init__(dims=(1, 8, 8), num_classes=2, max_value=63, **{"batch_size": 50, **arguments})
        self.shape = shape

    def load(self):
        images = torch.arange(64, dtype=torch.uint8).reshape(1, *self.shape).repeat(120, 1, 1, 1)
        everything = Examples.of(images, torch.arange(120) % 2)
        return everything.select(torch.arange(100)), everything.select(torch.arange(100, 120))


class AddOne(nn.Module):
    """Add one grey level, and record the shape and type of each input."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def forward(self, image):
        self.shapes.append((tuple(image.shape), image.dtype))
        return image + 1


def images(loader):
    return torch.cat([x for x, _ in loader])


RAMP = torch.arange(64).reshape(1, 8, 8) / 63


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0), (-0.5, 0.5), (0.0, 255.0), (-3.0, 7.0)])
def test_pixels_are_mapped_linearly_and_the_ends_exactly(value_range):
    low, high = value_range
    x, y = ImageDataset(Examples.of(LEVELS, LABELS), 255, value_range).__getitems__([0, 1, 2, 3])
    expected = low + (high - low) * LEVELS.double() / 255
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.double(), expected, rtol=0, atol=1e-6 * (high - low))
    assert (x.min().item(), x.max().item()) == (low, high)
    assert torch.equal(y, LABELS)


def test_the_range_zero_to_one_equals_torchvision():
    x, _ = ImageDataset(Examples.of(LEVELS, LABELS), 255).__getitems__([0, 1, 2, 3])
    assert torch.equal(x, torch.stack([to_tensor(image.permute(1, 2, 0).numpy()) for image in LEVELS]))


def test_a_batch_equals_its_images_stacked():
    dataset = ImageDataset(Examples.of(LEVELS, LABELS), 255, (-1.0, 1.0), augment=v2.RandomHorizontalFlip(p=1.0))
    x, y = dataset.__getitems__([2, 0])
    assert torch.equal(x, torch.stack([dataset[2][0], dataset[0][0]]))
    assert torch.equal(y, torch.stack([dataset[2][1], dataset[0][1]]))


def test_the_held_pixels_are_not_changed():
    before = LEVELS.clone()
    ImageDataset(Examples.of(LEVELS, LABELS), 255, (-1.0, 1.0)).__getitems__([0, 1, 2, 3])
    assert torch.equal(LEVELS, before)


def test_dynamic_draws_differ_between_visits_and_have_the_grey_level_as_mean():
    torch.manual_seed(0)
    data = Ramps(binarize="dynamic", val_size=0)
    visits = [images(data.train_dataloader()) for _ in range(40)]
    assert not torch.equal(visits[0], visits[1])
    assert set(visits[0].unique().tolist()) == {0.0, 1.0}
    draws = torch.cat(visits)  # 4000 draws of each pixel
    deviation = (RAMP * (1 - RAMP) / len(draws)).sqrt()
    assert ((draws.mean(0) - RAMP).abs() <= 5 * deviation).all()


@pytest.mark.parametrize("binarize", ["dynamic", "static"])
def test_validation_and_test_are_drawn_once_from_the_seed(binarize):
    data, again, other = (Ramps(binarize=binarize, seed=seed) for seed in (0, 0, 1))
    for part in ("val_dataloader", "test_dataloader"):
        first = images(getattr(data, part)())
        assert set(first.unique().tolist()) == {0.0, 1.0}
        assert torch.equal(first, images(getattr(data, part)()))
        assert torch.equal(first, images(getattr(again, part)()))
        assert not torch.equal(first, images(getattr(other, part)()))


def test_static_training_images_repeat_at_every_visit():
    dataset, again = (Ramps(binarize="static").dataset("train") for _ in range(2))
    every = range(len(dataset))
    first = dataset.__getitems__(every)[0]
    assert torch.equal(first, dataset.__getitems__(every)[0])
    assert torch.equal(first, again.__getitems__(every)[0])
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert abs(first.mean() - 0.5) < 0.02


def test_augmentation_gets_single_uint8_images_of_the_training_set_only():
    add_one = AddOne()
    data = Ramps(augment=[add_one, v2.RandomHorizontalFlip(p=1.0)], value_range=(-1, 1))
    plain = (RAMP * 2 - 1).expand(10, 1, 8, 8)
    torch.testing.assert_close(images(data.val_dataloader()), plain)
    torch.testing.assert_close(images(data.test_dataloader())[:10], plain)
    assert add_one.shapes == []
    torch.testing.assert_close(images(data.train_dataloader())[:10], (plain + 2 / 63).flip(-1))
    assert add_one.shapes == [((1, 8, 8), torch.uint8)] * 90


def test_each_image_of_a_batch_is_augmented_with_its_own_draw():
    torch.manual_seed(0)
    data = Ramps(augment=[v2.RandomCrop(8, padding=3)])
    x, _ = next(iter(data.train_dataloader()))
    assert len(x.flatten(1).unique(dim=0)) > 20  # 49 crops are possible


@pytest.mark.parametrize("augment", [[v2.Resize(4)], [v2.ToDtype(torch.float32)]], ids=["shape", "type"])
def test_augmentation_that_changes_shape_or_type_is_refused(augment):
    with pytest.raises(ConfigurationError, match=r"an image's shape and type, \(\(1, 8, 8\), torch.uint8\); it made"):
        next(iter(Ramps(augment=augment).train_dataloader()))


def test_images_of_another_shape_than_dims_are_refused():
    with pytest.raises(
        ConfigurationError, match=r"dims=\(1, 8, 8\) must be the shape of the images; got images \(1, 4, 16\)"
    ):
        Ramps(shape=(1, 4, 16)).setup()
