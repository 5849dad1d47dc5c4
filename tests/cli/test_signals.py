"""Signals end what runs within ``ending_on_signals`` with their status, whatever stands in the way."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lit_bottleneck.cli.signals import ending_on_signals
from tests.started import handle_signals_by_default

NUMBERS = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT]
FOREVER = 300  # seconds, after which a test fails


@pytest.fixture(autouse=True)
def _default_handlers() -> Iterator[None]:
    former = handle_signals_by_default()
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def wait_for(number: int) -> None:
    send(number)
    time.sleep(FOREVER)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_status_is_that_of_the_signal_and_the_handlers_are_restored(number: signal.Signals) -> None:
    def mine(number: int, frame: Any) -> None:
        raise AssertionError("not mine")

    before = signal.signal(number, mine)
    try:
        with pytest.raises(SystemExit) as left, ending_on_signals():
            wait_for(number)
        assert left.value.code == 128 + number
        assert signal.getsignal(number) == mine
    finally:
        signal.signal(number, before)


def test_an_error_and_a_status_of_the_command_itself_pass() -> None:
    for error in (ValueError("mine"), SystemExit(2), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised, ending_on_signals():
            raise error
        assert raised.value is error


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_that_is_ignored_stays_ignored(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with ending_on_signals():
            send(number)
            assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


class Dying:
    """Send a signal from ``__del__``, where Python drops what a handler raises."""

    def __del__(self) -> None:
        send(signal.SIGTERM)
        sum(range(100))


def lost() -> None:
    Dying()
    time.sleep(FOREVER)


def swallowed() -> None:
    with contextlib.suppress(BaseException):
        wait_for(signal.SIGTERM)


def broken() -> None:
    try:
        wait_for(signal.SIGTERM)
    finally:
        raise RuntimeError("the other process is gone")


def repeated() -> None:
    try:
        wait_for(signal.SIGTERM)
    finally:
        send(signal.SIGTERM)
        send(signal.SIGINT)  # within a moment: the same request
        tidied.append(True)


tidied: list[bool] = []


@pytest.mark.parametrize("case", [lost, swallowed, broken, repeated])
def test_an_interruption_that_is_dropped(case: Callable[[], None]) -> None:
    with pytest.raises(SystemExit) as left, ending_on_signals():
        case()
    assert left.value.code == 128 + signal.SIGTERM
    assert len(tidied) == (case is repeated)


BLOCKED = """
import ctypes
signals._PATIENCE = 0.1
with signals.ending_on_signals():
    lock, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)  # of zeros, a lock of threads
    libc.pthread_mutex_lock(lock)
    print("ready", flush=True)
    libc.pthread_mutex_lock(lock)
"""
AGAIN = """
with signals.ending_on_signals():
    try:
        print("ready", flush=True)
        time.sleep(300)
    finally:
        time.sleep(1.1)
        os.kill(os.getpid(), number)
        time.sleep(300)
"""
FORKED = """
with signals.ending_on_signals():
    if os.fork() == 0:
        assert os.getpgrp() == os.getpid() != os.getppid()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
    process = subprocess.Popen(["sleep", "300"])
    signals.know(lambda: [process], lambda: "; mine")
    print("ready", flush=True)
    time.sleep(300)
"""


ENDED = """
import atexit, sys
from lit_bottleneck.cli import main
sys.argv = ["lit-bottleneck", "--version"]
atexit.register(time.sleep, 300)
atexit.register(os.kill, os.getpid(), number)
main()
"""


@pytest.mark.parametrize("number", NUMBERS)
def test_a_command_that_has_ended_while_python_shuts_down(number: signal.Signals) -> None:
    begin = f"import os, signal, time; number = {int(number)}\nfor one in (1, 2, 15): signal.signal(one, "
    begin += "signal.default_int_handler if one == 2 else signal.SIG_DFL)\n"
    ended = subprocess.run([sys.executable, "-c", begin + ENDED], capture_output=True, timeout=FOREVER, check=False)
    assert ended.returncode == 128 + number, ended.stderr
    assert ended.stdout.startswith(b"lit-bottleneck ")
    assert ended.stderr == b""


@pytest.mark.parametrize(("script", "number"), [(BLOCKED, 15), (AGAIN, 2), (FORKED, 1)])
def test_in_a_process_of_its_own(script: str, number: int) -> None:
    """Within a library's call; once more while it tidies up; with processes that it has forked and started."""
    begin = f"import os, signal, subprocess, time; from lit_bottleneck.cli import signals; number = {number}\n"
    process = subprocess.Popen([sys.executable, "-c", begin + script], stdout=-1, stderr=-1, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=FOREVER)
    assert process.returncode == 128 + number, said
    assert b"Traceback" not in said
    if script == FORKED:
        assert said == b"stopped by SIGHUP; mine\n"
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
