"""Output that cannot be written ends no command: it is dropped, and the command goes on."""

import errno
import io
import os
import select
import sys
from typing import TextIO

_MAY_PASS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a full disk may have room again
_STREAMS = ("stdin", "stdout", "stderr")  # by their descriptors


def keep_going_without_output() -> None:
    """Have standard output and error drop what cannot be written: they may be closed, full, or a broken pipe.

    For a process of our own alone (the console script), since it replaces ``sys.stdout`` and ``sys.stderr``.
    """
    _open_closed_descriptors()
    for descriptor, name in enumerate(_STREAMS):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w" if descriptor else "r", encoding="utf-8")  # noqa: SIM115
        elif descriptor and isinstance(stream, io.TextIOWrapper) and _writes_to(stream, descriptor):
            stream = _forgiving(stream)
        setattr(sys, name, stream)


class _Forgiving(io.FileIO):
    """A descriptor that drops what it cannot write; all that is printed in this process goes through its ``write``."""

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        """Write all bytes, or drop them. After a lasting error the descriptor is ``/dev/null``, also for children."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest:
                written = super().write(rest)
                if written is None:  # the descriptor does not block, and is full
                    select.select([], [self], [])
                rest = rest[written or 0 :]
        except OSError as error:
            if error.errno not in _MAY_PASS:
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, self.fileno())
                os.close(null)
        return size


def _open_closed_descriptors() -> None:
    """Open ``/dev/null`` in the place of closed descriptors, which the next files would take: prints would go there."""
    while (null := os.open(os.devnull, os.O_RDWR)) < len(_STREAMS):
        os.set_inheritable(null, True)
    os.close(null)


def _writes_to(stream: io.TextIOWrapper, descriptor: int) -> bool:
    try:
        return stream.fileno() == descriptor
    except io.UnsupportedOperation:  # of a stream in memory
        return False


def _forgiving(stream: io.TextIOWrapper) -> TextIO:
    """Return a stream like an open one, which has written nothing yet."""
    raw = _Forgiving(stream.fileno(), "wb", closefd=False)
    is_unbuffered = isinstance(stream.buffer, io.RawIOBase)  # python -u
    return io.TextIOWrapper(
        raw if is_unbuffered else io.BufferedWriter(raw),  # type: ignore[type-var]
        encoding=stream.encoding,
        errors="backslashreplace" if stream.errors == "strict" else stream.errors,  # no terminal has every letter
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
