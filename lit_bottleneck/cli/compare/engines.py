"""What has the runs of a comparison run: processes on this machine, a SLURM array, or a sweep of wandb."""

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
from threading import Lock
from types import FrameType

import yaml

from lit_bottleneck.cli.compare.runs import Run

ENGINES = ("processes", "slurm", "wandb")
_COMMAND = (sys.executable, "-m", "lit_bottleneck")


def run_here(runs: Sequence[Run], workers: int) -> None:
    """Have the runs that are not finished run on this machine, ``workers`` at a time.

    A run that fails leaves the others alone. An interrupt ends those that are under way.
    """
    waiting = [run for run in runs if run.seconds is None]
    threads = max(1, (os.cpu_count() or 1) // workers)
    trainings = _Trainings(threads)
    with _terminable(), ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(trainings.train, run) for run in waiting]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            trainings.end()
            raise


class _Trainings:
    """Trainings in processes of their own, which end when they are told to.

    Args:
        threads: of each, unless the environment says how many.
    """

    def __init__(self, threads: int) -> None:
        self._environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
        self._under_way: set[subprocess.Popen[bytes]] = set()
        self._ended = False
        self._lock = Lock()  # none may begin while all are being ended

    def train(self, run: Run) -> None:
        """Train, and wait for the end."""
        run.prepare()
        began = time.monotonic()
        with run.log_file.open("wb") as log:
            with self._lock:
                if self._ended:
                    return
                process = subprocess.Popen(  # noqa: S603  (our own command)
                    [*_COMMAND, "fit", "--config", str(run.configuration_file)],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    start_new_session=True,
                )
                self._under_way.add(process)
            status = process.wait()
            self._under_way.discard(process)
        seconds = time.monotonic() - began
        if status == 0:
            run.finish(seconds)
        print(f"{run.name}: {f'{seconds:.0f} s' if status == 0 else f'failed, see {run.log_file}'}", flush=True)

    def end(self) -> None:
        """End those that are under way, with what they have started themselves."""
        with self._lock:
            self._ended = True
            for process in list(self._under_way):
                with suppress(ProcessLookupError):  # it has just ended by itself
                    os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _terminable() -> Iterator[None]:
    """Have a request to terminate unwind as an interrupt does."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_by_slurm(runs: Sequence[Run], workers: int, arguments: Sequence[str], options: str, out: Path) -> None:
    """Have SLURM run an array of which each task is one run, ``workers`` at a time, and wait for its end.

    Args:
        runs: all of the comparison.
        workers: how many may run at the same time.
        arguments: of ``compare``; each task gets them and ``--task``.
        options: of ``sbatch``, such as ``"--partition=gpu --gres=gpu:1"``.
        out: where the tasks' own output goes.

    Raises:
        ValueError: if there is no ``sbatch`` here.
    """
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        raise ValueError("--engine slurm needs sbatch, and there is none on this machine")
    tasks = [number for number, run in enumerate(runs) if run.seconds is None]
    if not tasks:
        return
    out.mkdir(parents=True, exist_ok=True)
    command = f"{shlex.join([*_COMMAND, 'compare', *arguments])} --task $SLURM_ARRAY_TASK_ID"
    subprocess.run(  # noqa: S603  (the command that was asked for)
        [
            sbatch,
            "--wait",
            f"--array={','.join(map(str, tasks))}%{workers}",
            f"--output={out / 'slurm-%a.log'}",
            *shlex.split(options),
            "--wrap",
            command,
        ],
        check=False,  # a task that failed is a run that is not finished
    )


def write_sweep(runs: Sequence[Run], arguments: Sequence[str], out: Path) -> Path:
    """Write a sweep for wandb's agents, of which each task is one run.

    Returns:
        The file that ``wandb sweep`` takes.
    """
    out.mkdir(parents=True, exist_ok=True)
    tasks = [number for number, run in enumerate(runs) if run.seconds is None]
    sweep = {
        "name": out.name,
        "method": "grid",
        "parameters": {"task": {"values": tasks}},
        "command": [*_COMMAND, "compare", *arguments, "${args}"],  # --task=NUMBER
    }
    path = out / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep, sort_keys=False))
    return path
