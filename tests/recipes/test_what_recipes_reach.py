"""What the digits recipe reaches, for whoever has minutes: the figures are in recipes/RESULTS.md."""

import csv
import statistics
from pathlib import Path

import pytest

from lit_bottleneck.cli import main
from lit_bottleneck.recipes import recipe_paths

pytestmark = pytest.mark.slow
DIGITS = ["fit", "--config", str(recipe_paths()["vib_digits"])]


def logged(name: str) -> list[float]:
    """The values of a metric in the run's file, in their order."""
    with Path("runs/vib_digits/version_0/metrics.csv").open() as file:
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
