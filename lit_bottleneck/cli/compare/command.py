"""The command itself: from its arguments to a table and figures."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli.compare.arms import Arm, read_arms
from lit_bottleneck.cli.compare.engines import run_by_slurm, run_here, unfinished, write_sweep
from lit_bottleneck.cli.compare.figures import draw_figures
from lit_bottleneck.cli.compare.metrics import Curves, Measure, default_measures, read_curves, read_measure
from lit_bottleneck.cli.compare.processes import Start
from lit_bottleneck.cli.compare.runs import FINISHED, Run, make_run
from lit_bottleneck.cli.compare.table import markdown_table, values_csv
from lit_bottleneck.training.folder_owner import FolderOwner
from lit_bottleneck.training.whole_file import whole_file

_LEGEND = (
    "Mean (standard deviation over seeds); mean difference by seed [its paired 95 % confidence interval], n seeds that "
    "both arms have."
)

Configure = Callable[[Sequence[str]], dict[str, Any]]


def compare(
    options: argparse.Namespace, common: Sequence[str], args: Sequence[str], configure: Configure, start: Start
) -> None:
    """Run a comparison, or one task of it.

    Args:
        options: the command's own options.
        common: those of ``fit``.
        args: all of the command's arguments.
        configure: see ``main``.
        start: starts a run.

    Raises:
        ConfigurationError: for wrong options.
    """
    arms = read_arms(common, options.arm, options.grid)
    measures = [read_measure(text) for texts in options.metrics for text in texts.split(",") if text]
    runs = _make_runs(arms, options, configure)
    if options.task is not None:
        _check_out(runs, options.out)
        _run_task(runs, options.task, start)
    with FolderOwner(options.out):
        _check_out(runs, options.out)
        _run(arms, runs, measures, options, args, start)


def _run(
    arms: Sequence[Arm],
    runs: Sequence[Run],
    measures: Sequence[Measure],
    options: argparse.Namespace,
    args: Sequence[str],
    start: Start,
) -> None:
    """Run what is not finished, and report; or write the sweep that does."""
    if options.engine == "wandb" and unfinished(runs):
        path = write_sweep(runs, _without_engine(args), options.out)
        print(f"written: {path}\nRun 'wandb sweep {path}', then 'wandb agent' on as many machines as you like.")
        print("When all runs are finished, the same command without --engine makes the table.")
        return
    if options.engine == "slurm":
        run_by_slurm(runs, options.workers, _without_engine(args), options.engine_options, options.out)
    else:
        run_here(runs, options.workers, start)
    _report(arms, runs, measures, options.out)


def _make_runs(arms: Sequence[Arm], options: argparse.Namespace, configure: Configure) -> list[Run]:
    if options.out.exists() and not options.out.is_dir():
        raise ConfigurationError(f"--out must be a folder; got {options.out}")
    if options.workers < 1:
        raise ConfigurationError(f"--workers must be at least 1; got {options.workers}")
    seeds = _read_seeds(options.seeds)
    configurations: list[dict[str, Any]] = []
    for arm in arms:
        try:
            configuration = configure(arm.arguments)
        except SystemExit as error:
            if error.code != 2:
                raise  # it was stopped by a signal
            words = f"the arm {arm.name!r} must have arguments that 'lit-bottleneck fit' takes: see above"
            raise ConfigurationError(words) from error
        if configuration.pop("overwrite", False):
            raise ConfigurationError("--overwrite is an option of fit alone: give another folder by --out")
        if configuration in configurations:
            twin = arms[configurations.index(configuration)]
            raise ConfigurationError(f"the arms {twin.name!r} and {arm.name!r} are the same")
        configurations.append(configuration)
    pairs = zip(arms, configurations, strict=True)
    return [make_run(arm, seed, configuration, options.out) for arm, configuration in pairs for seed in seeds]


def _read_seeds(text: str) -> list[int]:
    try:
        seeds = [int(seed) for seed in text.split(",")]
    except ValueError:
        seeds = [-1]
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ConfigurationError(f"--seeds must be different whole numbers, such as 0,1,2; got {text}")
    return seeds


def _check_out(runs: Sequence[Run], out: Path) -> None:
    """Raise ConfigurationError if the folder holds runs of another comparison."""
    for run in runs:
        if run.belongs_to_another_comparison():
            raise ConfigurationError(f"{run.folder} holds a run of other settings; give another folder by --out")
    ours = {run.folder.parent for run in runs}
    others = sorted({path.parents[1] for path in out.glob(f"*/seed_*/{FINISHED}")} - ours)
    if others:
        raise ConfigurationError(f"{others[0]} is of an arm that is not in this comparison; give another --out")


def _run_task(runs: Sequence[Run], task: int, start: Start) -> NoReturn:
    if not 0 <= task < len(runs):
        raise ConfigurationError(f"--task must be from 0 to {len(runs) - 1}, as there are {len(runs)} runs; got {task}")
    run_here([runs[task]], 1, start)
    raise SystemExit(runs[task].seconds is None)


def _without_engine(args: Sequence[str]) -> list[str]:
    """Return the arguments that a task gets."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--engine")
    parser.add_argument("--engine_options")
    return parser.parse_known_args(args)[1]


def _report(arms: Sequence[Arm], runs: Sequence[Run], measures: Sequence[Measure], out: Path) -> None:
    failed = [run for run in runs if run.seconds is None]
    finished = [run for run in runs if run.seconds is not None]
    curves = {arm.name: {run.seed: read_curves(run.folder) for run in finished if run.arm is arm} for arm in arms}
    logged = sorted({name for by_seed in curves.values() for one in by_seed.values() for name in one})
    if finished:
        measures = measures or default_measures(logged)
        paths = _write(measures, curves, out, varies_rate=any(arm.varies_rate for arm in arms))
        seconds = sum(run.seconds or 0 for run in finished)
        print(f"\n{(out / 'table.md').read_text()}{len(finished)} runs, {seconds:.0f} s in all")
        print(f"written: {', '.join(map(str, paths))}")
    if failed:
        print(f"\n{len(failed)} of {len(runs)} runs failed:")
        for run in failed:
            print(f"- {run.name} ({run.log_file}): {_last_line(run)}")
    missing = [measure.name for measure in measures if measure.name not in logged] if logged else []
    if missing:
        print(f"\nno run has logged {', '.join(missing)}; there are {', '.join(logged)}")
    if failed or missing:
        raise SystemExit(1)


def _write(
    measures: Sequence[Measure], curves: dict[str, dict[int, Curves]], out: Path, varies_rate: bool
) -> list[Path]:
    """Write the table, all values and the figures; return their paths."""
    titles = [measure.text for measure in measures]
    values = {
        name: [{seed: measure.of(one) for seed, one in by_seed.items()} for measure in measures]
        for name, by_seed in curves.items()
    }
    table, csv = out / "table.md", out / "values.csv"
    texts = {table: f"{markdown_table(titles, values)}\n\n{_LEGEND}\n", csv: values_csv(titles, values)}
    for path, text in texts.items():
        with whole_file(path) as file:
            file.write_text(text)
    of_arms = {name: list(by_seed.values()) for name, by_seed in curves.items()}
    return [table, csv, *draw_figures([measure.name for measure in measures], of_arms, out, varies_rate)]


def _last_line(run: Run) -> str:
    """Return the last line that a run printed."""
    lines = run.log_file.read_text(errors="replace").split("\n") if run.log_file.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
