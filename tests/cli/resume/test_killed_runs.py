"""A training process that is killed at any moment, and resumed, ends with what one that is left alone ends with."""

import random
import signal
from pathlib import Path

import pytest

from lit_bottleneck.cli.recipes import recipe_paths
from tests.cli.resume.trainings import assert_same
from tests.started import checkpoints, finish, rows, start, stop


def fit(recipe: str, epochs: int, folder: Path) -> list[str]:
    """The arguments of a run in ``folder`` that keeps a resume point every three steps."""
    overlay = folder / "overlay.yaml"
    overlay.parent.mkdir(parents=True, exist_ok=True)
    overlay.write_text(
        "trainer:\n  callbacks+:\n    - class_path: lit_bottleneck.callbacks.ResumePoint\n"
        "      init_args: {every_n_steps: 3}\n"
    )
    return [
        *["fit", "--config", str(recipe_paths()[recipe]), "--config", str(overlay)],
        *["--trainer.accelerator=cpu", f"--trainer.max_epochs={epochs}", "--trainer.log_every_n_steps=1"],
        *["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"],
        *[f"--trainer.logger.init_args.save_dir={folder}", "--trainer.deterministic=true"],
    ]


def killed_and_left_alone(recipe: str, epochs: int, kills: int, longest: float, seed: int, tmp_path: Path) -> None:
    alone, stopped = tmp_path / "alone", tmp_path / "stopped"
    finish(fit(recipe, epochs, alone), tmp_path / "alone.txt")

    moments = random.Random(seed)
    run = stopped / recipe / "version_0"
    log = tmp_path / "stopped.txt"
    resume = ["resume", str(run)]
    point = run / "resume.ckpt"
    for kill in range(kills):
        signum = moments.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        starting = kill > 0 and moments.random() < 0.2
        process = start(resume if kill else fit(recipe, epochs, stopped), log)
        code = stop(process, moments.uniform(0, longest), signum, sign=None if starting else point)
        assert code in (-signum, 128 + signum), log.read_text()
    finish(resume, log)

    assert not (run / "resume.ckpt").exists()
    assert rows(run) == rows(alone / recipe / "version_0")
    found, expected = checkpoints(run), checkpoints(alone / recipe / "version_0")
    assert expected
    assert_same(found, expected)
    assert 1 <= log.read_text().count("going on from") <= kills


def test_killed_twice(tmp_path: Path) -> None:
    killed_and_left_alone("vib_digits", epochs=20, kills=2, longest=0.5, seed=0, tmp_path=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "epochs"), [("vib_digits", 300), ("vae_digits", 200), ("vdbgan_digits", 80)])
def test_killed_twenty_times(recipe: str, epochs: int, tmp_path: Path) -> None:
    killed_and_left_alone(recipe, epochs, kills=20, longest=1.5, seed=1, tmp_path=tmp_path)
