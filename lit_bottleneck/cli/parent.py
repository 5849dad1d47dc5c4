"""Processes that end with their parent, however that ends: the runs of a comparison, and the further ranks of a run."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PARENT = "LIT_BOTTLENECK_PARENT"  # the number of the process that started this one
_FIRST_RANK = "LIT_BOTTLENECK_FIRST_RANK"  # the number of the process that starts the further ranks of its run
_PAUSE = 0.5  # seconds between two looks at it
_GRACE = 30.0  # seconds to write a resume point


def environment_of_children() -> dict[str, str]:
    """Return what commands find in their environment that are to end with this process."""
    return {_PARENT: str(os.getpid())}


@contextmanager
def ranks_end_too() -> Iterator[None]:
    """Have the further ranks that Lightning starts within a block end with this process."""
    os.environ[_FIRST_RANK] = str(os.getpid())
    try:
        yield
    finally:
        os.environ.pop(_FIRST_RANK, None)


def end_with_parent() -> None:
    """End this process soon after the one that its environment names, from now on.

    SIGTERM first, so that a run leaves a resume point; a further rank, whose first one is gone, has none to leave. The
    parent is watched, as not every system sends a signal at its end.
    """
    parent, first_rank = os.environ.pop(_PARENT, ""), os.environ.pop(_FIRST_RANK, "")  # not for those started from here
    is_rank = os.environ.get("LOCAL_RANK", "0") != "0"
    named = first_rank if is_rank else parent
    if named.isdigit() and hasattr(os, "getppid"):
        threading.Thread(target=_watch, args=(int(named), is_rank), name="watch of the parent", daemon=True).start()


def _watch(parent: int, is_rank: bool) -> None:
    is_child = os.getppid() == parent  # else it has ended already, or there is a shell in between
    while os.getppid() == parent if is_child else _is_alive(parent):
        time.sleep(_PAUSE)
    if not is_rank:
        with suppress(OSError, ValueError):  # nobody may read it any more
            print("stopping: the process that started this one is gone", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # with its loader workers
    os.kill(os.getpid(), signal.SIGKILL)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:  # somebody else's
        return True
    except ProcessLookupError:
        return False
    return True
