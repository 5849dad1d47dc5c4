"""A comparison that is stopped or killed takes its trainings with it, and the same command goes on with them."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from lit_bottleneck.cli.recipes import recipe_paths
from lit_bottleneck.training.folder_owner import FolderOwner
from tests.cli.commands import refusal
from tests.started import PATIENCE, start

OUT = Path("out")
RUN = OUT / "all/seed_0"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compare(folder: Path, epochs: int, out: Path = OUT) -> list[str]:
    data = ["--trainer.limit_train_batches=4", "--trainer.limit_val_batches=1", "--trainer.accelerator=cpu"]
    recipe = [
        "compare",
        "--config",
        str(recipe_paths()["vib_digits"]),
        *data,
        "--seeds",
        "0",
        "--out",
        str(folder / out),
    ]
    return [*recipe, f"--trainer.max_epochs={epochs}", "--trainer.log_every_n_steps=1"]


def wait_for_epoch(process: Any) -> None:
    """Wait until the run has logged its first validation, and so has a resume point."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.exitcode is None:
        if (RUN / "checkpoints").exists():
            return
        time.sleep(0.05)
    pytest.fail((RUN / "log.txt").read_text() if (RUN / "log.txt").exists() else "nothing was started")


@pytest.mark.slow
def test_a_second_one_is_refused_and_the_trainings_of_a_killed_one_end(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = compare(folder, epochs=100_000)
    process = start(command, folder / "output.txt")
    wait_for_epoch(process)
    before = {path for path in folder.rglob("*") if "/." not in str(path)}  # none that is being written
    assert f"error: {folder / OUT} is in use by process {process.pid} on " in refusal(command, capsys)
    assert before <= set(folder.rglob("*"))
    process.kill()
    process.join()
    FolderOwner(RUN, PATIENCE).release()  # until then the run has it
    assert "stopping: the process that started this one is gone" in (RUN / "log.txt").read_text()
    assert f"stopped by SIGTERM. To go on: lit-bottleneck resume {folder / RUN}" in (RUN / "log.txt").read_text()
    assert (RUN / "resume.ckpt").exists()
    assert not (RUN / "finished.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGKILL"])
def test_the_same_command_goes_on_to_the_same_numbers(name: str, folder: Path) -> None:
    signum, epochs = signal.Signals[name], 200
    process = start(compare(folder, epochs), folder / "output.txt")
    wait_for_epoch(process)
    os.kill(process.pid, signum)
    process.join()
    assert process.exitcode == (-signum if signum == signal.SIGKILL else 128 + signum), Path("output.txt").read_text()
    assert not (RUN / "finished.json").exists()

    for out in (OUT, Path("alone")):
        process = start(compare(folder, epochs, out), folder / "output.txt")
        process.join()
        assert process.exitcode == 0, Path("output.txt").read_text()
    assert (RUN / "log.txt").read_text().count("resuming from") == 1
    for file in ("values.csv", "table.md"):
        assert (OUT / file).read_text() == Path("alone", file).read_text()
    assert (RUN / "metrics.csv").read_text() == Path("alone/all/seed_0/metrics.csv").read_text()
