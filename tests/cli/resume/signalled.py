"""Runs that a signal reaches at a place, and the comparison of their ends."""

import os
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from lit_bottleneck.cli.recipes import recipe_paths
from tests.cli.resume.trainings import assert_same
from tests.started import checkpoints, rows


class SignalAt(Callback):
    """Send this process a signal at a place, once, if a file names the place and the signal."""

    def __init__(self, fuse: str) -> None:
        self.fuse = Path(fuse)

    def burn(self, place: str) -> None:
        is_first = os.environ.get("LOCAL_RANK", "0") == "0"  # of two processes
        if is_first and self.fuse.exists() and self.fuse.read_text().split()[0] == place:
            number = int(self.fuse.read_text().split()[1])
            self.fuse.unlink()
            os.kill(os.getpid(), number)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.burn("setup-" + stage)

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.burn("sanity-end")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.burn("train-start")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.burn(f"epoch-{trainer.current_epoch}")

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self.burn(f"step-{trainer.global_step}")

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self.burn("sanity" if trainer.sanity_checking else f"validation-{trainer.current_epoch}")

    def on_test_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self.burn("test" if trainer.loggers else "second-test")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.burn("test-end")

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.burn("predict")


def fit(recipe: str, folder: Path, fuse: Path, *settings: str) -> list[str]:
    """Return the arguments of a short run with pictures, two checkpoints and resume points every three steps."""
    overlay = folder / "overlay.yaml"
    folder.mkdir(exist_ok=True)
    overlay.write_text(f"""
trainer:
  accelerator: cpu
  max_epochs: 2
  limit_train_batches: 5
  limit_val_batches: 2
  limit_test_batches: 2
  log_every_n_steps: 1
  deterministic: true
  enable_progress_bar: false
  enable_model_summary: false
  callbacks+:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{filename: newest, every_n_epochs: 2}}
    - class_path: lit_bottleneck.callbacks.ResumePoint
      init_args: {{every_n_steps: 3}}
    - class_path: tests.cli.resume.signalled.SignalAt
      init_args: {{fuse: '{fuse}'}}
""")
    where = f"--trainer.logger.init_args.save_dir={folder}"
    return ["fit", "--config", str(recipe_paths()[recipe]), "--config", str(overlay), where, *settings]


def begun(folder: Path) -> list[Path]:
    """Return the folders of the runs that have begun."""
    return [file.parent for file in folder.glob("*/*/config.yaml")]


def assert_equal(run: Path, whole: Path) -> None:
    """Compare a run with another: files, rows, weights."""
    assert files(run) == files(whole)
    assert rows(run) == rows(whole)
    found, expected = checkpoints(run), checkpoints(whole)
    assert expected
    assert_same(found, expected)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
