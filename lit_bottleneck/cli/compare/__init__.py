"""The command ``compare``: train several arms with several seeds, and test how they differ.

Data flow: ``arms`` reads the arms from the arguments, ``runs`` gives each arm and seed a configuration and a folder,
``engines`` runs them, ``metrics`` reads what they logged, ``table`` and ``figures`` show it.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli.compare.options import make_parser
from lit_bottleneck.cli.imports import without_collections


def main(args: Sequence[str], configure: Callable[[Sequence[str]], dict[str, Any]], forks: bool = False) -> None:
    """Run a comparison, or one task of it.

    Args:
        args: the command's arguments.
        configure: returns the configuration of ``lit-bottleneck fit`` for its arguments, and exits with status 2 if
            they are wrong.
        forks: whether runs are forked from this process, where it has computed nothing: they share its imports.
    """
    parser = make_parser()
    options, common = parser.parse_known_args(args)
    if forks:  # libraries read it as they are loaded
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // max(1, options.workers))))
    with without_collections():
        from lit_bottleneck.cli.compare import command, processes
    try:
        command.compare(options, common, args, configure, processes.forked if forks else processes.started)
    except ConfigurationError as error:
        parser.error(str(error))
