from itertools import chain

import numpy as np
import pytest
import torch
from lightning.pytorch.cli import LightningArgumentParser
from sklearn.datasets import load_digits
from torchvision.transforms import v2

from lit_bottleneck.data import Digits


def rows(dataset):
    return dataset.examples.rows.tolist()


def test_the_digits_are_scikit_learns_pixel_for_pixel():
    bunch = load_digits()
    data = Digits(value_range=(-1, 1))
    for part in ("train", "val", "test"):
        dataset = data.dataset(part)
        x, y = dataset.__getitems__(range(len(dataset)))
        np.testing.assert_allclose(x[:, 0].numpy(), bunch.images[rows(dataset)] / 8 - 1, rtol=0, atol=1e-7)
        assert np.array_equal(y.numpy(), bunch.target[rows(dataset)])


def test_the_parts_are_disjoint_cover_everything_and_are_stratified():
    data = Digits()
    parts = {part: rows(data.dataset(part)) for part in ("train", "val", "test")}
    assert {part: len(chosen) for part, chosen in parts.items()} == {"train": 1294, "val": 144, "test": 359}
    assert sorted(chain(*parts.values())) == list(range(1797))
    labels = torch.from_numpy(load_digits().target)
    share = labels.bincount() / 1797
    for chosen in parts.values():
        torch.testing.assert_close(labels[chosen].bincount(minlength=10) / len(chosen), share, rtol=0, atol=0.006)


def test_the_test_rows_do_not_depend_on_the_seed_and_the_validation_rows_do():
    first, other = Digits(seed=0), Digits(seed=1)
    assert rows(first.dataset("test")) == rows(other.dataset("test"))
    assert rows(first.dataset("val")) != rows(other.dataset("val"))


def test_dims_and_classes_are_known_before_loading():
    data = Digits(root="anywhere")
    assert (data.dims, data.num_classes) == ((1, 8, 8), 10)
    x, y = next(iter(data.train_dataloader()))
    assert tuple(x.shape) == (64, *data.dims)
    assert y.dtype == torch.int64


def test_val_size_zero_trains_on_all_that_is_not_tested():
    data = Digits(val_size=0)
    assert len(data.dataset("train")) == 1438
    assert data.val_dataloader() == []


def test_too_large_a_validation_set_is_refused_at_construction():
    with pytest.raises(ValueError, match="val_size=1438 holds out 1438 of 1438 rows"):
        Digits(val_size=1438)


def test_a_recipe_can_give_every_argument(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        """
        data:
          class_path: lit_bottleneck.data.Digits
          init_args:
            val_size: 100
            value_range: [0, 1]
            binarize: static
            augment:
              - class_path: torchvision.transforms.v2.RandomCrop
                init_args: {size: 8, padding: 4}
              - class_path: torchvision.transforms.v2.RandomHorizontalFlip
        """
    )
    parser = LightningArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(Digits, "data")
    parsed = parser.parse_args([f"--config={recipe}", "--data.init_args.root=elsewhere"])
    data = parser.instantiate_classes(parsed).data
    assert len(data.dataset("val")) == 100
    assert data.root.name == "elsewhere"
    assert data.value_range == (0.0, 1.0)
    crop, flip = data.augment
    assert isinstance(crop, v2.RandomCrop)
    assert isinstance(flip, v2.RandomHorizontalFlip)
    assert next(iter(data.train_dataloader()))[0].shape == (64, 1, 8, 8)
