"""``python -m tests.benchmarks [--root FOLDER]``: a table of ratios. Run it on an idle machine.

MNIST is read from FOLDER (default: data), or downloaded to it.
"""

import argparse
import logging
import platform
from pathlib import Path

import torch

from lit_bottleneck.data import Images
from tests.benchmarks import data, operation, text, training


def main() -> None:
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("data"))
    root = parser.parse_args().root
    Images("MNIST", root=root).prepare_data()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, Python {platform.python_version()}")
    print(f"{'':40} {'ours':>10} {'other':>10} {'ours/other':>11}   bar")
    for row, bar in (
        (operation.run(), "at most 1/1.5 = 0.67"),
        (data.run(root), "at most 1/30 = 0.033"),
        (training.run(root), "at most 1.10"),
        (text.run(), "at most 0.40"),
    ):
        name, ours, other, ratio = row
        print(f"{name:40} {ours * 1e3:8.2f}ms {other * 1e3:8.2f}ms {ratio:11.3f}   {bar}", flush=True)


if __name__ == "__main__":
    main()
