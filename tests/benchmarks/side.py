"""A training in a process of its own, which trains an epoch on each request and answers with its seconds."""

import argparse
import contextlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Self, cast

Seconds = tuple[float, float]  # of an epoch's steps, and of its validation and all else


class Side:
    """The started process.

    Args:
        folder: where its data are, see ``training.Alternate``, and its errors go.
        module: the module to run, whose main program calls ``serve``.
        arguments: further ones.
        python: the interpreter.
    """

    def __init__(
        self, folder: Path, module: str, arguments: Sequence[str] = (), python: str | Path = sys.executable
    ) -> None:
        self._errors = folder / f"{'_'.join((module, *arguments))}.txt"
        with self._errors.open("w") as errors:
            command = [str(python), "-m", f"tests.benchmarks.{module}", str(folder), *arguments]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, bufsize=1
            )

    def epoch(self) -> Seconds:
        """Have it train for an epoch, and return the seconds of its steps and of all else.

        Raises:
            RuntimeError: if it has ended, with what it wrote last.
        """
        requests, answers = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        with contextlib.suppress(BrokenPipeError):
            requests.write("\n")
        answer = answers.readline()
        if not answer:
            raise RuntimeError(self._errors.read_text()[-2000:])
        steps, rest = map(float, answer.split())
        return steps, rest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        self._process.communicate()


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the arguments of a process, and make its settings."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe")
    parser.add_argument("--flush", action="store_true", help="take denormal numbers for 0")
    parser.add_argument("--keep", action="store_true", help="keep freed memory")
    parser.add_argument("--fused", action="store_true", help="Adam in one pass over the memory")
    given = parser.parse_args(arguments)
    from lit_bottleneck.training.denormals import flush_denormals
    from lit_bottleneck.training.memory import keep_freed_memory

    if given.flush:
        flush_denormals()
    if given.keep:
        keep_freed_memory()
    return given


def serve(epoch: Callable[[], Seconds]) -> None:
    """Answer each request by training for an epoch; what is printed meanwhile goes to the standard error."""
    answers, sys.stdout = sys.stdout, sys.stderr
    while sys.stdin.readline():
        print(*epoch(), file=answers, flush=True)
