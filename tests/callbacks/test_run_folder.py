"""The folder of a run, for each kind of logger."""

from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from torch.utils.data import DataLoader, TensorDataset

from lit_bottleneck import VIBClassifier
from lit_bottleneck.callbacks import run_folder
from lit_bottleneck.networks import MLP
from tests.quiet import trainer


def trained(folder: Path, logger: Any) -> Trainer:
    run = trainer(default_root_dir=folder, logger=logger, max_steps=1, log_every_n_steps=1, enable_checkpointing=True)
    rows = TensorDataset(torch.randn(8, 6), torch.arange(8) % 3)
    run.fit(VIBClassifier(MLP(6, [], 4), latent_dim=2, num_classes=3), DataLoader(rows, batch_size=4))
    return run


def beside_the_checkpoint(run: Trainer) -> Path:
    """Return the folder in which Lightning itself has put the files of this run."""
    return Path(run.checkpoint_callback.best_model_path).parents[1]


@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger])
def test_it_is_the_loggers_folder_one_for_each_run(kind: Any, tmp_path: Path) -> None:
    first, second = (trained(tmp_path / "root", kind(tmp_path, name="mine")) for _ in range(2))
    assert run_folder(first) == tmp_path / "mine" / "version_0" == beside_the_checkpoint(first)
    assert run_folder(second) == tmp_path / "mine" / "version_1" == beside_the_checkpoint(second)


def test_each_run_of_wandb_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(project="mine", save_dir=tmp_path, offline=True)
    try:
        run = trained(tmp_path / "root", logger)
        assert run_folder(run) == tmp_path / "mine" / logger.experiment.id == beside_the_checkpoint(run)
        assert logger.experiment.summary["train/rate"] >= 0
    finally:
        wandb.finish()


def test_without_a_logger_it_is_the_default_folder_and_with_several_that_of_the_first(tmp_path: Path) -> None:
    run = trained(tmp_path, False)
    assert run_folder(run) == tmp_path == beside_the_checkpoint(run)
    run = trained(tmp_path, [CSVLogger(tmp_path, name="a"), CSVLogger(tmp_path, name="b")])
    assert run_folder(run) == tmp_path / "a" / "version_0"
