"""Engines that run a comparison: processes on this machine, a SLURM array, or a wandb sweep."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import STDOUT, Popen
from threading import Lock
from types import FrameType

import yaml

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli.compare.runs import Run

ENGINES = ("processes", "slurm", "wandb")
_COMMAND = (sys.executable, "-m", "lit_bottleneck")


def run_here(runs: Sequence[Run], workers: int) -> None:
    """Run those that are not finished on this machine, ``workers`` at a time.

    A run that fails does not affect the others. An interrupt or SIGTERM kills all that are running.
    """
    trainings = _Trainings(threads=max(1, (os.cpu_count() or 1) // workers))
    with _sigterm_raises(), ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(trainings.train, run) for run in runs if run.seconds is None]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            trainings.kill()
            raise


class _Trainings:
    """Trainings in processes of their own, all of which can be killed.

    Args:
        threads: number of threads of each, unless the environment sets ``OMP_NUM_THREADS``.
    """

    def __init__(self, threads: int) -> None:
        self._environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
        self._running: set[Popen[bytes]] = set()
        self._killed = False
        self._lock = Lock()  # no process may start while all are being killed

    def train(self, run: Run) -> None:
        """Train, and wait until the process ends."""
        run.prepare()
        command = [*_COMMAND, "fit", "--config", str(run.configuration_file)]
        began = time.monotonic()
        with run.log_file.open("wb") as log:
            with self._lock:
                if self._killed:
                    return
                process = Popen(command, stdout=log, stderr=STDOUT, env=self._environment, start_new_session=True)  # noqa: S603
                self._running.add(process)
            status = process.wait()
            self._running.discard(process)
        seconds = time.monotonic() - began
        if status == 0:
            run.finish(seconds)
        print(f"{run.name}: {f'{seconds:.0f} s' if status == 0 else f'failed, see {run.log_file}'}", flush=True)

    def kill(self) -> None:
        """Kill the running processes and all that these have started."""
        with self._lock:
            self._killed = True
            for process in list(self._running):
                with suppress(ProcessLookupError):  # it has just ended by itself
                    os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Raise SystemExit on SIGTERM, as an interrupt raises KeyboardInterrupt."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
    path.write_text(yaml.safe_dump(sweep, sort_keys=False))
    return path


def unfinished(runs: Sequence[Run]) -> list[int]:
    """Return the numbers of the runs that are not finished."""
    return [number for number, run in enumerate(runs) if run.seconds is None]
