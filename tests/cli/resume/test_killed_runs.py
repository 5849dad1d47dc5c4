"""A command that is killed at any moment, and resumed, ends as the one that runs through."""

import random
import signal
import time
from pathlib import Path

import pytest

from tests.cli.resume.signalled import assert_equal, begun, fit
from tests.started import PATIENCE, finish, start, stop


def test_killed_in_every_stage(tmp_path: Path) -> None:
    fuse, stopped, log = tmp_path / "fuse", tmp_path / "stopped", tmp_path / "log.txt"
    finish(fit("vib_digits", tmp_path / "alone", fuse), log)
    arguments = fit("vib_digits", stopped, fuse)
    for place in ("epoch-0", "step-8", "test"):
        fuse.write_text(f"{place} {int(signal.SIGKILL)}")
        process = start(arguments, log)
        process.join(PATIENCE)
        assert process.exitcode == -signal.SIGKILL, log.read_text()
        [run] = begun(stopped)
        arguments = ["resume", str(run)]
    finish(arguments, log)
    [whole] = begun(tmp_path / "alone")
    assert_equal(run, whole)


SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT]
RUNS = 20  # of each model


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["vib_digits", "vae_digits", "vdbgan_digits"])
def test_killed_at_any_moment(recipe: str, tmp_path: Path) -> None:
    """Each run is killed at a random moment of the whole command, and half of them once more when they go on."""
    settings = ["--trainer.max_epochs=3", "--trainer.limit_train_batches=8"]
    moments = random.Random(0)
    seconds = float("inf")
    for name in ("first", "alone"):  # the first waits for the server, too
        began = time.monotonic()
        finish(fit(recipe, tmp_path / name, tmp_path / "fuse", *settings), tmp_path / "log.txt")
        seconds = min(seconds, time.monotonic() - began)
    [whole] = begun(tmp_path / "alone")
    failed = []
    for number in range(RUNS):
        folder, log = tmp_path / f"killed_{number}", tmp_path / f"log_{number}.txt"
        arguments = first = fit(recipe, folder, tmp_path / "fuse", *settings)
        story, kills = f"{recipe} {number}:", 1 + moments.randrange(2)
        try:
            while kills:
                signum, moment = SIGNALS[(number + kills) % 4], moments.uniform(0, seconds)
                status = stop(start(arguments, log), moment, signum)
                story += f" {signum.name} after {moment:.2f} of {seconds:.2f} s: {status};"
                assert status in (-signum, 128 + signum, 0), log.read_text()
                if status == 0:  # it was faster; begin again
                    seconds = min(seconds, moment)
                    folder = folder / "again"
                    arguments = first = fit(recipe, folder, tmp_path / "fuse", *settings)
                    continue
                kills -= 1
                arguments = ["resume", str(begun(folder)[0])] if begun(folder) else first
            finish(arguments, log)
            [run] = begun(folder)
            assert_equal(run, whole)
        except AssertionError as error:
            failed.append(f"{story} {error}")
        print(story, "failed" if failed and failed[-1].startswith(story) else "equal", flush=True)
    assert not failed, "\n".join(failed)
