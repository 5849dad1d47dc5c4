"""The command ``demonstrate``: record episodes of an expert into a file."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lit_bottleneck.cli import home
from lit_bottleneck.cli.errors import REFUSALS, argument_errors
from lit_bottleneck.data.demonstrations import expert_from, record
from lit_bottleneck.data.environments import make_environment

_DESCRIPTION = "Record episodes of an expert in an environment of gymnasium into an .npz file, for data.Demonstrations."
_EXPERT = "import path of a function of an observation that returns an action, as lit_bottleneck.data.experts.swing_up"


def main(args: Sequence[str]) -> None:
    """Record the episodes, write them, and print their returns."""
    parser = make_parser()
    arguments = parser.parse_args(args)
    if arguments.episodes < 1:
        parser.error(f"argument --episodes: must be at least 1; got {arguments.episodes}")
    if not 0 <= arguments.seed < 2**32:
        parser.error(f"argument --seed: must be at least 0 and below 2**32; got {arguments.seed}")
    if arguments.out.suffix != ".npz":
        parser.error(f"argument --out: must end in .npz; got {arguments.out}")
    with argument_errors(parser, "--environment", *REFUSALS):
        environment = make_environment(arguments.environment)
    with argument_errors(parser, "--expert", *REFUSALS):
        episodes = record(environment, expert_from(arguments.expert), arguments.episodes, arguments.seed)
    with argument_errors(parser, "--out", OSError):
        episodes.save(arguments.out)
    returns = episodes.returns
    assert returns is not None  # noqa: S101  (they were recorded)
    steps = f"{len(returns)} episodes, {episodes.lengths.sum()} steps"
    spread = f"mean return {returns.mean():.1f}, from {returns.min():.1f} to {returns.max():.1f}"
    print(f"written: {arguments.out} ({steps}, {spread})")


def make_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser("lit-bottleneck demonstrate", description=_DESCRIPTION)
    add = parser.add_argument
    add("--environment", metavar="NAME", required=True, help="as registered with gymnasium, such as Pendulum-v1")
    add("--expert", metavar="PATH", required=True, help=_EXPERT)
    add("--episodes", metavar="N", type=int, default=10, help="default: 10")
    add("--seed", type=int, default=0, help="seed of the episodes (default: 0)")
    add("--out", metavar="FILE", type=home.path, default=Path("demonstrations.npz"), help="default: demonstrations.npz")
    return parser
