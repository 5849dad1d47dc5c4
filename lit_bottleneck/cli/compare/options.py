"""The options of ``compare``, known before anything is imported that takes seconds."""

import argparse
import shlex
from pathlib import Path

from lit_bottleneck.cli import home

ENGINES = ("processes", "slurm", "wandb")
_DESCRIPTION = (
    "Train several arms with several seeds, and report how they differ: a table (mean, standard deviation over the "
    "seeds, difference from the first arm with its paired 95 % confidence interval), learning curves, and for a grid "
    "over beta or the capacity the information plane or the rate-distortion curve. Every option that is not listed "
    "here is one of 'lit-bottleneck fit', and goes to all arms: --config RECIPE first of all. Repeat the command to "
    "go on after an interruption: finished runs are kept, interrupted ones are resumed, failed ones start again."
)
_ARM_HELP = "an arm and its own arguments: plain='--model.init_args.deterministic true'; the first is the reference"
_GRID_HELP = "an arm for each value: model.init_args.beta=1e-4,1e-3,1e-2; several grids are crossed"
_ENGINE_HELP = "processes of this machine; a SLURM array, waited for; or a sweep for the agents of wandb"
_ENGINE_OPTIONS_HELP = "options of sbatch: --engine_options='--partition=gpu --gres=gpu:1'"
_METRICS_HELP = (
    "logged names to compare: NAME is the last value, NAME:max or NAME:min the best over the epochs (without those "
    "whose value is NaN), NAME:until=NUMBER the epochs until it is at least that (default: all of test/)"
)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's own options; it leaves those of ``fit`` over."""
    parser = argparse.ArgumentParser("lit-bottleneck compare", description=_DESCRIPTION, allow_abbrev=False)
    add = parser.add_argument
    add("--arm", metavar="NAME=ARGUMENTS", action="append", default=[], help=_ARM_HELP)
    add("--grid", metavar="KEY=VALUES", action="append", default=[], help=_GRID_HELP)
    add("--seeds", metavar="N,N,...", default="0,1,2", help="default: 0,1,2")
    add("--metrics", metavar="NAME", nargs="+", action="extend", default=[], help=_METRICS_HELP)
    add("--workers", metavar="N", type=int, default=1, help="how many runs at a time (default: 1)")
    add("--out", metavar="FOLDER", type=home.path, default=Path("runs/compare"), help="default: runs/compare")
    add("--engine", choices=ENGINES, default="processes", help=_ENGINE_HELP)
    add("--engine_options", metavar="OPTIONS", type=shlex.split, default=[], help=_ENGINE_OPTIONS_HELP)
    add("--task", metavar="N", type=int, help="run only the N-th run, and make no table")
    return parser
