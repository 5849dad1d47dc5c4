"""Train in processes that can be killed, and go on until the run has come to its end."""

import csv
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

_CONTEXT = multiprocessing.get_context("forkserver")  # from a process that has imported everything: a start is instant
_CONTEXT.set_forkserver_preload(["lit_bottleneck.cli"])


def start(arguments: list[str], log: Path) -> Any:
    """Start the command line in a process of its own."""
    process = _CONTEXT.Process(target=_run, args=(arguments, log), daemon=True)
    process.start()
    return process


def _run(arguments: list[str], log: Path) -> None:
    output = log.open("a")
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    torch.set_num_threads(1)
    from lit_bottleneck.cli import main

    sys.argv = ["lit-bottleneck"]
    main(arguments)


def finish(arguments: list[str], log: Path) -> None:
    """Run the command line to its end."""
    process = start(arguments, log)
    process.join()
    assert process.exitcode == 0, log.read_text()


def stop(process: Any, after: float, signum: signal.Signals) -> int | None:
    """Send a signal after so many seconds, unless it has come to its end; how it has ended."""
    process.join(after)
    if process.exitcode is None:
        os.kill(process.pid, signum)
    process.join()
    code: int | None = process.exitcode
    return code


def rows(folder: Path) -> list[dict[str, str]]:
    """What a run has logged."""
    with (folder / "metrics.csv").open(newline="") as lines:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(lines)]


def checkpoints(folder: Path) -> dict[str, dict[str, Any]]:
    """The checkpoints of a run by name, without where they are."""
    found = {}
    for path in sorted(folder.glob("checkpoints/*.ckpt")):
        checkpoint = torch.load(path, weights_only=True)
        found[path.name] = {name: checkpoint[name] for name in ("state_dict", "optimizer_states", "loops")}
    return found
