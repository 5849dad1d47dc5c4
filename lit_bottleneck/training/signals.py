"""The signals that ask a process to end; handled by one owner at a time, on the main thread."""

import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], None]
Handlers = dict[signal.Signals, Any]

_NAMES = ("SIGTERM", "SIGINT", "SIGHUP")
ENDING = tuple(signal.Signals[name] for name in _NAMES if hasattr(signal, name))  # Windows has no SIGHUP


def ignored() -> list[signal.Signals]:
    """Return the signals that this process ignores, as SIGHUP after ``nohup``."""
    return [number for number in ENDING if signal.getsignal(number) == signal.SIG_IGN]


def take_over(handler: Handler, left_ignored: Sequence[int] = ()) -> Handlers:
    """Handle the signals that end a process, except those that it ignores.

    Args:
        handler: handles all of them.
        left_ignored: signals that are to be ignored although they have a handler now.

    Returns:
        The handlers of before, for ``give_back``; none on another than the main thread, where none can be set.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    for number in left_ignored:
        signal.signal(number, signal.SIG_IGN)
    former = {number: signal.getsignal(number) for number in ENDING}
    former = {number: one for number, one in former.items() if one not in (signal.SIG_IGN, None)}  # None: not Python's
    for number in former:
        signal.signal(number, handler)
    return former


def give_back(former: Handlers) -> None:
    """Restore handlers that ``take_over`` has returned, and forget them."""
    while former:
        signal.signal(*former.popitem())


def is_repeated(number: int, seconds: float) -> bool:
    """Whether a signal that comes while another waits, ``seconds`` after it, means that the process shall end at once.

    That is a second Ctrl+C. A terminal, ``timeout`` and schedulers send the same signal several times within a moment,
    and schedulers send SIGTERM after SIGINT without asking for more.
    """
    return number == signal.SIGINT and seconds > 1
