"""What a command prints: results with units, what was trained, where it is, and no line that tells nothing."""

import logging
import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning import LightningDataModule

from lit_bottleneck import VIBClassifier
from lit_bottleneck.cli import main
from lit_bottleneck.cli.recipes import recipe_paths
from lit_bottleneck.cli.terminal import closing_lines, leave_out_what_tells_nothing, with_unit
from lit_bottleneck.data import Digits
from lit_bottleneck.networks import MLP

SMOKE = [f"--config={recipe_paths()[name]}" for name in ("vib_digits", "trainer/smoke")]


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("accuracy", 0.9777158498764038, "97.77 %"),
        ("last/accuracy", 1.0, "100 %"),
        ("rate/dataloader_idx_1", 31.0337, "31.03 nats"),
        ("cross_entropy_sampled", 1e-5, "1e-05 nats"),
        ("rmse", 53.8123, "53.81"),
        ("information_lower", 9.2103, "9.21 nats"),
        ("information_saturated", 1.0, "1"),
        ("rate_of_reward", 2.0, "2"),
        ("elbo", float("nan"), "nan nats"),
    ],
)
def test_values_have_four_digits_and_their_unit(name: str, value: float, shown: str) -> None:
    assert with_unit(name, value) == shown


def test_the_end_of_a_training_says_what_it_reached_and_what_to_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["fit", *SMOKE])
    printed = capsys.readouterr()
    assert not re.search("flops|already configured", printed.out, re.IGNORECASE)
    assert re.search("0 +Total Flops|already configured", printed.err) is None
    lines = printed.out.splitlines()
    [trained] = [line for line in lines if line.startswith("trained ")]
    folder, checkpoint, following = lines[lines.index(trained) + 1 :]
    assert re.fullmatch(r"trained VIBClassifier on Digits: 1 epoch, 4 steps, [\d.]+ s", trained)
    assert re.fullmatch(r"  accuracy +[\d.]+ %", next(line for line in lines if "accuracy" in line))
    assert re.fullmatch(r"  rate +[\d.]+ nats", next(line for line in lines if " rate" in line))

    assert Path(checkpoint.removeprefix("checkpoint: ")).is_file()
    program, *words = following.removeprefix("next: ").split()
    assert program == "lit-bottleneck"
    main(words)
    assert [*tmp_path.rglob("predictions.npz")]
    assert Path(folder.removeprefix("run folder: "), "config.yaml").is_file()


def test_data_that_have_nothing_to_predict_get_no_such_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``Rollouts``, whose checkpoints ``predict`` would refuse."""
    monkeypatch.setattr("lit_bottleneck.cli.terminal.run_folder", lambda trainer: "runs")
    model = VIBClassifier(MLP(4, [], 4), latent_dim=2, num_classes=2)
    cli: Any = SimpleNamespace(trainer=None, model=model, datamodule=LightningDataModule())
    assert "next:" not in closing_lines(cli, None, "last.ckpt")
    cli.datamodule = Digits()
    assert "next: lit-bottleneck predict" in closing_lines(cli, None, "last.ckpt")


def test_lines_that_tell_nothing_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    leave_out_what_tells_nothing()
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    with caplog.at_level(logging.INFO, logger=logger.name):
        for line in (
            "GPU available: True (cuda), used: True",
            "TPU available: False",
            "💡 Tip: buy",
            "12 params\n0   Total Flops",
        ):
            logger.info(line)
    assert caplog.messages == ["GPU available: True (cuda), used: True", "12 params"]


def test_a_warning_of_data_without_validation_is_left_out() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        main(["recipes"])
        warnings.warn("You defined a `validation_step` but have no `val_dataloader`. Skipping val loop.", stacklevel=1)
        warnings.warn("another", stacklevel=1)
    assert [str(one.message) for one in told] == ["another"]
