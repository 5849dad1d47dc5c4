"""Recipes reach the figures of recipes/RESULTS.md, in minutes."""

import csv
import statistics
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

from lit_bottleneck.cli import main
from lit_bottleneck.cli.recipes import recipe_paths
from lit_bottleneck.data import Table

pytestmark = pytest.mark.slow
COVERAGE = ("good", "modes", "smallest_mode", "spread_min", "spread_max")
DIGITS = ["fit", "--config", str(recipe_paths()["vib_digits"])]


def logged(name: str, recipe: str = "vib_digits") -> list[float]:
    """Return the values of a metric in the run's file, in their order."""
    with Path(f"runs/{recipe}/version_0/metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def test_mean_accuracy_over_five_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = []
    for seed in range(1, 6):
        (tmp_path / str(seed)).mkdir()
        monkeypatch.chdir(tmp_path / str(seed))
        main([*DIGITS, "--seed_everything", str(seed)])
        accuracies += logged("test/accuracy")

    assert len(accuracies) == 5
    assert statistics.mean(accuracies) >= 0.975


def over_seeds(recipe: str, metric: str, folder: Path, patch: pytest.MonkeyPatch, *arguments: str) -> float:
    """Return the mean of a metric over five seeds."""
    values = []
    for seed in range(5):
        (folder / str(seed)).mkdir()
        patch.chdir(folder / str(seed))
        main(["fit", "--config", str(recipe_paths()[recipe]), "--seed_everything", str(seed), *arguments])
        values += logged(metric, recipe)
    assert len(values) == 5
    return statistics.mean(values)


def test_mean_accuracy_on_tumours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RESULTS.md has 95.9 % over ten seeds, with a standard deviation of 1.4."""
    assert over_seeds("vib_breast_cancer", "test/accuracy", tmp_path, monkeypatch) >= 0.95


def test_the_twin_of_vib_diabetes_is_as_good_as_ridge_regression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = over_seeds("vib_diabetes", "test/r2", tmp_path, monkeypatch, "--model.init_args.deterministic=true")
    table = Table("diabetes", val_size=0.2)
    (x, y), (x_test, y_test) = (table.dataset(part)[range(len(table.dataset(part)))] for part in ("train", "test"))
    ridge = RidgeCV(np.logspace(-3, 3, 25)).fit(x.numpy(), y.numpy())
    assert twin >= ridge.score(x_test.numpy(), y_test.numpy()) - 0.02


@pytest.mark.parametrize("capacity", [2, 8, 20])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_dual_beta_holds_the_rate_at_the_capacity(
    capacity: int, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    beta = ["--model.init_args.beta", "lit_bottleneck.beta.DualBeta"]
    beta += ["--model.init_args.beta.init_args.capacity", str(capacity)]
    steps = ["--trainer.max_epochs", "-1", "--trainer.max_steps", "3000", "--trainer.log_every_n_steps", "1"]
    main([*DIGITS, "--seed_everything", str(seed), *beta, *steps])

    rates = logged("train/rate")
    assert len(rates) == 3000
    assert statistics.mean(rates[-600:]) == pytest.approx(capacity, rel=0.05)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_ring_is_covered_at_the_capacity(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    main(["fit", "--config", str(recipe_paths()["vdbgan_ring"]), "--seed_everything", str(seed)])

    measured = {name: logged(f"test/coverage_{name}", "vdbgan_ring")[-1] for name in COVERAGE}
    assert measured["modes"] == 8
    assert measured["smallest_mode"] >= 0.05
    assert measured["good"] >= 0.9
    assert measured["spread_min"] >= 0.5
    assert measured["spread_max"] <= 1.5
    rates = logged("train/rate", "vdbgan_ring")
    assert statistics.mean(rates[-len(rates) // 5 :]) == pytest.approx(1.0, rel=0.05)


def test_a_policy_swings_up_a_pendulum_by_imitation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The expert's return is about -170; a policy that does nothing has about -1200."""
    monkeypatch.chdir(tmp_path)
    main(["fit", "--config", str(recipe_paths()["vail_pendulum"])])
    assert logged("train/return", "vail_pendulum")[-1] > -260
    rates = logged("train/rate", "vail_pendulum")
    assert statistics.mean(rates[-len(rates) // 5 :]) == pytest.approx(0.5, rel=0.1)
