"""An imitation that is stopped and resumed ends with the discriminator and the policy of the one that runs through."""

import signal
from pathlib import Path

import pytest
import torch

from tests.cli.resume.signalled import assert_equal, begun, fit
from tests.cli.resume.trainings import assert_same
from tests.started import PATIENCE, finish, start


def policy(run: Path) -> dict[str, torch.Tensor]:
    """Return the policy's state in the last checkpoint."""
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    state: dict[str, torch.Tensor] = checkpoint["Rollouts"]
    return state


@pytest.mark.slow
def test_an_imitation_that_is_stopped_within_an_epoch_ends_as_one_that_is_not(tmp_path: Path) -> None:
    fuse, log = tmp_path / "fuse", tmp_path / "log.txt"
    small = ["--data.init_args.num_steps=160", "--data.init_args.num_environments=2", "--data.init_args.passes=3"]
    finish(fit("vail_pendulum", tmp_path / "alone", fuse, *small), log)
    arguments = fit("vail_pendulum", tmp_path / "stopped", fuse, *small)
    for place, signum in (("step-4", signal.SIGKILL), ("step-7", signal.SIGTERM)):
        fuse.write_text(f"{place} {int(signum)}")
        process = start(arguments, log)
        process.join(PATIENCE)
        assert process.exitcode in (-signum, 128 + signum), log.read_text()
        [run] = begun(tmp_path / "stopped")
        arguments = ["resume", str(run)]
    finish(arguments, log)
    [whole] = begun(tmp_path / "alone")
    assert_equal(run, whole)
    assert_same(policy(run), policy(whole))
