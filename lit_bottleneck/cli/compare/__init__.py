"""The command ``compare``: train several arms with several seeds, and test how they differ.

Data flow: ``arms`` reads the arms from the arguments, ``runs`` gives each arm and seed a configuration and a folder,
``engines`` runs them, ``metrics`` reads what they logged, ``table`` and ``figures`` show it.
"""

from lit_bottleneck.cli.compare.command import main

__all__ = ["main"]
