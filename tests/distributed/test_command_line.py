"""Recipes on two processes, started by Lightning, as by torchrun and as by SLURM; stopped and resumed."""

import errno
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from lit_bottleneck.cli.recipes import recipe_paths
from tests.cli.resume.trainings import assert_same
from tests.started import PATIENCE, as_slurm_does, as_torchrun_does, checkpoints, free_port, rows, start

PATHS = recipe_paths()
QUIET = {"CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}


def arguments(recipe: str, strategy: str, *more: str) -> list[str]:
    """Fit a recipe for four steps on two processes."""
    settings = {
        "accelerator": "cpu",
        "devices": "2",
        "max_epochs": "1",
        "limit_train_batches": "4",
        "limit_val_batches": "2",
        "limit_test_batches": "2",
        "log_every_n_steps": "2",
    }
    recipes = ["--config", str(PATHS[recipe]), "--config", str(PATHS[strategy])]
    return ["fit", *recipes, *(f"--trainer.{name}={value}" for name, value in settings.items()), *more]


def launch(
    arguments: list[str],
    folder: Path,
    environment: Callable[[int, int], dict[str, str]],
    codes: tuple[int, int] = (0, 0),
) -> None:
    """Start both processes in a folder, as a cluster's launcher does, and wait until they have ended."""
    port = free_port()
    folder.mkdir(exist_ok=True)
    log = folder / "log.txt"
    processes = [start(arguments, log, environment(rank, port) | QUIET, folder) for rank in range(2)]
    for process in processes:
        process.join(PATIENCE)
    assert tuple(process.exitcode for process in processes) == codes, log.read_text()[-3000:]


def column(rows: list[dict[str, str]], name: str) -> list[float]:
    return [float(row[name]) for row in rows if name in row]


def test_fit_on_two_processes_leaves_one_run(tmp_path: Path) -> None:
    beta = ["--model.init_args.beta=lit_bottleneck.beta.DualBeta", "--model.init_args.beta.init_args.capacity=4"]
    log = tmp_path / "log.txt"
    process = start(arguments("vib_digits", "trainer/ddp", *beta), log, QUIET, tmp_path)
    process.join(PATIENCE)
    output = log.read_text()
    assert process.exitcode == 0, output[-3000:]

    [folder] = (tmp_path / "runs" / "vib_digits").iterdir()
    assert [path.parent for path in tmp_path.rglob("metrics.csv")] == [folder]
    assert [path.parent for path in tmp_path.rglob("config.yaml")] == [folder]
    [checkpoint] = tmp_path.rglob("*.ckpt")
    assert output.count(f"checkpoint: {checkpoint.relative_to(tmp_path)}") == 1
    assert output.count("epoch 1/1  step 4") == 1
    assert yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["devices"] in (2, "2")

    logged = rows(folder)
    for stage in ("val", "test"):
        [row] = [row for row in logged if f"{stage}/loss" in row]
        measured = {name.split("/")[1]: float(value) for name, value in row.items() if name.startswith(stage)}
        assert 0 <= measured["accuracy"] <= 1
        assert 0 <= measured["calibration_error"] <= 1
        assert 0 < measured["cross_entropy"] < 3
        assert measured["rate"] > 0
        assert measured["loss"] > measured["cross_entropy"]
    assert [row["step"] for row in logged if "train/beta" in row] == ["1", "3"]
    assert column(logged, "train/beta")[0] == pytest.approx(1e-3, rel=0.04)


@pytest.mark.slow
def test_a_vae_on_two_processes_measures_and_draws_once(tmp_path: Path) -> None:
    objective = ["--model.init_args.objective=lit_bottleneck.BetaTC", "--model.init_args.objective.init_args.gamma=2"]
    launch(arguments("vae_digits", "trainer/ddp", *objective), tmp_path, as_torchrun_does)

    [folder] = (tmp_path / "runs" / "vae_digits").iterdir()
    assert len(list(folder.glob("pictures/*.png"))) == len(list(tmp_path.rglob("*.png"))) == 4
    logged = rows(folder)
    for stage in ("train", "val", "test"):
        elbo, distortion, rate = (column(logged, f"{stage}/{name}") for name in ("elbo", "distortion", "rate"))
        tolerance = 0.02 if stage == "train" else 1e-4  # in training only the rate is that of both processes
        assert elbo
        assert elbo == pytest.approx([-(d + r) for d, r in zip(distortion, rate, strict=True)], rel=tolerance)
    assert column(logged, "test/log_likelihood") > column(logged, "test/elbo")


def test_a_gan_on_two_processes_measures_and_draws_once(tmp_path: Path) -> None:
    launch(arguments("vdbgan_digits", "trainer/ddp_gan"), tmp_path, as_slurm_does)

    [folder] = (tmp_path / "runs" / "vdbgan_digits").iterdir()
    pictures = ["interpolation-0001.png", "samples-0001.png"]
    assert sorted(path.name for path in tmp_path.rglob("*.png")) == pictures
    assert sorted(path.name for path in folder.glob("pictures/*.png")) == pictures
    logged = rows(folder)
    [rate], [real], [generated] = (column(logged, f"test/rate{kind}") for kind in ("", "_real", "_generated"))
    assert rate == pytest.approx((real + generated) / 2, rel=1e-5)
    assert column(logged, "test/frechet_distance_raw_256")[0] > 0  # two batches of 64 on each
    assert column(logged, "train/generator_steps") == [2, 4]


class EndInStepFive(Callback):
    """Send each process the signal with which clusters end a job, in the fifth of its steps."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == 4:
            os.kill(os.getpid(), signal.SIGTERM)


STOPPED = """
trainer:
  logger:
    - {class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: runs, name: vae_digits}}
    - {class_path: lightning.pytorch.loggers.WandbLogger, init_args: {save_dir: wandb_runs, offline: true}}
  callbacks+:
    - {class_path: tests.distributed.test_command_line.EndInStepFive}
"""


@pytest.mark.slow
def test_two_processes_that_are_ended_resume_as_one_run(tmp_path: Path) -> None:
    settings = ["--trainer.limit_train_batches=1.0", "--trainer.max_epochs=2", "--trainer.log_every_n_steps=1"]
    fit = arguments("vae_digits", "trainer/ddp", *settings)
    alone, stopped = tmp_path / "alone", tmp_path / "stopped"
    launch(fit, alone, as_torchrun_does)
    launch([*fit, "--config", STOPPED], stopped, as_torchrun_does, codes=(128 + signal.SIGTERM,) * 2)
    run = "runs/vae_digits/version_0"
    assert len(rows(stopped / run)) == 5
    launch(["resume", str(stopped / run)], stopped, as_torchrun_does)

    assert rows(stopped / run) == rows(alone / run)
    assert_same(checkpoints(stopped / run), checkpoints(alone / run))
    first, second = sorted((stopped / "wandb_runs" / "wandb").glob("offline-run-*"))  # written by one process
    assert first.name.split("-")[-1] == second.name.split("-")[-1]  # the id of the run


class FailsAlone(Callback):
    """Fill the disk of one process, in training or when it writes its predictions."""

    def __init__(self, rank: int, hook: str) -> None:
        setattr(self, hook, self.fail)
        self.rank = rank

    def fail(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_rank == self.rank:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def failing(rank: int, hook: str) -> list[str]:
    return [
        f"--trainer.callbacks+={__name__}.FailsAlone",
        f"--trainer.callbacks.init_args.rank={rank}",
        f"--trainer.callbacks.init_args.hook={hook}",
    ]


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_the_error_of_one_process_ends_the_other(rank: int, tmp_path: Path) -> None:
    settings = arguments("vib_digits", "trainer/ddp", *failing(rank, "on_train_batch_end"))
    launch(settings, tmp_path, as_torchrun_does, codes=(1, 1))
    log = (tmp_path / "log.txt").read_text()
    assert re.search(r"OSError: \[Errno 28\] No space left on device: '.*vib_digits.*'", log)


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "hook"), [(0, "on_train_batch_end"), (1, "on_test_end")])
def test_the_error_of_a_process_that_lightning_started_is_one_of_the_command(
    rank: int, hook: str, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    process = start(arguments("vib_digits", "trainer/ddp", *failing(rank, hook)), log, QUIET, tmp_path)
    process.join(PATIENCE)
    assert process.exitcode == 1, log.read_text()[-3000:]
    assert "No space left on device: '" in log.read_text()
