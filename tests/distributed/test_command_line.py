"""Recipes on two processes, started by themselves, by torchrun and by SLURM; stopped, and resumed."""

import csv
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_bottleneck.cli.recipes import recipe_paths
from tests.cli.resume.test_exact_resume import assert_same
from tests.distributed.process_group import run_group
from tests.started import as_slurm_does, as_torchrun_does, checkpoints, free_port, rows, start

PATHS = recipe_paths()


def arguments(recipe: str, strategy: str, *more: str) -> list[str]:
    """Of four steps on two processes."""
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


def launch(arguments: list[str], folder: Path, as_launched: Callable[[int, int], dict[str, str]]) -> list[Any]:
    """Start both processes in a folder, as a launcher of clusters does."""
    port = free_port()
    quiet = {"CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
    folder.mkdir(exist_ok=True)
    return [start(arguments, folder / "log.txt", as_launched(rank, port) | quiet, folder) for rank in range(2)]


def join(processes: list[Any], folder: Path, codes: tuple[int, int] = (0, 0)) -> None:
    """Wait for both."""
    for process in processes:
        process.join(120)
    assert tuple(process.exitcode for process in processes) == codes, (folder / "log.txt").read_text()[-3000:]


def test_fit_on_two_processes_leaves_one_run(tmp_path: Path) -> None:
    beta = ["--model.init_args.beta=lit_bottleneck.beta.DualBeta", "--model.init_args.beta.init_args.capacity=4"]
    command = [sys.executable, "-m", "lit_bottleneck", *arguments("vib_digits", "trainer/ddp", *beta)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = run_group(command, cwd=tmp_path, environment=environment)
    assert done.returncode == 0, done.stderr[-3000:]

    [folder] = (tmp_path / "runs" / "vib_digits").iterdir()
    assert [path.parent for path in tmp_path.rglob("metrics.csv")] == [folder]
    assert [path.parent for path in tmp_path.rglob("config.yaml")] == [folder]
    [checkpoint] = tmp_path.rglob("*.ckpt")
    assert done.stdout.count(f"checkpoint: {checkpoint.relative_to(tmp_path)}") == 1
    assert yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["devices"] in (2, "2")

    with open(folder / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    for stage in ("val", "test"):
        [row] = [row for row in rows if row[f"{stage}/loss"]]
        measured = {name.split("/")[1]: float(value) for name, value in row.items() if name.startswith(stage)}
        assert 0 <= measured["accuracy"] <= 1
        assert 0 <= measured["calibration_error"] <= 1
        assert 0 < measured["cross_entropy"] < 3
        assert measured["rate"] > 0
        assert measured["loss"] > measured["cross_entropy"]
    training = [row for row in rows if row["train/beta"]]
    assert [int(row["step"]) for row in training] == [1, 3]
    assert float(training[0]["train/beta"]) == pytest.approx(1e-3, rel=0.04)
    assert sum(line.startswith("epoch 1/1  step 4") for line in done.stderr.splitlines()) == 1


def test_a_vae_on_two_processes_measures_and_draws_once(tmp_path: Path) -> None:
    objective = ["--model.init_args.objective=lit_bottleneck.BetaTC", "--model.init_args.objective.init_args.gamma=2"]
    join(launch(arguments("vae_digits", "trainer/ddp", *objective), tmp_path, as_torchrun_does), tmp_path)

    [folder] = (tmp_path / "runs" / "vae_digits").iterdir()
    assert len(list(folder.glob("pictures/*.png"))) == len(list(tmp_path.rglob("*.png"))) == 4
    with open(folder / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    for stage in ("train", "val", "test"):
        measured = [row for row in rows if row[f"{stage}/elbo"]]
        for row in measured:
            distortion, rate = float(row[f"{stage}/distortion"]), float(row[f"{stage}/rate"])
            tolerance = 0.02 if stage == "train" else 1e-4  # in training the rate alone is of both processes
            assert float(row[f"{stage}/elbo"]) == pytest.approx(-(distortion + rate), rel=tolerance)
        assert measured
    [row] = [row for row in rows if row["test/log_likelihood"]]
    assert float(row["test/log_likelihood"]) > float(row["test/elbo"])


def test_a_gan_on_two_processes_measures_and_draws_once(tmp_path: Path) -> None:
    join(launch(arguments("vdbgan_digits", "trainer/ddp_gan"), tmp_path, as_slurm_does), tmp_path)

    [folder] = (tmp_path / "runs" / "vdbgan_digits").iterdir()
    assert sorted(path.name for path in tmp_path.rglob("*.png")) == ["interpolation-0001.png", "samples-0001.png"]
    assert len(list(folder.glob("pictures/*.png"))) == 2
    with open(folder / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    [row] = [row for row in rows if row["test/loss"]]
    assert float(row["test/rate"]) == pytest.approx(
        (float(row["test/rate_real"]) + float(row["test/rate_generated"])) / 2, rel=1e-5
    )
    assert float(row["test/frechet_distance_raw_256"]) > 0  # two batches of 64 on each
    assert [float(row["train/generator_steps"]) for row in rows if row["train/generator_steps"]] == [2, 4]


TWO_LOGGERS = """
trainer:
  logger:
    - {class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: runs, name: vae_digits}}
    - {class_path: lightning.pytorch.loggers.WandbLogger, init_args: {save_dir: wandb_runs, offline: true}}
"""


def test_both_are_told_to_end_and_go_on_as_one_run(tmp_path: Path) -> None:
    settings = ["--trainer.limit_train_batches=1.0", "--trainer.max_epochs=12", "--trainer.log_every_n_steps=1"]
    fit = arguments("vae_digits", "trainer/ddp", *settings)
    join(launch(fit, tmp_path / "alone", as_torchrun_does), tmp_path / "alone")

    stopped = tmp_path / "stopped"
    processes = launch([*fit, "--config", TWO_LOGGERS], stopped, as_torchrun_does)
    run = stopped / "runs" / "vae_digits" / "version_0"
    while not (run / "resume.ckpt").exists():
        assert all(process.is_alive() for process in processes)
        time.sleep(0.01)
    for process in processes:
        os.kill(process.pid, signal.SIGTERM)
    join(processes, stopped, (128 + signal.SIGTERM, 0))
    join(launch(["resume", str(run)], stopped, as_torchrun_does), stopped)

    alone = tmp_path / "alone" / "runs" / "vae_digits" / "version_0"
    assert rows(run) == rows(alone)
    assert_same(checkpoints(run), checkpoints(alone))
    first, second = sorted((stopped / "wandb_runs" / "wandb").glob("offline-run-*"))  # of the first process alone
    assert first.name.split("-")[-1] == second.name.split("-")[-1]  # the id of the run
