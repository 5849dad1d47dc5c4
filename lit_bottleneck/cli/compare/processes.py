"""Processes of the runs: forked from the command's own, which has imported everything, or started anew.

The imports of a run take longer than many a training. A process may be forked as long as it has computed nothing: the
threads of torch, and what a driver of a GPU knows, are lost in its copy. A user's module may compute as it is imported.
"""

import atexit
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import STDOUT, Popen
from typing import Any, NoReturn

from lit_bottleneck.cli import main
from lit_bottleneck.training.signals import ENDING, ignored

_PATIENCE = 5.0  # seconds in which a copy computes what takes a millisecond
COMMAND = (sys.executable, "-m", "lit_bottleneck")


class Forked:
    """The command line in a copy of this process and a group of its own, with those methods of ``Popen`` we need.

    Args:
        arguments: those of the command line.
        log: what it prints is appended to this file.
        environment: its environment variables.
    """

    def __init__(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.returncode: Any = None
        sys.stdout.flush()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # until the copy no longer has this one's handlers
        try:
            self.pid = os.fork()
            if self.pid == 0:
                _run(arguments, log, environment)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def poll(self, options: int = os.WNOHANG) -> int | None:
        """Return the exit status, -n after signal n; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        code: int | None = self.returncode
        return code

    def wait(self) -> None:
        """Wait for its end."""
        self.poll(options=0)

    def terminate(self) -> None:
        """Send SIGTERM, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)


Process = Popen[bytes] | Forked
Start = Callable[[Sequence[str], Path, Mapping[str, str]], Process]


def forked(arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> Process:
    """Fork the command line; start it anew where a copy of this process could not compute."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, no exit status of a copy is kept
    return (Forked if copies_compute() else started)(arguments, log, environment)


def copies_compute() -> bool:
    """Try whether a copy of this process computes: it waits for ever for threads of torch that this one has had."""
    import torch  # here, since a wrong option is told without it

    from lit_bottleneck.training.denormals import are_denormals_flushed

    if torch.cuda.is_initialized():
        return False
    pid = os.fork()
    if pid == 0:
        try:
            are_denormals_flushed()  # asks all threads
        finally:
            os._exit(0)
    until = time.monotonic() + _PATIENCE
    while not (has_ended := os.waitpid(pid, os.WNOHANG)[0] == pid) and time.monotonic() < until:
        time.sleep(0.01)
    if not has_ended:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return has_ended


def started(arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> Process:
    """Start the command line in a process and a session of its own; see ``Forked``."""
    with log.open("ab") as file:
        return Popen([*COMMAND, *arguments], stdout=file, stderr=STDOUT, env=environment, start_new_session=True)  # noqa: S603


def _run(arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> NoReturn:
    """Run the command line in a process that was just forked, and end it as Python does."""
    status: int | str | None = 1
    try:
        os.setpgid(0, 0)
        for number in set(ENDING) - set(ignored()):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        with open(os.devnull, "rb") as nothing, log.open("ab") as file:
            for descriptor, opened in enumerate((nothing, file, file)):
                os.dup2(opened.fileno(), descriptor)
        os.environ.update(environment)
        sys.argv[1:] = arguments
        main()
        status = 0
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            atexit._run_exitfuncs()  # as multiprocessing does
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status if isinstance(status, int) else status is not None)
