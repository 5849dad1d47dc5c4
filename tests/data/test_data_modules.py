"""Promises that all data modules share: parts, seeds, types of a batch, worker processes, properties."""

import math
import pickle
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_bottleneck.data import IMDB, DataProperties, Digits, Images, Ring, Shapes, Table
from lit_bottleneck.data.base import ExamplesDataModule, Part
from lit_bottleneck.data.nuisance import Rotation
from tests.data.original_formats import write_mnist
from tests.data.test_image_folder import write_classes
from tests.data.written_reviews import make_reviews, write_archive

NAMES = ("Digits", "Digits with nuisance", "MNIST", "folder", "IMDB", "Ring", "Shapes", "Table")
PARTS = get_args(Part)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_mnist(root, train=200, test=50)
    write_archive(root, make_reviews(train=200, test=50))
    write_classes(root / "pictures" / "train", per_class=100)
    write_classes(root / "pictures" / "test", per_class=25)
    return root


def make(name: str, root: Path, **arguments: Any) -> ExamplesDataModule:
    """A module with at least 200 training and 50 test examples."""
    if name.startswith("Digits"):
        return Digits(nuisance=Rotation() if "nuisance" in name else None, **arguments)
    if name == "IMDB":
        return IMDB(root, max_length=20, **arguments)
    if name == "folder":
        return Images("folder", root / "pictures", in_memory=False, **arguments)
    if name == "MNIST":
        return Images("MNIST", root, **arguments)
    if name == "Table":
        columns = {"x": np.random.default_rng(0).normal(size=(250, 3)), "y": np.repeat(["a", "b"], 125)}
        return Table(columns, "y", "classification", **{"test_size": 50} | arguments)
    sizes = {"num_examples": 200, "test_size": 50} | arguments
    return Ring(**sizes) if name == "Ring" else Shapes(image_size=32, **sizes)


def everything(data: ExamplesDataModule, part: Part) -> tuple[Tensor, ...]:
    dataset = data.dataset(part)
    return dataset[range(len(dataset))]


def rows(data: ExamplesDataModule, part: Part) -> list[int]:
    return data.dataset(part).examples.rows.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_the_split_and_not_the_test_part(name: str, root: Path) -> None:
    first, again, other = (make(name, root, seed=seed, val_size=40) for seed in (1, 1, 2))
    for part in PARTS:
        torch.manual_seed(0)
        ours = everything(first, part)
        torch.manual_seed(0)
        assert all(map(torch.equal, ours, everything(again, part)))
    assert rows(first, "test") == rows(other, "test")
    if name != "Table":  # standardised by the training rows, which differ
        assert all(map(torch.equal, everything(first, "test"), everything(other, "test")))
    assert not torch.equal(everything(first, "val")[0], everything(other, "val")[0])


@pytest.mark.parametrize("name", NAMES)
def test_validation_is_held_out_of_training_stratified_by_class(name: str, root: Path) -> None:
    data = make(name, root, val_size=40)
    assert len(rows(data, "val")) == 40
    used = rows(data, "train") + rows(data, "val")
    unused = rows(data, "test") if name.startswith(("Digits", "Table")) else []  # of the same rows
    assert sorted(used + unused) == list(range(len(used + unused)))
    if name != "Shapes":
        counts = [everything(data, part)[1].bincount() for part in ("train", "val")]
        shares = [count / count.sum() for count in counts]
        torch.testing.assert_close(*shares, rtol=0, atol=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_val_size_zero_trains_on_all_that_is_not_tested(name: str, root: Path) -> None:
    data = make(name, root, val_size=0)
    assert len(rows(data, "train")) == (1438 if name.startswith("Digits") else 200)
    assert data.val_dataloader() == []


DEFAULTS = {
    "Digits": 64,
    "Digits with nuisance": 64,
    "MNIST": 128,
    "folder": 128,
    "IMDB": 32,
    "Ring": 256,
    "Shapes": 128,
    "Table": 64,
}


@pytest.mark.parametrize("name", NAMES)
def test_batches_have_the_promised_shapes_and_types(name: str, root: Path) -> None:
    data = make(name, root)
    loaders = data.train_dataloader(), data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()
    for loader in loaders:
        x, y, *factors = next(iter(loader))
        size = min(DEFAULTS[name], len(loader.dataset))
        assert (x.shape, x.dtype) == ((size, *data.dims), torch.int64 if name == "IMDB" else torch.float32)
        assert (y.shape, y.dtype) == (((size, 5), torch.float32) if name == "Shapes" else ((size,), torch.int64))
        assert [(factor.shape, factor.dtype) for factor in factors] == [((size, 1), torch.float32)] * len(factors)
        assert len(factors) == ("nuisance" in name)
    one = data.dataset("test")[3]
    assert [part.shape for part in one] == [part.shape[1:] for part in next(iter(loaders[2]))]


@pytest.mark.parametrize("name", ["Digits with nuisance", "folder", "IMDB", "Shapes", "Table"])
def test_worker_processes_and_a_pickled_copy_give_the_same_test_batches(name: str, root: Path) -> None:
    data, helped = make(name, root), make(name, root, num_workers=2, batch_size=20)
    unloaded = pickle.loads(pickle.dumps(data))
    expected = everything(data, "test")
    assert all(map(torch.equal, expected, map(torch.cat, zip(*helped.test_dataloader(), strict=True))))
    for copy in (unloaded, pickle.loads(pickle.dumps(data))):
        assert all(map(torch.equal, expected, everything(copy, "test")))


PROPERTIES = {
    "Digits": {"dims": (1, 8, 8), "value_range": (0, 1), "num_classes": 10, "factor_names": ()},
    "Digits with nuisance": {
        "dims": (1, 8, 8), "value_range": (0, 1), "num_classes": 10, "factor_names": ("rotation",),
    },
    "MNIST": {"dims": (1, 28, 28), "value_range": (0, 1), "num_classes": 10, "factor_names": ()},
    "folder": {"dims": (3, 6, 8), "value_range": (0, 1), "num_classes": 2, "factor_names": ()},
    "IMDB": {"dims": (20,), "num_classes": 2, "vocabulary_size": 5000},
    "Ring": {"dims": (2,), "num_classes": 8, "std": 0.1},
    "Shapes": {"dims": (1, 32, 32), "value_range": (0, 1), "factor_names": ("shape", "scale", "rotation", "x", "y")},
    "Table": {},  # they depend on the table
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_module_defines_the_properties_that_apply_before_anything_is_loaded(name: str, root: Path) -> None:
    data = make(name, root, val_size=3)
    found = {key: getattr(data, key) for key in get_type_hints(DataProperties) if hasattr(data, key)}
    if name == "Ring":
        assert found.pop("modes").norm(dim=1).tolist() == pytest.approx([2] * 8)
    if name == "Shapes":
        indices = found.pop("factor_indices")(torch.tensor([[2.0, 0.5, math.pi, 1.0, 0.2]]))
        assert indices.tolist() == [[2, 0, 12, 15, 3]]
    assert found == PROPERTIES[name] | {"val_size": 3}
    assert not data._datasets
