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


def trained(folder: Path, logger: Any) -> Trainer:
    trainer = Trainer(
        default_root_dir=folder,
        logger=logger,
        accelerator="cpu",
        max_steps=1,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    rows = TensorDataset(torch.randn(8, 6), torch.arange(8) % 3)
    trainer.fit(VIBClassifier(MLP(6, [], 4), latent_dim=2, num_classes=3), DataLoader(rows, batch_size=4))
    return trainer


def beside_the_checkpoint(trainer: Trainer) -> Path:
    """Where Lightning itself has put the files of this run."""
    return Path(trainer.checkpoint_callback.best_model_path).parents[1]


@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger])
def test_it_is_where_the_logger_writes_and_another_one_for_each_run(kind: Any, tmp_path: Path) -> None:
    first, second = (trained(tmp_path / "root", kind(tmp_path, name="mine")) for _ in range(2))
    assert run_folder(first) == tmp_path / "mine" / "version_0" == beside_the_checkpoint(first)
    assert run_folder(second) == tmp_path / "mine" / "version_1" == beside_the_checkpoint(second)


def test_it_is_that_of_the_run_and_not_of_all_runs_of_weights_and_biases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(project="mine", save_dir=tmp_path, offline=True)
    try:
        trainer = trained(tmp_path / "root", logger)
        assert run_folder(trainer) == tmp_path / "mine" / logger.experiment.id == beside_the_checkpoint(trainer)
        assert logger.experiment.summary["train/rate"] >= 0
    finally:
        wandb.finish()


def test_without_a_logger_it_is_the_default_folder(tmp_path: Path) -> None:
    trainer = trained(tmp_path, False)
    assert run_folder(trainer) == tmp_path == beside_the_checkpoint(trainer)


def test_of_several_loggers_it_is_that_of_the_first(tmp_path: Path) -> None:
    trainer = trained(tmp_path, [CSVLogger(tmp_path, name="a"), CSVLogger(tmp_path, name="b")])
    assert run_folder(trainer) == tmp_path / "a" / "version_0"
