"""The command `compare`: the same training in several arms and with several seeds, and what may be concluded.

The way of the data: `arms` makes arms of the arguments, `runs` a configuration and a folder for each arm and seed,
`engines` has them run, `measured` reads what they logged, `table` and `figures` say it.
"""

from lit_bottleneck.cli.compare.command import main

__all__ = ["main"]
