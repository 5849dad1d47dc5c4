"""A training process that is killed at any moment, and resumed, ends as the one that runs through."""

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from lit_bottleneck.callbacks import ResumePoint, run_folder
from lit_bottleneck.cli.recipes import recipe_paths
from tests.cli.resume.trainings import assert_same
from tests.started import checkpoints, finish, rows, start, stop

SIGN, HOLD = "trains", "hold"  # files in the folder of runs


class Wait(Callback):
    """Touch a file at every batch that has a resume point; while another file exists, wait in the last epoch."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if (run_folder(trainer) / "resume.ckpt").exists():
            (self.folder / SIGN).touch()
        [point] = [callback for callback in trainer.callbacks if isinstance(callback, ResumePoint)]  # type: ignore[attr-defined]
        while trainer.current_epoch + 1 == trainer.max_epochs and (self.folder / HOLD).exists():
            if point._told_to_end:
                break
            time.sleep(0.01)


def fit(recipe: str, epochs: int, folder: Path) -> list[str]:
    """Return the arguments of a run in ``folder`` that writes a resume point every three steps."""
    overlay = folder / "overlay.yaml"
    overlay.parent.mkdir(parents=True, exist_ok=True)
    overlay.write_text(
        "trainer:\n  callbacks+:\n    - class_path: lit_bottleneck.callbacks.ResumePoint\n"
        "      init_args: {every_n_steps: 3}\n"
        f"    - class_path: tests.cli.resume.test_killed_runs.Wait\n      init_args: {{folder: '{folder}'}}\n"
    )
    return [
        *["fit", "--config", str(recipe_paths()[recipe]), "--config", str(overlay)],
        *["--trainer.accelerator=cpu", f"--trainer.max_epochs={epochs}", "--trainer.log_every_n_steps=1"],
        *["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"],
        *[f"--trainer.logger.init_args.save_dir={folder}", "--trainer.deterministic=true"],
    ]


def assert_survives(recipe: str, epochs: int, kills: int, longest: float, seed: int, tmp_path: Path) -> None:
    """Kill a run at moments up to ``longest`` seconds after its first batch (or its start), and resume it."""
    alone, stopped = tmp_path / "alone", tmp_path / "stopped"
    finish(fit(recipe, epochs, alone), tmp_path / "alone.txt")

    moments = random.Random(seed)
    run = stopped / recipe / "version_0"
    log = tmp_path / "stopped.txt"
    resume = ["resume", str(run)]
    first = fit(recipe, epochs, stopped)
    (stopped / HOLD).touch()
    for kill in range(kills):
        signum = moments.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        starting = kill > 0 and moments.random() < 0.2
        process = start(resume if kill else first, log)
        code = stop(process, moments.uniform(0, longest), signum, sign=None if starting else stopped / SIGN)
        assert code in (-signum, 128 + signum), log.read_text()
    (stopped / HOLD).unlink()
    finish(resume, log)

    assert not (run / "resume.ckpt").exists()
    assert rows(run) == rows(alone / recipe / "version_0")
    found, expected = checkpoints(run), checkpoints(alone / recipe / "version_0")
    assert expected
    assert_same(found, expected)
    assert 1 <= log.read_text().count("resuming from") <= kills


def test_killed_twice(tmp_path: Path) -> None:
    assert_survives("vib_digits", epochs=6, kills=2, longest=0.5, seed=0, tmp_path=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "epochs"), [("vib_digits", 300), ("vae_digits", 200), ("vdbgan_digits", 80)])
def test_killed_twenty_times(recipe: str, epochs: int, tmp_path: Path) -> None:
    assert_survives(recipe, epochs, kills=20, longest=1.5, seed=1, tmp_path=tmp_path)
