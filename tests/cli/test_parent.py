"""Commands that end with the process that started them."""

import os
import select
import signal
import subprocess
import sys

import pytest

from lit_bottleneck.cli import parent

CHILD = """
import os, signal, sys, time
from lit_bottleneck.cli.parent import end_with_parent
signal.signal(signal.SIGTERM, lambda number, frame: (os.write(1, b"terminated"), sys.exit()))
end_with_parent()
os.write(1, b"begins ")
time.sleep(300)
"""
PATIENCE = 20  # seconds


def output_of_child(environment: dict[str, str], parent_dies_first: bool = False) -> bytes:
    """Start the child from a process that is killed; return what the child writes until it ends."""
    receives, sends = os.pipe()
    middle = os.fork()
    if middle == 0:
        signal.alarm(2 * PATIENCE)  # if the test fails
        if parent_dies_first:
            environment = {name: "4194305" for name in environment}  # beyond the largest number of a process
        named = environment | {name: str(os.getpid()) for name, value in environment.items() if not value}
        subprocess.Popen(
            [sys.executable, "-c", CHILD], stdout=sends, env={**os.environ, **named}, start_new_session=True
        )
        os.close(sends)
        signal.pause()
    os.close(sends)
    written = b""
    while select.select([receives], [], [], PATIENCE)[0]:
        chunk = os.read(receives, 100)
        if not chunk:
            break
        written += chunk
        if written == b"begins ":
            os.kill(middle, signal.SIGKILL)
    else:
        pytest.fail(f"the child did not end; it wrote {written!r}")
    os.kill(middle, signal.SIGKILL)  # which nobody waited for until here
    os.waitpid(middle, 0)
    os.close(receives)
    return written


def test_a_run_is_terminated_when_its_comparison_is_killed() -> None:
    assert output_of_child({"LIT_BOTTLENECK_PARENT": ""}) == b"begins terminated"


def test_a_further_rank_is_killed_with_the_first_one() -> None:
    """It could wait for the first one in a collective, and has nothing to leave."""
    assert output_of_child({"LIT_BOTTLENECK_FIRST_RANK": "", "LOCAL_RANK": "1"}) == b"begins "


def test_a_run_whose_comparison_has_ended_before_it_began() -> None:
    assert output_of_child({"LIT_BOTTLENECK_PARENT": ""}, parent_dies_first=True).endswith(b"terminated")


def test_only_those_that_are_to_end_find_the_number_of_their_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parent.environment_of_children() == {"LIT_BOTTLENECK_PARENT": str(os.getpid())}
    with parent.ranks_end_too():
        assert os.environ["LIT_BOTTLENECK_FIRST_RANK"] == str(os.getpid())
    assert "LIT_BOTTLENECK_FIRST_RANK" not in os.environ
    monkeypatch.setenv("LIT_BOTTLENECK_PARENT", "no number")
    parent.end_with_parent()
    assert "LIT_BOTTLENECK_PARENT" not in os.environ
