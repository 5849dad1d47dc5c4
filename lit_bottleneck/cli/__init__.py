"""The command line: Lightning's commands from YAML recipes, with `recipes`, `resume`, `sample`, `export`, `compare`."""

from lit_bottleneck.cli.app import BottleneckCLI, fit_configuration, main

__all__ = ["BottleneckCLI", "fit_configuration", "main"]
