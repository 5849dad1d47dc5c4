"""PredictionWriter: the rows of the file, their precision, and its place."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningModule
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lit_bottleneck import VIBClassifier
from lit_bottleneck.callbacks import PredictionWriter
from lit_bottleneck.networks import MLP
from tests.quiet import trainer


def rows(count: int = 10) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(0)), torch.arange(count) % 3


def classifier() -> VIBClassifier:
    torch.manual_seed(0)
    return VIBClassifier(MLP(6, [8], 8), latent_dim=4, num_classes=3)


def written(folder: Path, model: LightningModule, parts: tuple[Tensor, ...], **kwargs: Any) -> Path:
    run = trainer(default_root_dir=folder, callbacks=[PredictionWriter()], **kwargs)
    run.predict(model, DataLoader(TensorDataset(*parts), batch_size=4), return_predictions=False)
    return folder / "predictions.npz"


def arrays(*args: Any, **kwargs: Any) -> dict[str, np.ndarray]:
    with np.load(written(*args, **kwargs)) as file:
        return dict(file)


def test_the_rows_are_the_predictions_in_the_order_of_the_data_set(tmp_path: Path) -> None:
    model, parts = classifier(), rows()
    found = arrays(tmp_path, model, parts)  # 4 + 4 + 2 rows
    with torch.no_grad():
        expected = model.eval().predict_step(parts, 0)
    assert set(found) == {*expected, "index"}
    assert found["index"].tolist() == list(range(10))
    for name, values in expected.items():
        assert found[name].shape == values.shape
        np.testing.assert_allclose(found[name], values.numpy(), rtol=1e-6, atol=1e-7)
    assert found["label"].dtype == np.int64


def test_double_precision_is_kept(tmp_path: Path) -> None:
    model, parts = classifier(), rows()
    rate = arrays(tmp_path, model, parts, precision="64-true")["rate"]
    with torch.no_grad():
        expected = model.double().eval().predict_step(parts[0].double(), 0)["rate"].numpy()
    np.testing.assert_allclose(rate, expected, rtol=1e-12)


def test_half_precision_can_be_written(tmp_path: Path) -> None:
    found = arrays(tmp_path, classifier(), rows(), precision="bf16-true")
    np.testing.assert_allclose(found["probabilities"].sum(1), 1, rtol=0.02)
    assert found["index"].tolist() == list(range(10))


def test_the_file_is_in_the_run_folder(tmp_path: Path) -> None:
    written(tmp_path, classifier(), rows(), logger=CSVLogger(tmp_path, name="mine"))
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*.npz")] == [Path("mine/version_0/predictions.npz")]


def test_the_file_has_the_predicted_rows_only_and_no_labels_without_any(tmp_path: Path) -> None:
    found = arrays(tmp_path, classifier(), rows()[:1], limit_predict_batches=2)
    assert set(found) == {"probabilities", "rate", "mean", "index"}
    assert found["index"].tolist() == list(range(8))
    assert len(found["rate"]) == 8


class Squares(LightningModule):
    """A user's own module."""

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return batch[0].square()


def test_a_single_tensor_is_named_prediction(tmp_path: Path) -> None:
    x, _ = rows()
    found = arrays(tmp_path, Squares(), (x,))
    assert set(found) == {"prediction", "index"}
    np.testing.assert_array_equal(found["prediction"], x.square().numpy())


def test_other_predictions_than_tensors_are_a_warning_and_no_file(tmp_path: Path) -> None:
    class Words(Squares):
        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            return ["one", "two"]

    with pytest.warns(UserWarning, match="Words.predict_step returned no tensors"):
        path = written(tmp_path, Words(), rows())
    assert not path.exists()


def test_each_of_several_dataloaders_has_its_file(tmp_path: Path) -> None:
    (x, y), model = rows(7), classifier()
    run = trainer(default_root_dir=tmp_path, callbacks=[PredictionWriter()])
    run.predict(model, [DataLoader(TensorDataset(x[:4], y[:4]), 3), DataLoader(TensorDataset(x[4:]), 3)])
    assert sorted(path.name for path in tmp_path.rglob("*.npz")) == [
        f"predictions_dataloader_idx_{i}.npz" for i in (0, 1)
    ]
    for loader, part in enumerate((slice(4), slice(4, 7))):
        found = dict(np.load(tmp_path / f"predictions_dataloader_idx_{loader}.npz"))
        with torch.no_grad():
            expected = model.eval().predict_step((x[part], y[part])[: 2 - loader], 0)
        assert found["index"].tolist() == list(range(4 - loader))
        assert set(found) == {*expected, "index"}
        np.testing.assert_allclose(found["mean"], expected["mean"], rtol=1e-5, atol=1e-6)


def test_labels_in_words_are_left_out_and_named(tmp_path: Path) -> None:
    run = trainer(default_root_dir=tmp_path, callbacks=[PredictionWriter()])
    words = [(row, "name") for row in rows()[0]]
    with pytest.warns(UserWarning, match="no tensors for label, which predictions.npz lacks"):
        run.predict(classifier(), DataLoader(words, batch_size=4))
    assert set(np.load(tmp_path / "predictions.npz")) == {"probabilities", "rate", "mean", "index"}


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        return iter(zip(*rows(), strict=True))


@pytest.mark.parametrize(
    "loader",
    [DataLoader(Stream(), batch_size=4), DataLoader([rows(4), rows(6)], batch_size=None)],
    ids=["stream", "made"],
)
def test_rows_that_have_no_index_are_written_without_one(loader: Any, tmp_path: Path) -> None:
    run = trainer(default_root_dir=tmp_path, callbacks=[PredictionWriter()])
    run.predict(classifier(), loader, return_predictions=False)
    with np.load(tmp_path / "predictions.npz") as file:
        assert "index" not in file
        assert len(file["rate"]) == 10
