"""Start-up of commands: each in a process of its own, with the CPU seconds of that process and of those it waited for.

Rows of a command alone have its seconds as ratio; rows of an import or of a first step, the seconds above those of
``import lightning``, beside which they are run in turn.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from lightning.pytorch.callbacks import Callback

from tests.benchmarks.timing import Row, row

COMMAND = ("-m", "lit_bottleneck")
AT_ONCE = {
    "recipes": ("recipes",),
    "--help": ("--help",),
    "--version": ("--version",),
    "a misspelt command": ("fti",),
    "a missing configuration": ("fit", "--config", "recipes/vib_digit.yaml"),
}
LIGHTNING = ("-c", "import lightning")
MODELS = ("-c", "import lightning; from lit_bottleneck import VIBClassifier, VAE, VDBGAN")
RECIPE = ("--config", str(Path(__file__).parents[2] / "recipes/vib_digits.yaml"))
RUNS = 8


def rows(root: Path, rounds: int = 5, epochs: int = 60) -> Iterator[Row]:
    """Time what is promised of the start of commands, and of eight short runs at a time."""
    for name, arguments in AT_ONCE.items():
        taken = [spent(*COMMAND, *arguments) for _ in range(rounds)]
        yield alone(name, taken, bar=0.5)
    pairs = in_turn(lambda: spent(*COMMAND, "fit", "--help"), rounds)
    yield row("fit --help, against import lightning", pairs, bar=1.2)
    yield above("import of three models", in_turn(lambda: spent(*MODELS), rounds), bar=0.3)
    yield above("the first step of vib_digits", in_turn(first_step, rounds), bar=2.0)
    yield compared(epochs)


def spent(*arguments: str, folder: Path | None = None) -> float:
    """Return the seconds that Python takes for arguments, whatever its exit status (``timing.clock``)."""
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, *arguments]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    with cast(IO[bytes], process.stderr) as stream:
        errors = stream.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 2):  # 2: a command that was refused
        raise RuntimeError(f"{' '.join(arguments)}: {errors.decode()[-2000:]}")
    is_wall = os.environ.get("BENCHMARK_CLOCK") == "wall"
    return time.perf_counter() - start if is_wall else usage.ru_utime + usage.ru_stime


def in_turn(ours: Callable[[], float], rounds: int) -> list[tuple[float, float]]:
    """Return the seconds of ours and of ``import lightning``, after a round that does not count."""
    return [(ours(), spent(*LIGHTNING)) for _ in range(rounds + 1)][1:]


def alone(name: str, taken: Sequence[float], bar: float) -> Row:
    """Make a row of seconds."""
    first, median, third = statistics.quantiles(taken, n=4, method="inclusive")
    return Row(f"start-up: {name}, seconds", median * 1e3, ratio=median, quartiles=(first, third), bar=bar)


def above(name: str, pairs: Sequence[tuple[float, float]], bar: float) -> Row:
    """Make a row of the seconds by which ours are above the other's."""
    first, median, third = statistics.quantiles([ours - other for ours, other in pairs], n=4, method="inclusive")
    ours, other = (statistics.median(side) * 1e3 for side in zip(*pairs, strict=True))
    return Row(f"start-up: {name}, seconds above import lightning", ours, other, median, (first, third), bar)


def first_step() -> float:
    """Time the process of ``fit`` to the end of its first step."""
    with tempfile.TemporaryDirectory() as folder:
        stop = f"--trainer.callbacks+={ExitAfterFirstStep.__module__}.{ExitAfterFirstStep.__name__}"
        return spent(*COMMAND, "fit", *RECIPE, stop, folder=Path(folder))


class ExitAfterFirstStep(Callback):
    """End the process, with whatever it has not done."""

    def on_train_batch_end(self, *args: Any) -> NoReturn:
        """Exit with status 0."""
        os._exit(0)


def compared(epochs: int) -> Row:
    """Time eight runs by ``compare`` with two workers, against eight calls of ``fit`` without their imports.

    In seconds of the clock the bar is for half of the eight, as two work at a time.
    """
    some = f"--trainer.max_epochs={epochs}"
    with tempfile.TemporaryDirectory() as folder:
        seeds = ",".join(map(str, range(RUNS)))
        ours = spent(*COMMAND, "compare", *RECIPE, some, "--seeds", seeds, "--workers", "2", folder=Path(folder))
    fits = 0.0
    for seed in range(RUNS):
        with tempfile.TemporaryDirectory() as folder:
            fit = spent(*COMMAND, "fit", *RECIPE, some, f"--seed_everything={seed}", folder=Path(folder))
            fits += fit - spent(*LIGHTNING)
    share = fits / 2 if os.environ.get("BENCHMARK_CLOCK") == "wall" else fits
    name = f"{RUNS} runs of vib_digits by compare, against fit calls without import lightning"
    return Row(f"start-up: {name}", ours * 1e3, share * 1e3, ours / share, bar=1.15)
