"""ProgressBar: a bar on a terminal, one line per epoch elsewhere."""

import logging
import re
import sys
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader, TensorDataset

from lit_bottleneck import VIBClassifier
from lit_bottleneck.callbacks import ProgressBar
from lit_bottleneck.networks import MLP
from tests.quiet import trainer


@pytest.fixture(autouse=True)
def only_the_bar(caplog: pytest.LogCaptureFixture) -> None:
    """Silence Lightning's own messages on stderr."""
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        caplog.set_level(logging.ERROR, logger=name)


def fit(evaluate: bool = True, **kwargs: Any) -> Trainer:
    torch.manual_seed(0)
    model = VIBClassifier(MLP(6, [8], 8), latent_dim=4, num_classes=3, beta=0.25)
    run = trainer(**{"enable_progress_bar": True, "callbacks": [ProgressBar()], "max_epochs": 2} | kwargs)
    data = DataLoader(TensorDataset(torch.randn(20, 6), torch.arange(20) % 3), batch_size=4)
    run.fit(model, data, data)
    if evaluate:
        run.validate(model, data, verbose=False)
        run.predict(model, data, return_predictions=False)
    return run


def test_without_a_terminal_there_is_one_line_per_epoch_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    fit()
    printed = capfd.readouterr()
    lines = printed.err.splitlines()
    assert len(lines) == 2
    number = r"[-+.e\d]+"
    for epoch, line in enumerate(lines, start=1):
        assert line.startswith(f"epoch {epoch}/2  step {5 * epoch}  ")
        for name in ("train/loss", "train/rate", "val/accuracy"):
            assert len(re.findall(rf"{name} {number}(?:  |$)", line)) == 1
        assert "train/beta 0.25" in line
    assert "\r" not in printed.out + printed.err
    assert "it/s" not in printed.out


def test_the_line_has_the_metrics_of_the_epoch(capfd: pytest.CaptureFixture[str]) -> None:
    run = fit(evaluate=False, max_epochs=1)
    [line] = capfd.readouterr().err.splitlines()
    found = dict(re.findall(r"(\S+) ([-+.e\d]+)(?:  |$)", line.split("  ", 2)[2]))
    assert set(found) == {"train/loss", "train/rate", "train/beta", "val/accuracy"}
    assert found == {name: f"{run.callback_metrics[name].item():.4g}" for name in found}


def test_without_max_epochs_the_line_has_the_epoch_alone(capfd: pytest.CaptureFixture[str]) -> None:
    fit(max_epochs=-1, max_steps=5)
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith("epoch 1  step 5  ")


@pytest.mark.parametrize("end", [{"max_epochs": 101}, {"max_epochs": -1, "max_steps": 101}])
def test_there_are_at_most_a_hundred_lines(end: dict[str, int], capfd: pytest.CaptureFixture[str]) -> None:
    fit(evaluate=False, limit_train_batches=1, limit_val_batches=0, **end)
    epochs = [int(line.split()[1].partition("/")[0]) for line in capfd.readouterr().err.splitlines()]
    assert epochs == [*range(2, 101, 2), 101]


def test_on_a_terminal_there_is_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    fit()
    printed = capsys.readouterr()
    bar = printed.out + printed.err
    assert "Epoch 1" in bar
    assert "it/s" in bar
    assert "train/beta=0.25" in bar
    assert not re.search(r"^epoch \d", bar, re.MULTILINE)


def test_redirected_standard_output_has_no_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``lit-bottleneck fit ... > log.txt`` from a terminal: stderr is one, stdout is not."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fit()
    assert "it/s" not in capsys.readouterr().out
