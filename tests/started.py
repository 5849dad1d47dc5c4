"""Start the command line in processes that can be killed, forked from one server that has imported everything."""

import contextlib
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

PATIENCE = 300  # seconds; a deadlock is a failure, not a test that never ends
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["lit_bottleneck.cli.app", "lit_bottleneck.callbacks", "lit_bottleneck.data", "sklearn.datasets", "tests.started"]
)


def start(
    arguments: list[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    daemon: bool = True,
) -> Any:
    """Start the command line in a folder; its output is appended to ``log``.

    A daemon ends with the test run, and cannot have loader workers.
    """
    what = (arguments, log, environment or {}, folder or Path.cwd())
    process = CONTEXT.Process(target=_run, args=what, daemon=daemon)
    process.start()
    return process


def _run(arguments: list[str], log: Path, environment: Mapping[str, str], folder: Path) -> None:
    output = log.open("a")
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    os.environ |= environment
    os.chdir(folder)
    torch.set_num_threads(1)
    handle_signals_by_default()
    import lit_bottleneck.__main__ as command

    # As in ``python -m lit_bottleneck``: Lightning starts further processes by the name of this module.
    sys.modules["__main__"] = command
    sys.argv = ["lit-bottleneck", *arguments]
    command.main()


def handle_signals_by_default() -> dict[signal.Signals, Any]:
    """Have signals end this process, also if the tests ignore them: under nohup, in the background of a script.

    Returns:
        The former handlers.
    """
    default = {
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
        signal.SIGINT: signal.default_int_handler,
    }
    return {number: signal.signal(number, handler) for number, handler in default.items()}


def as_torchrun_does(rank: int, port: int) -> dict[str, str]:
    """Return the environment that torchrun gives to one of two processes on a machine."""
    return {
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "none"},
    }


def as_slurm_does(rank: int, port: int) -> dict[str, str]:
    """Return the environment that srun gives to one of two tasks on a node."""
    return {
        **{"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"},
        **{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0", "SLURM_NNODES": "1"},
        **{"SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": str(port)},
    }


def free_port() -> int:
    """Return a port that no process listens at, below those that the system gives to outgoing connections."""
    for port in range(20_000 + os.getpid() % 1_000 * 10, 32_768):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


def finish(arguments: list[str], log: Path) -> None:
    """Run the command line until it ends without an error."""
    process = start(arguments, log)
    process.join(PATIENCE)
    assert process.exitcode == 0, log.read_text()


def wait_for(sign: Path, *processes: Any) -> None:
    """Wait until a file is written (again), or a process has ended."""
    before = _written_at(sign)
    while _written_at(sign) in (None, before) and all(process.exitcode is None for process in processes):
        processes[0].join(0.01)


def _written_at(path: Path) -> float | None:
    return path.stat().st_mtime if path.exists() else None


def stop(process: Any, after: float, signum: signal.Signals, sign: Path | None = None) -> int | None:
    """Send a signal, unless the process has ended before; return its exit status.

    Args:
        process: the process.
        after: seconds until the signal, from now, or from when ``sign`` is written next.
        signum: the signal.
        sign: a file that the process writes when it is under way.
    """
    if sign is not None:
        wait_for(sign, process)
    process.join(after)
    if process.exitcode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signum)
    process.join(PATIENCE)
    code: int | None = process.exitcode
    return code


def processes_of(folder: Path) -> list[bytes]:
    """Return the command lines of all processes that name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            found.append(path.read_bytes())
    return [words for words in found if bytes(folder) in words]


def rows(folder: Path) -> list[dict[str, str]]:
    """Return what a run logged, row by row."""
    with (folder / "metrics.csv").open(newline="") as lines:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(lines)]


def checkpoints(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the checkpoints of a run by name, without the paths that they hold."""
    found = {}
    for path in sorted(folder.glob("checkpoints/*.ckpt")):
        checkpoint = torch.load(path, weights_only=True)
        found[path.name] = {name: checkpoint[name] for name in ("state_dict", "optimizer_states", "loops")}
    return found
