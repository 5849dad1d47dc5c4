"""Engines that run a comparison: processes on this machine, a SLURM array, or a wandb sweep."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import STDOUT, Popen

import yaml

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli.compare.runs import Run
from lit_bottleneck.training.whole_file import whole_file

ENGINES = ("processes", "slurm", "wandb")
_COMMAND = (sys.executable, "-m", "lit_bottleneck")
_PAUSE = 0.1  # seconds between two looks at the processes


def run_here(runs: Sequence[Run], workers: int) -> None:
    """Run those that are not finished on this machine, ``workers`` at a time.

    A run that fails does not affect the others. An interrupt or SIGTERM kills all that are running, with all processes
    that these have started.
    """
    threads = max(1, (os.cpu_count() or 1) // workers)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    waiting = [run for run in runs if run.seconds is None]
    running: dict[Popen[bytes], tuple[Run, float]] = {}  # with the time at which it began
    with _noted_signals() as signals:
        try:
            while (waiting or running) and not signals:
                while waiting and len(running) < workers:
                    run = waiting.pop(0)
                    running[_start(run, environment)] = run, time.monotonic()
                time.sleep(_PAUSE)
                for process in [process for process in running if process.poll() is not None]:
                    run, began = running.pop(process)
                    _end(run, process.returncode, time.monotonic() - began)
        finally:
            for process in running:
                with suppress(ProcessLookupError):  # it has just ended by itself
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if signals:
        sys.exit(128 + signals[0])


def _start(run: Run, environment: Mapping[str, str]) -> Popen[bytes]:
    run.prepare()
    command = [*_COMMAND, "fit", "--config", str(run.configuration_file)]
    with run.log_file.open("wb") as log:
        return Popen(command, stdout=log, stderr=STDOUT, env=environment, start_new_session=True)  # noqa: S603


def _end(run: Run, status: int, seconds: float) -> None:
    if status == 0:
        run.finish(seconds)
    print(f"{run.name}: {f'{seconds:.0f} s' if status == 0 else f'failed, see {run.log_file}'}", flush=True)


@contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """Yield a list to which interrupts and SIGTERM are added, so that none falls between a start and its record."""
    noted: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda number, frame: noted.append(number))
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
    task = f"{shlex.join([*_COMMAND, 'compare', *args])} --task $SLURM_ARRAY_TASK_ID"
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
        "command": [*_COMMAND, "compare", *arguments, "${args}"],  # --task=NUMBER
    }
    path = out / "sweep.yaml"
    with whole_file(path) as file:
        file.write_text(yaml.safe_dump(sweep, sort_keys=False))
    return path


def unfinished(runs: Sequence[Run]) -> list[int]:
    """Return the numbers of the runs that are not finished."""
    return [number for number, run in enumerate(runs) if run.seconds is None]
