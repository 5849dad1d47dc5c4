"""The recipe for two processes, started as a user starts it."""

import csv
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_bottleneck.recipes import recipe_paths
from tests.distributed.process_group import run_group

PATHS = recipe_paths()


def fit(recipe: str, folder: Path, *more: str, strategy: str = "trainer/ddp") -> Any:
    """Four steps on two processes."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    arguments = {
        "accelerator": "cpu",
        "devices": "2",
        "max_epochs": "1",
        "limit_train_batches": "4",
        "limit_val_batches": "2",
        "limit_test_batches": "2",
        "log_every_n_steps": "2",
    }
    command = [sys.executable, "-m", "lit_bottleneck", "fit"]
    command += ["--config", str(PATHS[recipe]), "--config", str(PATHS[strategy])]
    command += [f"--trainer.{name}={value}" for name, value in arguments.items()]
    done = run_group([*command, *more], cwd=folder, environment=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_fit_on_two_processes_leaves_one_run(tmp_path: Path) -> None:
    beta = ["--model.init_args.beta=lit_bottleneck.beta.DualBeta", "--model.init_args.beta.init_args.capacity=4"]
    done = fit("vib_digits", tmp_path, *beta)

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
    objective = "--model.init_args.objective=lit_bottleneck.BetaTC"
    fit("vae_digits", tmp_path, objective, "--model.init_args.objective.init_args.gamma=2")

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
    fit("vdbgan_digits", tmp_path, strategy="trainer/ddp_gan")

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
