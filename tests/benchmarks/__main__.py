"""``python -m tests.benchmarks [--root FOLDER] [--only NAME ...] [--json FILE] [--wall]``: a table of ratios.

MNIST is read from FOLDER (default: data), or downloaded to it; IMDB is replaced by synthetic tokens, and so are pixels
whose files are missing. Both sides of a row take denormal numbers for 0 and keep freed memory, unless the row says
otherwise.

By default one thread, in CPU seconds; with --wall all threads, in seconds of the clock (see ``timing``). A row is the
median of both sides, the median and the quartiles of the ratios of neighbours, and the bar.
"""

import argparse
import json
import logging
import os
import platform
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from tests.benchmarks.timing import Row

Rows = Callable[[Path], Iterable[Row]]

# Where the rows are: a function of the folder of the data.
ROWS = {
    "operation": "operation.rows",
    "data": "data.rows",
    "folder": "folder.rows",
    "text": "text.rows",
    "evaluation": "evaluation.rows",
    "growth": "growth.rows",
    "start_up": "start_up.rows",
    "vib_mnist": "recipes.vib_mnist",
    "vae_mnist": "recipes.vae_mnist",
    "vib_imdb": "recipes.vib_imdb",
    "vdbgan_mnist": "recipes.vdbgan_mnist",
    "vib_fashion_mnist": "recipes.vib_fashion_mnist",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path("data"))
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=ROWS, default=[*ROWS], help=", ".join(ROWS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to FILE")
    parser.add_argument("--wall", action="store_true")
    options = parser.parse_args()
    if options.wall:
        os.environ["BENCHMARK_CLOCK"] = "wall"
    else:
        os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported
    _settle()
    print(f"{'':64} {'ours':>11} {'other':>11} {'ratio':>7}  {'quartiles':13} {'bar':>5}", flush=True)
    results = []
    for name in options.only:
        file, function = ROWS[name].split(".")
        rows: Rows = getattr(import_module(f"tests.benchmarks.{file}"), function)
        for row in rows(options.root):
            print(line(row), flush=True)
            results.append(row)
            if options.json:  # each time: rows that took an hour are not lost with a later one
                options.json.write_text(json.dumps([asdict(row) for row in results], indent=1) + "\n")


def line(row: Row) -> str:
    """Return a row as text."""

    def side(value: float | None) -> str:
        return "" if value is None else f"{value:.4g} {row.unit}"

    ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
    spread = "" if row.quartiles is None else "{:.3f}-{:.3f}".format(*row.quartiles)
    bar = "" if row.bar is None else f"{row.bar:g}"
    missed = " missed" if row.bar is not None and (row.ratio is None or row.ratio > row.bar) else ""
    note = f"  ({row.note})" if row.note else ""
    return f"{row.name:64} {side(row.ours):>11} {side(row.other):>11} {ratio:>7}  {spread:13} {bar:>5}{missed}{note}"


def _settle() -> None:
    """Take denormals for 0 and keep freed memory, before anything computes."""
    import torch

    from lit_bottleneck.training.denormals import flush_denormals
    from lit_bottleneck.training.memory import keep_freed_memory

    keep_freed_memory()
    flushed = flush_denormals()
    for library in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(library).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    timed = "wall time" if os.environ.get("BENCHMARK_CLOCK") == "wall" else "CPU time"
    threads = f"{torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {threads}, {timed}, Python {platform.python_version()}, flushed: {flushed}")


if __name__ == "__main__":
    main()
