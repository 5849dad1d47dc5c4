"""The command itself: from its arguments to a table and figures."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lit_bottleneck.cli.compare.arms import Arm, arms_of
from lit_bottleneck.cli.compare.engines import ENGINES, run_by_slurm, run_here, write_sweep
from lit_bottleneck.cli.compare.figures import draw_figures
from lit_bottleneck.cli.compare.measured import Curves, Measure, curves_of, default_measures, measure_of
from lit_bottleneck.cli.compare.runs import Run, run_of
from lit_bottleneck.cli.compare.table import markdown_table, values_csv

_DESCRIPTION = (
    "Train several arms with several seeds, and say how they differ: a table (mean, standard deviation over the seeds, "
    "difference from the first arm with its paired 95 % confidence interval), learning curves, and for a grid over a "
    "price the information plane or the rate-distortion curve. Every option that is not listed here is one of "
    "'lit-bottleneck fit', and goes to all arms: --config RECIPE first of all. The same command again goes on where it "
    "was cut: runs that are finished are kept, those that were cut or failed begin anew."
)
_METRICS_HELP = (
    "logged names to compare: NAME is the last value, NAME:max or NAME:min the best over the epochs, "
    "NAME:until=NUMBER the epochs until it is at least that (default: all of test/)"
)
_LEGEND = "Mean (standard deviation over seeds); mean difference by seed [its paired 95 % confidence interval]."

Configure = Callable[[Sequence[str]], dict[str, Any]]


def main(args: Sequence[str], configure: Configure) -> None:
    """Run a comparison, or one task of it.

    Args:
        args: the command's arguments.
        configure: makes the configuration of ``lit-bottleneck fit`` of its arguments, and leaves with exit status 2
            where they are wrong.
    """
    parser = _parser()
    options, common = parser.parse_known_args(args)
    try:
        arms = arms_of(common, options.arm, options.grid)
        measures = [measure_of(text) for texts in options.metrics for text in texts.split(",") if text]
    except ValueError as error:
        parser.error(str(error))
    if options.out.exists() and not options.out.is_dir():
        parser.error(f"argument --out: {options.out} is no folder")
    runs = _runs(parser, arms, options, configure)
    if options.task is not None:
        if not 0 <= options.task < len(runs):
            parser.error(f"argument --task: there are {len(runs)} runs, 0 to {len(runs) - 1}; got {options.task}")
        run_here([runs[options.task]], workers=1)
        raise SystemExit(runs[options.task].seconds is None)
    if options.engine == "wandb" and any(run.seconds is None for run in runs):
        path = write_sweep(runs, _without_engine(args), options.out)
        print(f"written: {path}\nwandb sweep {path}, then wandb agent, as often and on as many machines as you like")
        print("once they are through, the same command without --engine makes the table")
        return
    try:
        if options.engine == "slurm":
            run_by_slurm(runs, options.workers, _without_engine(args), options.engine_options, options.out)
        else:
            run_here(runs, options.workers)
    except ValueError as error:
        parser.error(str(error))
    _report(arms, runs, measures, options.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("lit-bottleneck compare", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument(
        "--arm", metavar="NAME=ARGUMENTS", action="append", default=[],
        help="an arm, and what only it gets: plain='--model.init_args.deterministic true'; the first is the reference",
    )  # fmt: skip
    parser.add_argument(
        "--grid", metavar="KEY=VALUES", action="append", default=[],
        help="an arm for each value: model.init_args.beta=1e-4,1e-3,1e-2; several grids are crossed",
    )  # fmt: skip
    parser.add_argument("--seeds", metavar="N,N,...", default="0,1,2", help="default: 0,1,2")
    parser.add_argument("--metrics", metavar="NAME", nargs="+", action="extend", default=[], help=_METRICS_HELP)
    parser.add_argument("--workers", metavar="N", type=int, default=1, help="how many runs at a time (default: 1)")
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, default=Path("runs/compare"), help="default: runs/compare"
    )
    parser.add_argument(
        "--engine", choices=ENGINES, default="processes",
        help="processes of this machine; a SLURM array, waited for; or a sweep for the agents of wandb",
    )  # fmt: skip
    parser.add_argument(
        "--engine_options",
        metavar="OPTIONS",
        default="",
        help="of sbatch: --engine_options='--partition=gpu --gres=gpu:1'",
    )
    parser.add_argument("--task", metavar="N", type=int, help="run the N-th run only, and make no table")
    return parser


def _runs(
    parser: argparse.ArgumentParser, arms: Sequence[Arm], options: argparse.Namespace, configure: Configure
) -> list[Run]:
    try:
        seeds = [int(seed) for seed in options.seeds.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        parser.error(f"argument --seeds: must be different whole numbers, such as 0,1,2; got {options.seeds}")
    if options.workers < 1:
        parser.error(f"argument --workers: must be at least 1; got {options.workers}")
    configurations: list[dict[str, Any]] = []
    for arm in arms:
        try:
            configuration = configure(arm.arguments)
        except SystemExit:
            parser.exit(2, f"lit-bottleneck fit does not take the arguments of the arm {arm.name!r}: see above\n")
        if configuration in configurations:
            twin = arms[configurations.index(configuration)]
            parser.error(f"the arms {twin.name!r} and {arm.name!r} are the same")
        configurations.append(configuration)
    runs = [
        run_of(arm, seed, configuration, options.out)
        for arm, configuration in zip(arms, configurations, strict=True)
        for seed in seeds
    ]
    for run in runs:
        if run.is_of_another_comparison():
            parser.error(f"argument --out: {run.folder} holds a run of other settings; give another folder")
    ours = {run.folder.parent for run in runs}
    others = sorted({path.parents[1] for path in options.out.glob("*/seed_*/finished.json")} - ours)
    if others:
        parser.error(f"argument --out: {others[0]} is of an arm that is not in this comparison; give another folder")
    return runs


def _without_engine(args: Sequence[str]) -> list[str]:
    """The arguments that a task gets."""
    kept = []
    words = iter(args)
    for word in words:
        if word in ("--engine", "--engine_options"):
            next(words)
        elif not word.startswith(("--engine=", "--engine_options=")):
            kept.append(word)
    return kept


def _report(arms: Sequence[Arm], runs: Sequence[Run], measures: Sequence[Measure], out: Path) -> None:
    finished = {arm.name: [run for run in runs if run.arm is arm and run.seconds is not None] for arm in arms}
    failed = [run for run in runs if run.seconds is None]
    curves: dict[str, list[Curves]] = {name: [curves_of(run) for run in kept] for name, kept in finished.items()}
    if any(finished.values()):
        measures = measures or default_measures([logged for kept in curves.values() for logged in kept])
        values = {
            name: [
                {run.seed: measure.of(logged) for run, logged in zip(finished[name], curves[name], strict=True)}
                for measure in measures
            ]
            for name in finished
        }
        titles = [measure.text for measure in measures]
        table = markdown_table(titles, values)
        (out / "table.md").write_text(f"{table}\n\n{_LEGEND}\n")
        (out / "values.csv").write_text(values_csv(titles, values))
        over_a_price = any(arm.sets_a_price for arm in arms)
        figures = draw_figures([measure.name for measure in measures], curves, out, over_a_price)
        seconds = sum(run.seconds or 0 for run in runs)
        print(f"\n{table}\n\n{_LEGEND}\n{len(runs) - len(failed)} runs, {seconds:.0f} s in all")
        print(f"written: {', '.join(map(str, [out / 'table.md', out / 'values.csv', *figures]))}")
    if failed:
        print(f"\n{len(failed)} of {len(runs)} runs failed:")
        for run in failed:
            print(f"- {run.name} ({run.log_file}): {_last_words(run)}")
    logged = sorted({name for kept in curves.values() for logged in kept for name in logged})
    missing = [measure.name for measure in measures if measure.name not in logged] if logged else []
    if missing:
        print(f"\nno run has logged {', '.join(missing)}; there are {', '.join(logged)}")
    if failed or missing:
        raise SystemExit(1)


def _last_words(run: Run) -> str:
    lines = run.log_file.read_text(errors="replace").split("\n") if run.log_file.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing was said")
