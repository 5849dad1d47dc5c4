"""Epochs of recipes as shipped, against bare loops (see ``bare``), epochs 6 to 10 of each.

The recipe trains in this process, by its command, with its logger, checkpoints and progress bar. After each of its
epochs the others, each in a process of its own, train for one. Its epochs last from the end of the others' to its own
end, with whatever happens between epochs. Where an epoch is long, both sides train on its first batches only: their
time is multiplied, and that of all else (validation, checkpoint, logs) added as it is.
"""

import contextlib
import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer

from lit_bottleneck.cli import BottleneckCLI
from lit_bottleneck.cli.recipes import recipe_paths
from lit_bottleneck.data import IMDB, Images
from lit_bottleneck.data.dataset import Examples
from tests.benchmarks.side import Seconds, Side
from tests.benchmarks.step_seconds import StepSeconds
from tests.benchmarks.text import reviews
from tests.benchmarks.timing import clock

EPOCHS, WARM_UP = 10, 5
SHIPPED = ("--flush", "--keep")  # as the command sets them

Epochs = dict[str, list[float]]


class SyntheticImages(Images):
    """Random pixels and labels of the shape and number of the files that are missing."""

    def prepare_data(self) -> None:
        """Do nothing."""

    def load(self) -> tuple[Examples, Examples]:
        """Draw 60 000 and 10 000 examples."""
        generator = torch.Generator().manual_seed(0)

        def drawn(count: int) -> Examples:
            images = torch.randint(256, (count, 1, 28, 28), generator=generator, dtype=torch.uint8)
            return Examples.of(images, torch.randint(10, (count,), generator=generator))

        return drawn(60_000), drawn(10_000)


class SyntheticReviews(IMDB):
    """Random tokens, as frequent as words are; the label is whether a certain token is there."""

    def prepare_data(self) -> None:
        """Do nothing."""

    def load(self) -> tuple[Examples, Examples]:
        """Draw 25 000 reviews to train on; the test has the first 1000 of them."""
        tokens = reviews(25_000).to(torch.int16)
        examples = Examples.of(tokens, (tokens == 40).any(1).long())
        return examples, examples.select(torch.arange(1000))


class Alternate(StepSeconds):
    """Have the others train for an epoch after each epoch of the recipe, and note the seconds of all.

    Args:
        folder: where the data go, for the others.
        sides: by name: the module, the arguments and the interpreter of ``Side``.
    """

    def __init__(self, folder: Path, sides: Mapping[str, Mapping[str, Any]]) -> None:
        self.folder, self.sides = folder, sides
        self.seconds: dict[str, list[Seconds]] = {name: [] for name in ("ours", *sides)}
        self.processes = contextlib.ExitStack()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        data = {"batches": trainer.num_training_batches, "val_inputs": torch.empty(0), "val_labels": torch.empty(0)}
        for kind, part in (("", "train"), ("val_", "val"))[: 2 if datamodule.val_size else 1]:
            examples = datamodule.dataset(part).examples
            inputs, labels = examples.take(torch.arange(len(examples)))
            data |= {f"{kind}inputs": inputs, f"{kind}labels": labels}
        torch.save(data, self.folder / "data.pt")
        self.others = {
            name: self.processes.enter_context(Side(self.folder, **side)) for name, side in self.sides.items()
        }
        self.start = clock()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds["ours"].append((self.steps, clock() - self.start - self.steps))
        for name, other in self.others.items():
            self.seconds[name].append(other.epoch())
        self.start = clock()


class Terminal(io.StringIO):
    """A stream on which Lightning shows a progress bar."""

    def isatty(self) -> bool:
        return True


def loop(recipe: str, *settings: str, module: str = "bare") -> dict[str, Any]:
    """Return the bare loop of a recipe, or the same in Lightning (``"lightning_loop"``), for ``Alternate``."""
    return {"module": module, "arguments": ("--recipe", recipe, *settings)}


def train(recipe: str, root: Path, part: float, sides: Mapping[str, Mapping[str, Any]], data: str = "") -> Epochs:
    """Train a recipe and the others in turn; return the seconds of the epochs that count.

    Args:
        recipe: its name.
        root: where its data are.
        part: of an epoch's batches to train on, 1 for all; the seconds are those of whole epochs.
        sides: see ``Alternate``.
        data: a class of this file, in place of the recipe's data.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(Terminal()):
        alternate = Alternate(Path(folder), sides)

        class Fit(BottleneckCLI):
            def before_fit(self) -> None:
                super().before_fit()
                self.trainer.callbacks.append(alternate)  # type: ignore[attr-defined]

            def after_fit(self) -> None:
                """Leave out the test."""

        arguments = ["fit", "--config", str(recipe_paths()[recipe])]
        arguments += [f"--data=tests.benchmarks.training.{data}"] if data else []
        trainer = {"max_epochs": EPOCHS, "min_epochs": EPOCHS, "logger.init_args.save_dir": folder}
        trainer |= {} if part == 1 else {"limit_train_batches": part}
        with alternate.processes:
            Fit(
                [*arguments, "--data.init_args.root", str(root)]
                + [f"--trainer.{name}={value}" for name, value in trainer.items()]
            )
    return {
        name: [steps / part + rest for steps, rest in seconds[WARM_UP:]] for name, seconds in alternate.seconds.items()
    }
