"""A signal to a command ends all its processes with the command's status, and the run goes on from there."""

import signal
from pathlib import Path

import pytest

from lit_bottleneck.cli.recipes import recipe_paths
from tests.cli.resume.signalled import assert_equal, begun, fit
from tests.started import PATIENCE, finish, start


@pytest.mark.slow
def test_two_processes_stopped_in_every_stage(tmp_path: Path) -> None:
    ddp = ["--config", str(recipe_paths()["trainer/ddp"]), "--trainer.devices=2"]
    fuse, stopped, log = tmp_path / "fuse", tmp_path / "stopped", tmp_path / "log.txt"
    finish(fit("vib_digits", tmp_path / "alone", fuse, *ddp), log)
    arguments = fit("vib_digits", stopped, fuse, *ddp)
    stages = {"setup-fit": 15, "sanity": 2, "epoch-0": 1, "step-7": 2, "validation-1": 15, "test": 1, "second-test": 15}
    for place, number in stages.items():
        fuse.write_text(f"{place} {number}")
        process = start(arguments, log)
        process.join(PATIENCE)
        assert process.exitcode == 128 + number, f"{place}: {log.read_text()[-3000:]}"
        assert f"stopped by {signal.Signals(number).name}" in log.read_text()
        if begun(stopped):
            [run] = begun(stopped)
            arguments = ["resume", str(run)]
    finish(arguments, log)
    [whole] = begun(tmp_path / "alone")
    assert_equal(run, whole)
    assert "Traceback" not in log.read_text()
