"""The data module of tables: parts, no leakage, and what a checkpoint keeps, with which it predicts raw rows."""

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning import Trainer
from torch import Tensor

from lit_bottleneck import VIBClassifier, VIBRegressor
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data import Table
from lit_bottleneck.data.base import ExamplesDataModule
from lit_bottleneck.data.downloads import MissingDataError
from lit_bottleneck.networks import MLP

PARTS = ("train", "val", "test")


def frame(rows: int = 100, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    table = pd.DataFrame({"a": generator.normal(50, 9, rows), "b": generator.exponential(2, rows)})
    table["city"] = generator.choice(["Rome", "Oslo"], rows)
    table.loc[::9, "b"] = np.nan
    table["y"] = 3 * table["a"] + generator.normal(0, 1, rows)
    table["sick"] = np.where(generator.random(rows) < 0.3, "yes", "no")
    return table


def everything(data: ExamplesDataModule, part: str) -> tuple[Tensor, Tensor]:
    dataset = data.dataset(part)
    return dataset[range(len(dataset))]


def rows(data: ExamplesDataModule, part: str) -> list[int]:
    return data.dataset(part).examples.rows.tolist()


def regression(**arguments: Any) -> Table:
    return Table(**{"path": frame(), "target": "y", "ignore": ["sick"]} | arguments)


def classification(**arguments: Any) -> Table:
    return Table(**{"path": frame(), "target": "sick", "task": "classification", "ignore": ["y"]} | arguments)


@pytest.mark.parametrize("make", [regression, classification])
def test_parts_are_the_same_for_a_seed_and_share_no_row(make: Any) -> None:
    first, again, other = make(seed=1), make(seed=1), make(seed=2)
    for part in PARTS:
        assert all(map(torch.equal, everything(first, part), everything(again, part)))
    assert rows(first, "test") == rows(other, "test")
    assert rows(first, "val") != rows(other, "val")
    assert [len(rows(first, part)) for part in PARTS] == [72, 8, 20]
    assert sorted(row for part in PARTS for row in rows(first, part)) == list(range(100))
    counts = make(val_size=5, test_size=7)
    assert [len(rows(counts, part)) for part in PARTS] == [88, 5, 7]
    assert make(val_size=0).val_dataloader() == []


def test_classes_are_stratified() -> None:
    data = classification(val_size=20)
    shares = [everything(data, part)[1].float().mean().item() for part in PARTS]
    assert shares == pytest.approx([(frame()["sick"] == "yes").mean()] * 3, abs=0.03)


def test_statistics_are_those_of_the_training_rows_alone() -> None:
    data = regression()
    data.setup()
    train = frame().iloc[rows(data, "train")]
    assert data.target_mean.tolist() == pytest.approx([train["y"].mean()])
    assert data.target_scale.tolist() == pytest.approx([train["y"].std(ddof=0)])
    x, y = everything(data, "train")
    torch.testing.assert_close(x[:, :2].mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(x[:, :2].std(0, correction=0), torch.ones(2))
    expected = frame()["y"].to_numpy()[rows(data, "test")]
    np.testing.assert_allclose(data.to_units(everything(data, "test")[1])[:, 0], expected, rtol=1e-5)

    changed = frame()
    held_out = rows(data, "val") + rows(data, "test")
    changed.loc[held_out, ["a", "b", "y"]] *= 100
    changed.loc[held_out, "city"] = "Lima"
    leaking = regression(path=changed)
    leaking.setup()
    assert leaking.state_dict() == data.state_dict()
    assert all(map(torch.equal, everything(leaking, "train"), (x, y)))


def test_properties_that_apply_are_there_after_setup() -> None:
    data = regression(target=["y", "b"])
    assert not any(hasattr(data, name) for name in ("dims", "target_dims", "target_mean", "num_classes"))
    with pytest.raises(ConfigurationError, match="target 'b' must have a finite value in each row; got no value in"):
        data.setup()
    data = regression(target=["y", "a"])
    data.setup("fit")
    assert (data.dims, data.target_dims, data.target_names) == ((5,), (2,), ("y", "a"))
    assert data.feature_names == ("b", "b missing", "city=Oslo", "city=Rome", "city unknown")
    assert not hasattr(data, "num_classes")
    data = classification()
    data.setup("fit")
    assert (data.dims, data.num_classes, data.class_names) == ((6,), 2, ("no", "yes"))
    assert not hasattr(data, "target_dims")
    assert everything(data, "test")[1].tolist() == (frame()["sick"] == "yes").to_numpy()[rows(data, "test")].tolist()


def test_several_labels_of_arrays() -> None:
    generator = np.random.default_rng(0)
    y = generator.integers(0, 2, (50, 3))
    data = Table({"x": generator.normal(size=(50, 4)), "y": y}, target=["y0", "y1", "y2"], task="multilabel")
    assert torch.equal(everything(data, "test")[1], torch.from_numpy(y)[rows(data, "test")])
    assert (data.dims, data.num_classes, data.class_names) == ((4,), 3, ("y0", "y1", "y2"))


def test_columns_by_name_and_categories_of_numbers() -> None:
    table = frame().assign(grade=np.arange(100) % 3)
    data = Table(table, "y", columns=["grade", "a"], categorical=["grade"])
    data.setup()
    assert data.feature_names == ("a", "grade=0", "grade=1", "grade=2", "grade unknown")
    kept = Table(table, "y", columns=["a"], standardize_target=False)
    np.testing.assert_allclose(everything(kept, "test")[1][:, 0], table["y"].to_numpy()[rows(kept, "test")], rtol=1e-6)
    assert kept.to_units(torch.ones(1, 1)).item() == 1


def trained(data: Table, folder: Path) -> tuple[VIBClassifier, Path]:
    model = VIBClassifier(MLP(6, [8], 4), latent_dim=2, num_classes=2)
    trainer = Trainer(
        max_steps=3, default_root_dir=folder, logger=False, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu", limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(model, data)
    path = folder / "trained.ckpt"
    trainer.save_checkpoint(path)
    return model, path


def test_a_checkpoint_predicts_raw_rows_alone(tmp_path: Path) -> None:
    """A CSV with a missing value and an unseen category, and without a target; the training rows are gone."""
    training, new = tmp_path / "training.csv", tmp_path / "new.csv"
    frame().to_csv(training, index=False)
    model, path = trained(classification(path=str(training)), tmp_path)
    new.write_text("city,a,b\nRome,47,1.5\nParis,,2\n,60,\n")
    fitted = classification()
    fitted.setup()
    train = frame().iloc[rows(fitted, "train")]
    training.unlink()

    options = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    data = classification(path=str(training), predict_path=str(new), batch_size=2)
    other = VIBClassifier(MLP(6, [8], 4), latent_dim=2, num_classes=2)
    batches = Trainer(**options).predict(other, data, ckpt_path=path, weights_only=True)
    x = torch.cat(list(data.predict_dataloader()))
    raw = pd.DataFrame({"a": [47, train["a"].median(), 60], "b": [1.5, 2, train["b"].median()]})
    filled = train[["a", "b"]].fillna(train[["a", "b"]].median())
    expected = ((raw - filled.mean()) / filled.std(ddof=0)).assign(
        missing=[0, 0, 1], oslo=0, rome=[1, 0, 0], unknown=[0, 1, 1]
    )
    np.testing.assert_allclose(x.numpy(), expected.to_numpy(), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        probabilities = model.eval()(x).softmax(1)
    torch.testing.assert_close(torch.cat([batch["probabilities"] for batch in batches]), probabilities)

    alone = Table.load_from_checkpoint(path, weights_only=True, predict_path=str(new))
    assert torch.equal(torch.cat(list(alone.predict_dataloader())), x)
    assert (alone.class_names, alone.task, alone.target) == (("no", "yes"), "classification", ("sick",))


def test_a_regression_of_two_targets_predicts_in_the_units_of_their_columns(tmp_path: Path) -> None:
    """Targets that inputs determine: an untrained model in the wrong units would be hundreds off."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(400, 2))
    columns = {"x": x, "far": 1e4 + 300 * x[:, 0], "small": 0.01 * x[:, 1]}
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    data = Table(columns, ["far", "small"], predict_path={"x": x}, val_size=0)

    def model() -> VIBRegressor:
        optimizer = functools.partial(torch.optim.Adam, lr=0.02)
        return VIBRegressor(MLP(2, [], 4), 2, target_dims=(2,), deterministic=True, optimizer=optimizer)

    trainer = Trainer(max_epochs=30, default_root_dir=tmp_path, **options)
    trainer.fit(model(), data)
    trainer.save_checkpoint(tmp_path / "trained.ckpt")
    alone = Table(predict_path={"x": x})
    batches = Trainer(**options).predict(model(), alone, ckpt_path=tmp_path / "trained.ckpt", weights_only=True)
    mean = torch.cat([batch["mean"] for batch in batches]).numpy()
    for name, predicted, tolerance in (("far", mean[:, 0], 30), ("small", mean[:, 1], 1e-3)):
        np.testing.assert_allclose(predicted, columns[name], rtol=0, atol=tolerance)


def test_what_was_fitted_comes_from_the_checkpoint_for_a_test(tmp_path: Path) -> None:
    _, path = trained(classification(), tmp_path)
    state = torch.load(path, weights_only=True)["Table"]
    other = classification(path=frame(seed=1))
    other.setup()
    own = other.state_dict()
    other.load_state_dict(state)
    assert other.state_dict() == state != own
    a = everything(other, "test")[0][:, 0]
    place = state["inputs"]["numbers"].index("a")
    mean, scale = state["inputs"]["means"][place], state["inputs"]["scales"][place]
    np.testing.assert_allclose(a, (frame(seed=1)["a"].to_numpy()[rows(other, "test")] - mean) / scale, rtol=1e-4)


def test_without_a_checkpoint_the_training_rows_are_fitted_to() -> None:
    new = frame(seed=1).drop(columns=["y", "sick"])
    ours, theirs = regression(predict_path=new), regression()
    theirs.setup()
    theirs.predict_path = new
    assert torch.equal(torch.cat(list(ours.predict_dataloader())), torch.cat(list(theirs.predict_dataloader())))
    x, y = next(iter(regression().predict_dataloader()))
    assert len(x) == len(y) == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "z"}, "the table must have a column 'z'; it has a, b, city, y, sick"),
        ({"columns": ["a", "c"]}, "the table must have a column 'c'"),
        ({"ignore": ["c"]}, "the table must have a column 'c'"),
        ({"categorical": ["c"]}, "the table must have a column 'c'"),
        ({"columns": ["y"]}, "leaves no input"),
        ({"test_size": 100}, "test_size=100 holds out 100 of 100 rows: none is left to train on"),
        ({"val_size": 80}, "val_size=80 holds out 80 of 80 rows"),
        ({"path": None}, "path must be given to train on"),
        ({"path": frame().assign(a=np.inf)}, "column 'a' must hold numbers up to"),
        ({"path": frame().assign(a="", b="", city="")}, "100 rows have no value in any column"),
        ({"path": frame().assign(y=1.0)}, "target 'y' is constant"),
        ({"path": frame().assign(a=[f"id {row}" for row in range(100)])}, "column 'a' has 72 categories in 72"),
        ({"path": frame().assign(a=["?", *map(str, range(99))])}, "column 'a' mixes numbers and text such as '?'"),
        ({"path": "none.csv"}, "none.csv does not exist"),
    ],
)
def test_tables_that_do_not_fit_are_refused_in_setup(arguments: Any, message: str) -> None:
    data = regression(**arguments)
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        data.setup("fit")


def test_rows_to_predict_that_do_not_fit() -> None:
    data = regression()
    data.setup()
    good = frame().drop(columns=["y"])
    for table, message in (
        (good.drop(columns="b"), "the table must have a column 'b'; it has a, city, sick"),
        (good.assign(c=1), "column 'c' was not in the table that the model was trained on: .*a, b, city"),
        (good.assign(b="many"), "column 'b' must hold numbers; got 'many' in row 0"),
        (good.assign(a=np.nan, b=np.nan, city=None), "100 rows have no value in any column"),
    ):
        data.predict_path = table
        with pytest.raises(ConfigurationError, match=message):
            data.predict_dataloader()
    with pytest.raises(MissingDataError, match="predict_path needs what was fitted to training rows: give a"):
        Table(predict_path=good).predict_dataloader()


def test_a_path_is_relative_to_the_root(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "table.csv", index=False)
    data = regression(path="table.csv", root=tmp_path)
    assert all(map(torch.equal, everything(data, "test"), everything(regression(), "test")))
