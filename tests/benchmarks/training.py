"""An epoch of the recipe vib_mnist as shipped, against a bare PyTorch loop of its network, optimizer and batches.

The bare loop has what the recipe has of computation: the two networks, Adam, and the moving average of the weights. It
logs nothing, checks nothing and shows nothing. Both train for good, in turn, an epoch each: the recipe's epochs are
timed from the end of the bare loop's to their own, with whatever happens between epochs.
"""

import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lit_bottleneck.cli import BottleneckCLI
from lit_bottleneck.cli.recipes import recipe_paths
from tests.benchmarks.timing import seconds


class BareModel(nn.Module):
    """The recipe's network in plain PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 512)
        )
        self.decoder = nn.Linear(256, 10)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        mean, raw = self.encoder(x).chunk(2, dim=1)
        sigma = F.softplus(raw - 5)
        rate = (0.5 * (mean.square() + sigma.square() - 1) - sigma.log()).sum(1).mean()
        return F.cross_entropy(self.decoder(mean + sigma * torch.randn_like(mean)), labels) + 1e-3 * rate


def bare_loop(pixels: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return a function that trains for one epoch."""
    model = BareModel()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.5, 0.999))
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))

    def epoch() -> None:
        for rows in torch.randperm(len(labels)).split(100):
            x = pixels[rows].float().div_(127.5).sub_(1)
            optimizer.zero_grad()
            model(x, labels[rows]).backward()
            optimizer.step()
            average.update_parameters(model)

    return epoch


class Alternate(Callback):
    """Train the bare loop for an epoch after each epoch of the recipe, and time both."""

    def __init__(self) -> None:
        self.pairs: list[tuple[float, float]] = []
        self.start: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        examples = trainer.datamodule.dataset("train").examples  # type: ignore[attr-defined]
        self.bare_epoch = bare_loop(examples.inputs, examples.labels)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        ours = None if self.start is None else time.perf_counter() - self.start
        bare = seconds(self.bare_epoch)
        if ours is not None:  # the first of both is a warm-up
            self.pairs.append((ours, bare))
        self.start = time.perf_counter()


class Terminal(io.StringIO):
    """A stream on which Lightning shows a progress bar."""

    def isatty(self) -> bool:
        return True


def run(root: Path, rounds: int = 4) -> tuple[str, float, float, float]:
    """Train both for ``rounds`` epochs after one to warm up."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(Terminal()):
        arguments = ["fit", "--config", str(recipe_paths()["vib_mnist"]), "--data.init_args.root", str(root)]
        arguments += ["--trainer.max_epochs", str(rounds + 1), "--trainer.logger.init_args.save_dir", folder]
        cli = BottleneckCLI([*arguments, "--trainer.callbacks+=tests.benchmarks.training.Alternate"])
    [alternate] = [callback for callback in cli.trainer.callbacks if isinstance(callback, Alternate)]
    ours, bare = zip(*alternate.pairs, strict=True)
    ratio = statistics.median(first / second for first, second in alternate.pairs)
    return "epoch of vib_mnist as shipped", statistics.median(ours), statistics.median(bare), ratio
