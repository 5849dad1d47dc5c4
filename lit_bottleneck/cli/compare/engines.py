"""Engines that run a comparison: processes on this machine, a SLURM array, or a wandb sweep."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import yaml

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli.compare.processes import COMMAND, Process, Start
from lit_bottleneck.cli.compare.runs import Run
from lit_bottleneck.cli.parent import environment_of_children
from lit_bottleneck.training.folder_owner import FolderInUseError
from lit_bottleneck.training.signals import give_back, is_repeated, take_over
from lit_bottleneck.training.whole_file import whole_file

_PAUSE = 0.1  # seconds between two looks at the processes
_PATIENCE = 60.0  # seconds for a run to end that is told to
_SIGNALS = {number.value: number.name for number in signal.Signals}


def run_here(runs: Sequence[Run], workers: int, start: Start) -> None:
    """Run those that are not finished on this machine, ``workers`` at a time.

    A run that fails does not affect the others. At a signal all that are running write a resume point and end; at a
    second one they are killed. They also end if this process is killed.
    """
    threads = max(1, (os.cpu_count() or 1) // workers)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ, **environment_of_children()}
    waiting = [run for run in runs if run.seconds is None]
    running: dict[Process, tuple[Run, float]] = {}  # with the time at which it began
    until = time.monotonic() + _PATIENCE
    with _noted_signals() as signals:
        try:
            while (waiting or running) and not signals:
                for run in waiting[: workers - len(running)]:
                    waiting.remove(run)
                    try:
                        arguments = run.begin()
                        if arguments is not None:  # else it ended after this command was killed
                            running[start(arguments, run.log_file, environment)] = run, time.monotonic()
                    except FolderInUseError as error:
                        if time.monotonic() < until:
                            waiting.append(run)
                        else:
                            print(f"{run.name}: left out: {error}", flush=True)
                time.sleep(_PAUSE)
                for process in [process for process in running if process.poll() is not None]:
                    run, began = running.pop(process)
                    _end(run, process, time.monotonic() - began)
        finally:
            _stop(list(running), signals)
    if signals:
        print(f"stopped by {signal.Signals(signals[0]).name}. To go on: the same command", file=sys.stderr, flush=True)
        sys.exit(128 + signals[0])


def _end(run: Run, process: Process, seconds: float) -> None:
    """Mark a run as finished, or as failed; one that was stopped by a signal can go on."""
    status = process.returncode
    number = -status if status < 0 else status - 128
    if status == 0 and run.has_come_to_its_end:
        run.finish(seconds)
        result = f"{seconds:.0f} s"
    elif status == 0 or number in _SIGNALS:
        name = _SIGNALS.get(number, "itself before its end")
        result = f"stopped by {name}, see {run.log_file}; the same command goes on"
    else:
        run.fail(status)
        result = f"failed, see {run.log_file}"
    if status != 0:
        _kill(process)
    print(f"{run.name}: {result}", flush=True)


def _stop(processes: Sequence[Process], signals: Sequence[int]) -> None:
    """Have the runs write a resume point and end; kill those that do not within a minute, or at a second signal."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + _PATIENCE
    while any(process.poll() is None for process in processes) and time.monotonic() < until and len(signals) < 2:
        time.sleep(_PAUSE)
    for process in processes:
        _kill(process)
        process.wait()


def _kill(process: Process) -> None:
    """Kill a process, and all that it has started."""
    with suppress(ProcessLookupError, PermissionError):  # all have ended
        os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """Yield a list to which a signal is added, so that none falls between a start and its record.

    A second one is that which means to end at once.
    """
    noted: list[int] = []
    times: list[float] = []

    def note(number: int, frame: FrameType | None) -> None:
        times.append(time.monotonic())
        if not noted or is_repeated(number, times[-1] - times[0]):
            noted.append(number)

    former = take_over(note)
    try:
        yield noted
    finally:
        give_back(former)


def run_by_slurm(runs: Sequence[Run], workers: int, args: Sequence[str], options: Sequence[str], out: Path) -> None:
    """Submit a SLURM array with one run a task, and wait until all tasks end.

    Args:
        runs: all runs of the comparison.
        workers: how many tasks may run at the same time.
        args: the arguments of ``compare``; each task gets them and ``--task``.
        options: options of ``sbatch``, such as ``["--partition=gpu", "--gres=gpu:1"]``.
        out: the folder for the tasks' own output.

    Raises:
        ConfigurationError: if there is no ``sbatch`` on this machine.
    """
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        raise ConfigurationError("--engine slurm needs sbatch, and there is none on this machine")
    tasks = unfinished(runs)
    if not tasks:
        return
    out.mkdir(parents=True, exist_ok=True)
    array = [f"--array={','.join(map(str, tasks))}%{workers}", f"--output={out / 'slurm-%a.log'}"]
    task = f"{shlex.join([*COMMAND, 'compare', *args])} --task $SLURM_ARRAY_TASK_ID"
    # A task that fails leaves a run that is not finished: no need to check the status.
    subprocess.run([sbatch, "--wait", *array, *options, "--wrap", task], check=False)  # noqa: S603


def write_sweep(runs: Sequence[Run], arguments: Sequence[str], out: Path) -> Path:
    """Write a sweep for the agents of wandb, with one run a task.

    Returns:
        The file for ``wandb sweep``.
    """
    out.mkdir(parents=True, exist_ok=True)
    sweep = {
        "name": out.name,
        "method": "grid",
        "parameters": {"task": {"values": unfinished(runs)}},
        "command": [*COMMAND, "compare", *arguments, "${args}"],  # --task=NUMBER
    }
    path = out / "sweep.yaml"
    with whole_file(path) as file:
        file.write_text(yaml.safe_dump(sweep, sort_keys=False))
    return path


def unfinished(runs: Sequence[Run]) -> list[int]:
    """Return the numbers of the runs that are not finished."""
    return [number for number, run in enumerate(runs) if run.seconds is None]
