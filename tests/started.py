"""The command line in processes of its own, which have everything imported when they start, and can be killed."""

import csv
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["lit_bottleneck.cli"])


def start(
    arguments: list[str], log: Path, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> Any:
    """Start the command line, in a folder; what it says goes to the end of a file."""
    process = _CONTEXT.Process(target=_run, args=(arguments, log, environment or {}, folder or Path.cwd()), daemon=True)
    process.start()
    return process


def _run(arguments: list[str], log: Path, environment: Mapping[str, str], folder: Path) -> None:
    output = log.open("a")
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    os.environ |= environment
    os.chdir(folder)
    torch.set_num_threads(1)
    from lit_bottleneck.cli import main

    sys.argv = ["lit-bottleneck"]
    main(arguments)


def as_torchrun_does(rank: int, port: int) -> dict[str, str]:
    """What torchrun tells one of two processes on a machine."""
    return {
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "none"},
    }


def as_slurm_does(rank: int, port: int) -> dict[str, str]:
    """What srun tells one of two tasks on a node."""
    return {
        **{"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"},
        **{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0", "SLURM_NNODES": "1"},
        **{"SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": str(port)},
    }


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def finish(arguments: list[str], log: Path) -> None:
    """Run the command line to its end."""
    process = start(arguments, log)
    process.join()
    assert process.exitcode == 0, log.read_text()


def written_at(path: Path) -> float | None:
    """When a file was written, if it is there."""
    return path.stat().st_mtime if path.exists() else None


def stop(process: Any, after: float, signum: signal.Signals, sign: Path | None = None) -> int | None:
    """Send a signal after so many seconds, unless it has come to its end; how it has ended.

    Args:
        process: which.
        after: seconds, from now, or from when ``sign`` is written next.
        signum: the signal.
        sign: a file that the process writes when it is under way.
    """
    before = None if sign is None else written_at(sign)
    while sign is not None and process.exitcode is None and written_at(sign) in (None, before):
        process.join(0.01)
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
