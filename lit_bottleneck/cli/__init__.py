"""Lightning's commands from YAML recipes, and those of ``_OWN`` and ``compare``.

Each command imports what it needs: ``recipes`` and what ``front`` answers need neither torch nor Lightning.
"""

import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from lit_bottleneck.cli import front
from lit_bottleneck.cli.imports import without_collections
from lit_bottleneck.cli.output import keep_going_without_output
from lit_bottleneck.cli.parent import end_with_parent
from lit_bottleneck.cli.signals import end_at_once, ending_on_signals

_OWN = ("recipes", "completion", "resume", "sample", "export", "demonstrate")  # commands with a module each
_NOT_FOR_USERS = (
    ".*does not have many workers.*",  # data in memory is loaded fastest by the process itself
    "Total length of `list` across ranks is zero",  # val_size=0 is what the user asked for
    "You defined a `validation_step` but have no `val_dataloader`",  # as Rollouts, of which nothing is held out
    ".*isinstance\\(treespec, LeafSpec\\).*",  # Lightning's own business
    "LightningCLI's args parameter is intended",  # resume hands it the configuration, which it would print
    "The dirpath has changed from",  # evaluation does not write checkpoints
    "Your `IterableDataset` has `__len__` defined",  # Shards share out their images among loader processes
    "The given buffer is not writable",  # litdata's, which Shards copies
)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: the arguments. Default: those of the process, which goes on if nobody reads what it prints.

    Raises:
        SystemExit: with 128 + n, if signal n (SIGTERM, SIGHUP or SIGINT) has stopped it.
    """
    if args is None:
        keep_going_without_output()
    end_with_parent()
    try:
        with ending_on_signals():
            _run(args)
    finally:
        if args is None:
            end_at_once()


def _run(args: Sequence[str] | None) -> None:
    if args is None and not sys.flags.safe_path and not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())  # as python -m does, but last: a file here shadows no installed package
    arguments = list(sys.argv[1:] if args is None else args)
    front.answer(arguments)
    command = arguments[0]
    for message in _NOT_FOR_USERS:
        warnings.filterwarnings("ignore", message=message)
    if command == "compare":
        forks = args is None and sys.platform == "linux"  # elsewhere libraries may have threads by now
        import_module("lit_bottleneck.cli.compare").main(arguments[1:], configure=_configured, forks=forks)
        return
    with without_collections():
        if args is None and command not in ("recipes", "completion"):
            import_module("lit_bottleneck.training.denormals").flush_denormals()
        module: Any = import_module(f"lit_bottleneck.cli.{command if command in _OWN else 'app'}")
    if command == "resume":
        module.main(arguments[1:], fit=import_module("lit_bottleneck.cli.app").BottleneckCLI)
    elif command in _OWN:
        module.main(arguments[1:])
    else:
        module.BottleneckCLI(args if args is None else arguments)


def _configured(arguments: Sequence[str]) -> dict[str, Any]:
    from lit_bottleneck.cli.app import fit_configuration

    return fit_configuration(arguments)


def __getattr__(name: str) -> Any:
    """Import ``BottleneckCLI`` and ``fit_configuration`` on first use."""
    if name in ("BottleneckCLI", "fit_configuration"):
        return getattr(import_module("lit_bottleneck.cli.app"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
