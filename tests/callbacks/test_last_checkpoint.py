"""A training in which no checkpoint was chosen ends with one of its last weights."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_bottleneck.callbacks.last_checkpoint import LastCheckpoint, chosen_checkpoints

FINITE, NAN = [3.0, 2.0, 1.0], [float("nan")] * 3


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, "lightning_utilities.core.rank_zero"):
        yield


class Line(LightningModule):
    """A model that logs given values in its validations."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.layer, self.values = nn.Linear(3, 1), values

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss: Tensor = self.layer(batch).square().mean()
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/loss", self.values[min(self.current_epoch, len(self.values) - 1)])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Points(LightningDataModule):
    """Eight batches an epoch, and some to validate on."""

    def __init__(self, held_out: int = 4) -> None:
        super().__init__()
        self.held_out = held_out

    def train_dataloader(self) -> Any:
        return DataLoader(torch.ones(32, 3), batch_size=4)  # type: ignore[arg-type]

    def val_dataloader(self) -> Any:
        return DataLoader(torch.ones(self.held_out, 3), batch_size=4)  # type: ignore[arg-type]


def train(folder: Path, *callbacks: Callback, values: list[float] = FINITE, held_out: int = 4, **settings: Any) -> Any:
    torch.manual_seed(0)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    logger = CSVLogger(folder, name="", version="run")
    trainer = Trainer(
        **{"logger": logger, "max_epochs": 3, **quiet, **settings}, callbacks=[*callbacks, LastCheckpoint()]
    )
    trainer.fit(Line(values), Points(held_out))
    return trainer


def checkpoint(**settings: Any) -> ModelCheckpoint:
    return ModelCheckpoint(**{"monitor": "val/loss", "filename": "best", **settings})


LEFT_NOTHING: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no validation": ({}, {"limit_val_batches": 0}, "there are no validation batches"),
    "an empty validation set": ({}, {"held_out": 0}, "there are no validation batches"),
    "validation too late": ({}, {"check_val_every_n_epoch": 100}, "no validation ran, check_val_every_n_epoch=100"),
    "an end before it": ({}, {"max_steps": 5}, "no validation ran, check_val_every_n_epoch=1"),
    "values that are NaN": ({}, {"values": NAN}, "it was never finite"),
    "a turn that never comes": ({"every_n_epochs": 5}, {}, "its turn did not come, save_top_k=1, every_n_epochs=5"),
    "none wanted of a callback": ({"save_top_k": 0}, {}, "its turn did not come, save_top_k=0, every_n_epochs=1"),
}


@pytest.mark.parametrize(("kept", "settings", "why"), LEFT_NOTHING.values(), ids=LEFT_NOTHING)
def test_a_training_that_would_leave_nothing_leaves_its_last_weights(
    kept: dict[str, Any], settings: dict[str, Any], why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = train(tmp_path, checkpoint(**kept), **settings)
    path = tmp_path / "run/checkpoints/last.ckpt"
    assert chosen_checkpoints(trainer) == [str(path)]
    held = torch.load(path, weights_only=True)
    assert held["global_step"] == trainer.global_step > 0
    assert held["state_dict"].keys() == trainer.model.state_dict().keys()
    assert all(torch.equal(held["state_dict"][name], value) for name, value in trainer.model.state_dict().items())
    assert f"written: {path}, the last weights, of step {trainer.global_step}" in caplog.text
    assert f"(ModelCheckpoint(monitor='val/loss'): {why})" in caplog.text


@pytest.mark.parametrize(
    ("kept", "settings"),
    [
        ([{}], {}),
        ([{"monitor": None}], {"limit_val_batches": 0}),
        ([{"every_n_train_steps": 4, "monitor": None}], {"max_steps": 5}),
        ([{"monitor": "val/loss", "every_n_epochs": 5}, {"monitor": None}], {}),
        ([{}], {"values": [float("nan"), 1.0, 2.0]}),
    ],
)
def test_a_training_with_a_chosen_checkpoint_gets_no_other(
    kept: list[dict[str, Any]], settings: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = train(tmp_path, *(checkpoint(**one) for one in kept), **settings)
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["best.ckpt"]
    assert chosen_checkpoints(trainer) == [str(tmp_path / "run/checkpoints/best.ckpt")]
    assert "the last weights" not in caplog.text


def test_it_is_the_last_that_save_last_wrote(tmp_path: Path) -> None:
    trainer = train(tmp_path, checkpoint(save_top_k=0, save_last=True))
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["last.ckpt"]
    assert chosen_checkpoints(trainer) == [str(tmp_path / "run/checkpoints/last.ckpt")]


def test_without_a_step_there_is_nothing_to_keep(tmp_path: Path) -> None:
    trainer = train(tmp_path, checkpoint(), max_epochs=0)
    assert chosen_checkpoints(trainer) == []
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_folder_that_runs_share_keeps_the_last_of_each(tmp_path: Path) -> None:
    settings = {"logger": False, "default_root_dir": tmp_path, "check_val_every_n_epoch": 100}
    first = train(tmp_path, checkpoint(), **settings, max_epochs=1)
    second = train(tmp_path, checkpoint(), **settings)
    folder = tmp_path / "checkpoints"
    assert chosen_checkpoints(first) == [str(folder / "last.ckpt")]
    assert chosen_checkpoints(second) == [str(folder / "last-v1.ckpt")]
    steps = [torch.load(folder / name, weights_only=True)["global_step"] for name in ("last.ckpt", "last-v1.ckpt")]
    assert steps == [8, 24]


def test_a_training_goes_on_from_it(tmp_path: Path) -> None:
    settings = {"check_val_every_n_epoch": 100}
    train(tmp_path, checkpoint(), max_epochs=1, **settings)
    torch.manual_seed(0)
    whole = train(tmp_path / "whole", checkpoint(), max_epochs=2, **settings)
    longer = Trainer(max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    model = Line(FINITE)
    longer.fit(model, Points(0), ckpt_path=tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert torch.equal(model.layer.weight, whole.model.layer.weight)


def test_a_trial_run_counts_no_checkpoint_of_another_run_as_its_own(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.ckpt").touch()
    trainer = Trainer(fast_dev_run=True, default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False)
    trainer.fit(Line(FINITE), Points())
    assert chosen_checkpoints(trainer) == []
