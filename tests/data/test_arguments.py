"""Arguments of the data modules and nuisances: wrong values are refused by name, and a recipe can give every one."""

import math
import re
from typing import Any

import pytest
import torch
from lightning import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser
from torchvision.transforms import v2

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data import IMDB, Digits, EvaluationSampler, Images, Ring, Shapes, Table
from lit_bottleneck.data.base import ExamplesDataModule
from lit_bottleneck.data.nuisance import Nuisance, Rotation, Translation

COUNTS = (0, -1, True, 1.5, "many")
LENGTHS = (0, -1.0, math.inf, math.nan, True)


class Brightness(Nuisance):
    """A nuisance with as many columns of factors, and images cropped by as many pixels, as given."""

    factor_names = ("brightness",)

    def __init__(self, columns: int, crop: int) -> None:
        self.columns, self.crop = columns, crop

    def draw(self, count: int, generator: torch.Generator | None = None) -> torch.Tensor:
        return torch.rand(count, self.columns, generator=generator)

    def apply(self, images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        return images[..., self.crop :]


def module(**arguments: Any) -> ExamplesDataModule:
    return ExamplesDataModule(**{"dims": (1,), "batch_size": 1} | arguments)


def mnist(**arguments: Any) -> Images:
    return Images("MNIST", **arguments)


def sampler(**arguments: Any) -> EvaluationSampler:
    return EvaluationSampler(range(3), **arguments)


WRONG = [
    (module, "batch_size", COUNTS),
    (module, "num_workers", (-1, 0.5)),
    (module, "seed", (-1, 2**32, None)),
    (module, "val_size", (-1, -0.1, True, False, 1.0, 5000.0, math.nan, "0.1", None)),
    (sampler, "batch_size", COUNTS),
    (Digits, "binarize", ("sometimes",)),
    (Digits, "value_range", ((1, 0), (0, 0), (0, math.inf), (math.nan, 1), (0, 1, 2), ("0", "1"), 1)),
    (Digits, "augment", ([torch.flip], v2.RandomCrop(8))),
    (Digits, "nuisance", ("rotation", 45, v2.RandomRotation(45), Rotation)),
    (Images, "name", ("mnist", 3)),
    (Ring, "layout", ("line",)),
    (Ring, "num_modes", COUNTS),
    (Ring, "radius", LENGTHS),
    (Ring, "std", LENGTHS),
    (Ring, "num_examples", COUNTS),
    (Ring, "test_size", COUNTS),
    (Shapes, "image_size", (28, 0, "64")),
    (Shapes, "num_examples", COUNTS),
    (Shapes, "test_size", COUNTS),
    (IMDB, "vocabulary_size", (2, 2**31 + 1, 5.5)),
    (IMDB, "max_length", COUNTS),
    (Table, "target", (3, ["y", 1], [])),
    (Table, "task", ("ranking", None)),
    (Table, "columns", (3, [0])),
    (Table, "min_frequency", COUNTS),
    (Table, "max_categories", COUNTS),
    (Table, "test_size", (-1, 1.0, True, "0.2")),
    (Rotation, "max_degrees", (0, -1.0, 180.5, math.nan, math.inf, True, "45", None)),
    (Translation, "max_pixels", COUNTS),
]


@pytest.mark.parametrize(("make", "name", "values"), WRONG, ids=[f"{make.__name__}-{name}" for make, name, _ in WRONG])
def test_a_wrong_value_is_refused_with_its_name(make: Any, name: str, values: tuple[Any, ...]) -> None:
    for value in values:
        with pytest.raises(ConfigurationError, match=rf"^{name} must be .*; got {re.escape(repr(value))}"):
            make(**{name: value})


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (Digits, {"val_size": 1438}, "val_size=1438 holds out 1438 of 1438 rows"),
        (Digits, {"binarize": "dynamic", "value_range": (-1, 1)}, r"needs value_range=\(0, 1\); got \(-1.0, 1.0\)"),
        (Digits, {"binarize": "static", "value_range": (0, 0.5)}, r"binarize='static'.*value_range"),
        (Digits, {"binarize": "dynamic", "nuisance": Rotation()}, "nuisance cannot go together.*choose one"),
        (mnist, {"binarize": "static", "nuisance": Rotation()}, "'static' and nuisance cannot go together.*choose one"),
        (Digits, {"nuisance": Translation(8)}, "max_pixels=8 moves images out of sight; at most 7 will do"),
        (Digits, {"nuisance": Brightness(2, 0)}, r"nuisance=.* must make images and factors of .* it made"),
        (Digits, {"nuisance": Brightness(1, 1)}, r"nuisance=.* must make images and factors of .* it made"),
        (mnist, {"image_size": 32}, r"image_size=32 is for name='folder'; MNIST has dims=\(1, 28, 28\)"),
        (mnist, {"in_memory": False}, "in_memory=False is for name='folder'"),
        (mnist, {"background": 0.3}, "background=0.3 is for name='folder'"),
        (mnist, {"drop_last": "yes"}, "drop_last must be True or False; got 'yes'"),
        (Images, {"name": "mnist"}, "'MNIST', 'FashionMNIST', 'KMNIST', 'CIFAR10', 'CIFAR100', 'SVHN', 'folder'; got"),
        (Ring, {"layout": "grid"}, "num_modes must be a square number for a grid, such as 4 or 9; got 8"),
        (Ring, {"num_examples": 400, "val_size": 400}, "val_size=400 holds out 400 of 400 rows"),
        (Shapes, {"num_examples": 110_000}, "num_examples=110000 and test_size=5000 are more than the 110592"),
        (Shapes, {"num_examples": 300, "val_size": 300}, "val_size=300"),
    ],
)
def test_values_that_do_not_go_together_are_refused(make: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make(**arguments)


def test_allowed_extremes() -> None:
    assert Digits(nuisance=Translation(7)).factor_names == ("x", "y")
    assert Digits(value_range=[0, 1], binarize="dynamic").value_range == (0.0, 1.0)
    assert Digits(augment=[]).augment is None
    assert module(seed=2**32 - 1, batch_size=2.0).batch_size == 2


SHARED = {"root": "elsewhere", "batch_size": 7, "num_workers": 1, "seed": 3, "val_size": 20}
OF_IMAGES = {
    "value_range": [-1, 1],
    "augment": [{"class_path": "torchvision.transforms.v2.RandomCrop", "init_args": {"size": 8, "padding": 4}}],
    "nuisance": {"class_path": "lit_bottleneck.data.nuisance.Rotation", "init_args": {"max_degrees": 30}},
}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Digits", SHARED | OF_IMAGES),
        ("digits.Digits", SHARED | {"binarize": "static"}),
        ("Images", SHARED | OF_IMAGES | {"name": "CIFAR10"}),
        ("IMDB", SHARED | {"vocabulary_size": 20, "max_length": 8}),
        (
            "ring.Ring",
            SHARED | {"layout": "grid", "num_modes": 25, "radius": 4, "std": 0.05, "num_examples": 250, "test_size": 9},
        ),
        ("Shapes", SHARED | {"image_size": 32, "num_examples": 300, "test_size": 50}),
        ("Table", SHARED | {"path": "a.csv", "task": "multilabel", "min_frequency": 1, "test_size": 0.5}),
        ("Table", SHARED | {"path": None, "predict_path": "b.csv", "standardize_target": False}),
    ],
)
def test_a_recipe_can_give_every_argument(name: str, arguments: dict[str, Any]) -> None:
    parser = LightningArgumentParser()
    parser.add_subclass_arguments(LightningDataModule, "data")
    chosen = {"class_path": f"lit_bottleneck.data.{name}", "init_args": arguments}
    data = parser.instantiate(parser.parse_object({"data": chosen})).data
    assert data.root.name == "elsewhere"
    if "augment" in arguments:
        assert isinstance(data.augment[0], v2.RandomCrop)
        assert (data.value_range, data.nuisance.max_degrees) == ((-1, 1), 30)
    plain = {key: value for key, value in arguments.items() if key not in ("root", *OF_IMAGES)}
    assert {key: getattr(data, key) for key in plain} == plain
    assert isinstance(data.val_size, int)


def test_a_recipe_can_name_columns() -> None:
    parser = LightningArgumentParser()
    parser.add_subclass_arguments(LightningDataModule, "data")
    named = {"target": ["y", "z"], "columns": ["a", "b"], "ignore": ["c"], "categorical": ["b"]}
    for given, expected in ((named, named), ({"target": "y"}, {"target": ["y"], "columns": None, "ignore": []})):
        chosen = {"class_path": "lit_bottleneck.data.Table", "init_args": {"path": "a.csv"} | given}
        data = parser.instantiate(parser.parse_object({"data": chosen})).data
        found = {name: getattr(data, name) for name in expected}
        assert {name: names if names is None else list(names) for name, names in found.items()} == expected
