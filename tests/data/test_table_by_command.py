"""Tables by the real command: fit each task to a CSV, and predict raw rows from the checkpoint when the CSV is gone."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from lightning import LightningModule
from torch import Tensor

from lit_bottleneck import VIBClassifier, VIBRegressor
from lit_bottleneck.cli import main
from lit_bottleneck.data import Table

MODELS: dict[str, tuple[type[LightningModule], dict[str, Any], list[str]]] = {
    "regression": (VIBRegressor, {"target_dims": [2]}, ["score", "height"]),
    "classification": (VIBClassifier, {"num_classes": 3}, ["outcome"]),
    "multilabel": (VIBClassifier, {"num_classes": 2, "multilabel": True}, ["tired", "hot"]),
}
TARGETS = [name for _, _, names in MODELS.values() for name in names]


def frame(rows: int = 120) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    age, dose = generator.normal(50, 9, rows), generator.exponential(2, rows)
    dose[::9] = np.nan
    table = pd.DataFrame({"age": age, "dose": dose, "city": generator.choice(["Rome", "Oslo"], rows)})
    return table.assign(
        score=1e4 + 5 * age, height=age / 1e4, outcome=np.where(age > 55, "ill", np.where(age > 45, "fair", "well")),
        tired=age > 50, hot=(table["city"] == "Rome").astype(int),
    )  # fmt: skip


def arguments(task: str, **data: Any) -> list[str]:
    """Return the arguments of a command, by a file in the working folder."""
    kind, sizes, target = MODELS[task]
    encoder = {
        "class_path": "lit_bottleneck.networks.MLP",
        "init_args": {"in_features": 6, "hidden": [8], "out_features": 8},
    }
    table = {"path": "training.csv", "target": target, "task": task, "batch_size": 32, "val_size": 0}
    table["ignore"] = [name for name in TARGETS if name not in target]
    quiet = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "runs", "name": task}}
    model = {"encoder": encoder, "latent_dim": 4, **sizes}
    configuration = {
        "trainer": quiet | {"logger": logger},
        "model": {"class_path": f"lit_bottleneck.{kind.__name__}", "init_args": model},
        "data": {"class_path": "lit_bottleneck.data.Table", "init_args": table | data},
    }
    Path("recipe.yaml").write_text(yaml.safe_dump(configuration))
    return ["--config", "recipe.yaml"]


@pytest.mark.parametrize("task", MODELS)
def test_predict_reads_raw_rows_by_the_checkpoint_alone(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing value and an unseen category, without targets."""
    monkeypatch.chdir(tmp_path)
    frame().to_csv("training.csv", index=False)
    main(["fit", *arguments(task)])
    Path("training.csv").unlink()
    Path("new.csv").write_text("city,age,dose\nRome,70,1.5\nParis,30,\n,60,2\n")
    checkpoint = next(Path("runs").rglob("*.ckpt"))
    main(["predict", *arguments(task, predict_path="new.csv"), "--ckpt_path", str(checkpoint)])

    written = dict(np.load(f"runs/{task}/version_1/predictions.npz"))
    kind, sizes, target = MODELS[task]
    model: Any = kind.load_from_checkpoint(checkpoint, weights_only=True).eval()
    x = torch.cat(
        list(Table.load_from_checkpoint(checkpoint, weights_only=True, predict_path="new.csv").predict_dataloader())
    )
    assert x[:, 2:].tolist() == [[0, 0, 1, 0], [1, 0, 0, 1], [0, 0, 0, 1]]  # missing, Oslo, Rome, unknown
    assert torch.isfinite(x).all()
    with torch.no_grad():
        predicted: dict[str, Tensor] = model.predict_step(x, 0)
    read = {"mean", "deviation", "code"} if task == "regression" else {"probabilities", "mean"}
    assert written.keys() == read | {"rate", "index"} == predicted.keys() | {"index"}
    for name, value in predicted.items():
        np.testing.assert_allclose(written[name], value, rtol=1e-5, atol=1e-6)
    if task == "regression":  # in the units of their columns, of which one is far from 0 and one near
        spread = frame()[target].std().to_numpy()
        assert (np.abs(written["mean"] - frame()[target].mean().to_numpy()) < 5 * spread).all()
    else:
        assert written["probabilities"].shape == (3, sizes["num_classes"])
