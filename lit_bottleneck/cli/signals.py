"""SIGTERM, SIGHUP and SIGINT end a command with exit status 128 + n: soon, and whatever it is doing.

While it trains, ``ResumePoint`` handles them instead. Needs neither torch nor Lightning, whose imports take seconds.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from subprocess import Popen, TimeoutExpired
from types import FrameType

from lit_bottleneck.training.signals import ENDING, Handlers, give_back, is_repeated, take_over

_PATIENCE = 10.0  # seconds that a call into a library, or another process, is waited for
_AGAIN = 0.05  # seconds after which an interruption that was lost is repeated


class Stopped(SystemExit):
    """A signal has stopped the command; carries the exit status."""


class _Command:
    """A command that runs in this process.

    Attributes:
        handlers: what it sets for each signal.
        signum: the signal that has stopped it, if one has.
        is_over: whether it ends by itself, so that there is nothing to interrupt.
        processes: see ``know``.
        advice: see ``know``.
    """

    def __init__(self) -> None:
        self.handlers: Handlers = {}
        self.signum: int | None = None
        self.is_over = False
        self.processes: Callable[[], list[Popen[bytes]]] = list
        self.advice: Callable[[], str] = str
        self._lock = threading.Lock()
        self._found: list[Popen[bytes]] = []
        self._since = 0.0
        self._raised: Stopped | None = None
        self._is_heard = threading.Event()
        self._is_lost = False

    def interrupt(self, signum: int, frame: FrameType | None) -> None:
        """Interrupt what the main thread does (as a handler of signals)."""
        if self.signum is None:
            self.signum, self._since = signum, time.monotonic()
        elif not self._is_lost and not is_repeated(signum, time.monotonic() - self._since):
            return
        self._is_lost = False
        self._is_heard.set()
        if not self.is_over:
            self._raised = Stopped(128 + self.signum)
            raise self._raised

    def repeat_if_lost(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Interrupt once more where Python had to drop the interruption, as in ``__del__`` (a hook of ``sys``)."""
        if self._raised is None or unraisable.exc_value is not self._raised:
            sys.__unraisablehook__(unraisable)
            return
        self._is_lost = True
        again = threading.Timer(_AGAIN, os.kill, (os.getpid(), self.signum))
        again.daemon = True
        again.start()

    def watch(self, sent: socket.socket) -> None:
        """Read signals as they come; end the process if its main thread does not hear of one (on a thread of its own).

        Python calls handlers only between two of its instructions: a call into a library, such as one that waits for
        another process to join, may take for ever.
        """
        while number := sent.recv(1)[0]:
            if number in self.handlers and signal.getsignal(number) == self.interrupt:
                with self._lock:
                    self._found += self.processes()
                for process in self._found:
                    process.send_signal(number)
                if not self._is_heard.wait(_PATIENCE):
                    self.end_processes()
                    os._exit(128 + number)

    def end_processes(self) -> None:
        """Wait until the processes that the command has started have ended; kill those that do not."""
        with self._lock:
            self._found += self.processes()
        until = time.monotonic() + _PATIENCE
        for process in self._found:
            if self.signum is not None:
                process.send_signal(self.signum)
            with suppress(TimeoutExpired):
                process.wait(max(0, until - time.monotonic()))
            process.kill()
            process.wait()


_running: list[_Command] = []


def know(processes: Callable[[], list["Popen[bytes]"]], advice: Callable[[], str]) -> None:
    """Tell the running command which processes end with it, and what to print when a signal has stopped it.

    Args:
        processes: takes over the processes that the command has started.
        advice: returns the words that follow the name of the signal.
    """
    for command in _running[-1:]:
        command.processes, command.advice = processes, advice


def take_back() -> None:
    """Handle the signals again; Lightning takes SIGTERM for itself, and lets the command end with status 0."""
    for command in _running[-1:]:
        for number, handler in command.handlers.items():
            signal.signal(number, handler)


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Have SIGTERM, SIGHUP and SIGINT end the command; a signal that is ignored at the start stays ignored.

    A second Ctrl+C cuts short what is being tidied up. Restores the former handlers, so that a command may run within
    somebody's process. Does nothing on another than the main thread.

    Raises:
        SystemExit: with 128 + n, after signal n.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    command = _Command()
    former = take_over(command.interrupt)
    command.handlers = {number: one for number in ENDING if (one := signal.getsignal(number)) is not None}
    hook, sys.unraisablehook = sys.unraisablehook, command.repeat_if_lost
    _running.append(command)
    try:
        try:
            with _watched(command):
                yield
        finally:
            command.is_over = True
    except BaseException as error:
        command.is_over = True
        if isinstance(error, SystemExit) and error.code in [128 + number for number in ENDING]:
            command.end_processes()
        if command.signum is None:
            raise
    finally:
        _running.remove(command)
        sys.unraisablehook = hook
        give_back(former)
    if command.signum is not None:
        if _is_first_process():
            with suppress(OSError):  # a terminal that is gone
                print(f"stopped by {signal.Signals(command.signum).name}{command.advice()}", file=sys.stderr)
        raise SystemExit(128 + command.signum)


def end_at_once() -> None:
    """Have signals end this process at once with 128 + n from now on, as Python shuts down, which may take seconds.

    For a process of our own alone. What is printed until now is written; a signal that is ignored stays ignored.
    """
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    take_over(lambda number, frame: os._exit(128 + number))


@contextmanager
def _watched(command: _Command) -> Iterator[None]:
    sent, noted = socket.socketpair()
    noted.setblocking(False)
    before = signal.set_wakeup_fd(noted.fileno(), warn_on_full_buffer=False)
    if before != -1:  # somebody's event loop has it
        signal.set_wakeup_fd(before)
    thread = threading.Thread(target=command.watch, args=(sent,), name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        if before == -1:
            signal.set_wakeup_fd(-1)
        noted.send(b"\0")
        thread.join()
        sent.close()
        noted.close()


def _is_first_process() -> bool:
    ranks = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return next((rank for rank in ranks if rank is not None), "0") == "0"


def _leave_group() -> None:
    """Leave signals to the process that has forked this one, such as a loader's worker, and ends it by itself.

    Ctrl+C, a hangup and ``timeout`` reach all processes of a group, and without its workers a training cannot go on to
    where it can be resumed.
    """
    for command in _running:
        signal.set_wakeup_fd(-1)
        for number, handler in command.handlers.items():
            if handler == command.interrupt:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        with suppress(OSError):
            os.setpgid(0, 0)
    _running.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_group)
