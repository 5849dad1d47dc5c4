"""Runs that are forked from the command's own process."""

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import lit_bottleneck
from lit_bottleneck.cli import main
from lit_bottleneck.cli.compare import processes
from lit_bottleneck.cli.compare.processes import Forked, copies_compute
from lit_bottleneck.training.denormals import are_denormals_flushed

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


def of_a_copy(command: Callable[[], object]) -> Callable[[], None]:
    """Run a command without what the test worker does at its end, such as to stop processes that tests share."""

    def run() -> None:
        atexit._clear()
        command()

    return run


@pytest.fixture
def forked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Forked]:
    """Fork the command line, or a function in its place, from a process that prints to its descriptors."""

    def fork(*arguments: str, command: Callable[[], object] = main) -> Forked:
        monkeypatch.setattr(processes, "main", of_a_copy(command))
        with capfd.disabled():
            return Forked(arguments, tmp_path / "log.txt", {"OF_A_RUN": "1"})

    return fork


def test_the_command_line_runs_and_its_output_is_appended(forked: Callable[..., Forked], tmp_path: Path) -> None:
    for argument, status in (("--version", 0), ("fti", 2)):
        process = forked(argument)
        process.wait()
        assert process.poll() == status
    text = (tmp_path / "log.txt").read_text()
    assert text.startswith(f"lit-bottleneck {lit_bottleneck.__version__}\n")
    assert "did you mean 'fit'?" in text


def test_a_run_has_arguments_environment_and_group_of_its_own_and_ends_as_python_does(
    forked: Callable[..., Forked], tmp_path: Path
) -> None:
    def command() -> None:
        atexit.register(print, "at the end")
        print(sys.argv[1:], os.environ["OF_A_RUN"], os.getpgrp() == os.getpid(), os.read(0, 1))
        raise KeyError("fault")

    process = forked("fit", "--x", command=command)
    process.wait()
    assert process.returncode == 1
    text = (tmp_path / "log.txt").read_text()
    assert "['fit', '--x'] 1 True b''" in text
    assert "KeyError: 'fault'" in text
    assert "at the end" in text
    assert "OF_A_RUN" not in os.environ


def test_the_status_of_a_run_is_known_also_where_the_ends_of_children_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "main", of_a_copy(main))
    former = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with capfd.disabled():
            process = processes.forked(("fti",), tmp_path / "log.txt", {})
        process.wait()
        assert process.returncode == 2
    finally:
        signal.signal(signal.SIGCHLD, former)


def test_a_signal_ends_a_run_whatever_its_parent_does_at_signals(forked: Callable[..., Forked]) -> None:
    former = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        process = forked(command=lambda: time.sleep(60))
        assert process.poll() is None
        process.terminate()
        process.wait()
        assert process.returncode == -signal.SIGTERM
        process.terminate()  # does nothing
    finally:
        signal.signal(signal.SIGTERM, former)


@pytest.mark.skipif(sys.platform != "linux", reason="threads of libgomp")
def test_a_process_whose_threads_have_computed_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_PATIENCE", 0.5)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    are_denormals_flushed()
    try:
        assert not copies_compute()  # it waits for ever
    finally:
        torch.set_num_threads(threads)


def test_a_process_of_one_thread_is_copied() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert copies_compute()
    finally:
        torch.set_num_threads(threads)
