"""The loops that a user would write: a recipe's networks, optimizer, batches and average of the weights.

An epoch trains on batches in random order, validates on what the recipe holds out (with the averaged weights, where
there are any), and writes weights, average and optimizer to a file. It logs nothing, checks nothing and shows nothing.
"""

import math
import os
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lit_bottleneck.functional import bounded_log_var
from lit_bottleneck.networks import MLP, ConvEncoder, DCGANEncoder, DCGANGenerator, MLPDecoder, TextEncoder
from tests.benchmarks.side import Seconds, options, serve
from tests.benchmarks.timing import clock

Scale = Callable[[Tensor], Tensor]


def softplus_sigma(raw: Tensor) -> Tensor:
    return F.softplus(raw - 5)


def bounded_sigma(raw: Tensor) -> Tensor:
    return (0.5 * bounded_log_var(raw)).exp()


def draw(moments: Tensor, scale: Scale) -> tuple[Tensor, Tensor, Tensor]:
    """Return a sample of the code, its mean and its rate ``(B,)``."""
    mean, raw = moments.chunk(2, dim=1)
    sigma = scale(raw)
    rate = (0.5 * (mean.square() + sigma.square() - 1) - sigma.log()).sum(1)
    return mean + sigma * torch.randn_like(mean), mean, rate


class Classifier(nn.Module):
    def __init__(self, encoder: nn.Module, decoder: nn.Module, beta: float, scale: Scale = bounded_sigma) -> None:
        super().__init__()
        self.encoder, self.decoder, self.beta, self.scale = encoder, decoder, beta, scale

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        z, mean, rate = draw(self.encoder(x), self.scale)
        return F.cross_entropy(self.decoder(z if self.training else mean), labels) + self.beta * rate.mean()


class Autoencoder(nn.Module):
    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        z, _, rate = draw(self.encoder(x), bounded_sigma)
        distortion = F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="none").flatten(1).sum(1)
        return (distortion + rate).mean()


class Loop:
    """Training of one network with one optimizer.

    Args:
        model: returns the loss of inputs and labels.
        optimizer: of its parameters.
        decay: of the average of the weights; None: there is none.
    """

    def __init__(self, model: nn.Module, optimizer: Adam, decay: float | None = None) -> None:
        self.model, self.optimizer = model, optimizer
        self.average = None if decay is None else AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.kept = [kept for kept in (model, self.average, optimizer) if kept is not None]

    def step(self, x: Tensor, labels: Tensor) -> None:
        self.optimizer.zero_grad()
        self.model(x, labels).backward()
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def loss(self, x: Tensor, labels: Tensor) -> float:
        model = (self.model if self.average is None else self.average).eval()
        loss = float(model(x, labels))
        model.train()
        return loss


class AdversarialLoop:
    """Training of a discriminator with a bottleneck, and of a generator against it, in turn."""

    def __init__(self, fused: bool) -> None:
        self.generator = DCGANGenerator(64, (1, 28, 28), width=32)
        encoder, head = DCGANEncoder((1, 28, 28), 128, width=32), nn.Linear(64, 1)
        self.discriminator = nn.ModuleList([encoder, head])
        self.optimizers = [
            Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.99), fused=fused)
            for network in (self.discriminator, self.generator)
        ]
        self.average = AveragedModel(self.generator, multi_avg_fn=get_ema_multi_avg_fn(0.99), use_buffers=True)
        self.log_beta, self.error = math.log(1e-3), 0.0
        self.kept = [self.generator, self.discriminator, self.average, *self.optimizers]

    def step(self, x: Tensor, labels: Tensor) -> None:
        with torch.no_grad():
            generated = self.generator(torch.randn(len(x), 64))
        self.optimizers[0].zero_grad()
        loss, rate, logit = self.discriminate(x.requires_grad_(), generated)
        [gradient] = torch.autograd.grad(logit.sum(), x, create_graph=True)
        (loss + 0.1 * gradient.square().flatten(1).sum(1).mean()).backward()
        self.optimizers[0].step()
        self.error = 0.9 * self.error + 0.1 * max(-1.0, min(1.0, float(rate.detach()) - 1.0))
        self.log_beta += 0.03 * self.error
        self.optimizers[1].zero_grad()
        self.discriminator.requires_grad_(False)
        encoder, head = self.discriminator
        _, mean, _ = draw(encoder(self.generator(torch.randn(len(x), 64))), bounded_sigma)
        F.softplus(-head(mean)).mean().backward()
        self.discriminator.requires_grad_(True)
        self.optimizers[1].step()
        self.average.update_parameters(self.generator)

    def discriminate(self, real: Tensor, generated: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss, the rate and the logits of the real examples."""
        encoder, head = self.discriminator
        (z, _, rate), (fake_z, _, fake_rate) = (draw(encoder(x), bounded_sigma) for x in (real, generated))
        logit, mean_rate = head(z), 0.5 * (rate.mean() + fake_rate.mean())
        loss = F.softplus(-logit).mean() + F.softplus(head(fake_z)).mean() + math.exp(self.log_beta) * mean_rate
        return loss, mean_rate, logit

    def loss(self, x: Tensor, labels: Tensor) -> float:
        self.average.eval()
        loss, _, _ = self.discriminate(x, self.average(torch.randn(len(x), 64)))
        return float(loss)


@dataclass
class Task:
    """What a recipe trains, in which batches."""

    loop: Callable[[bool], Loop | AdversarialLoop]
    batch_size: int
    form: Callable[[Tensor], Tensor]


def scaled(pixels: Tensor) -> Tensor:
    return pixels.float().div_(127.5).sub_(1)


def grey(pixels: Tensor) -> Tensor:
    return pixels.float().div_(255)


def binary(pixels: Tensor) -> Tensor:
    grey_levels = grey(pixels)
    return torch.rand_like(grey_levels).lt_(grey_levels)


def vib_mnist(fused: bool) -> Loop:
    encoder, decoder = MLP(784, [1024, 1024], 512, "xavier"), MLP(256, [], 10, "xavier")
    model = Classifier(encoder, decoder, 1e-3, softplus_sigma)
    return Loop(model, Adam(model.parameters(), lr=1e-4, betas=(0.5, 0.999), fused=fused), decay=0.999)


def vae_mnist(fused: bool) -> Loop:
    model = Autoencoder(MLP(784, [512, 512], 80), MLPDecoder(40, [512, 512], (1, 28, 28)))
    return Loop(model, Adam(model.parameters(), lr=1e-3, fused=fused), decay=0.995)


def vib_imdb(fused: bool) -> Loop:
    encoder = TextEncoder(5000, 50, 250, [3], out_features=256, initialization="xavier")
    model = Classifier(encoder, nn.Linear(128, 2), 0.1)
    return Loop(model, Adam(model.parameters(), lr=1e-3, fused=fused))


def vib_fashion_mnist(fused: bool) -> Loop:
    model = Classifier(ConvEncoder((1, 28, 28), 128, width=16), nn.Linear(64, 10), 1e-3)
    return Loop(model, Adam(model.parameters(), lr=1e-3, fused=fused))


TASKS = {
    "vib_mnist": Task(vib_mnist, 100, scaled),
    "vae_mnist": Task(vae_mnist, 128, binary),
    "vib_imdb": Task(vib_imdb, 32, Tensor.long),
    "vdbgan_mnist": Task(AdversarialLoop, 64, scaled),
    "vib_fashion_mnist": Task(vib_fashion_mnist, 128, grey),
}


def training_batches(task: Task, data: dict[str, Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of an epoch, or its first ones, in random order.

    Args:
        task: what to train.
        data: ``inputs`` and ``labels`` to train on, ``val_inputs`` and ``val_labels`` to validate on (or nothing), and
            ``batches``, how many to train on.
    """
    return islice(batches(task, data, "", torch.randperm(len(data["labels"]))), data["batches"])


def batches(task: Task, data: dict[str, Any], kind: str, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for rows in order.split(task.batch_size) if len(order) else ():  # split gives one batch of nothing
        yield task.form(data[f"{kind}inputs"][rows]), data[f"{kind}labels"][rows]


def end_epoch(loop: Loop | AdversarialLoop, task: Task, data: dict[str, Any], file: Path) -> None:
    """Validate, and write the weights to a file."""
    order = torch.arange(len(data["val_labels"]))
    with torch.no_grad():
        losses = [loop.loss(x, labels) for x, labels in batches(task, data, "val_", order)]
    states = [cast(Any, kept).state_dict() for kept in loop.kept]
    torch.save({"states": states, "loss": sum(losses)}, file)


def epochs(loop: Loop | AdversarialLoop, task: Task, data: dict[str, Any], file: Path) -> Callable[[], Seconds]:
    """Return a function that trains for an epoch, ends it, and returns the seconds of both."""

    def epoch() -> Seconds:
        start = clock()
        for x, labels in training_batches(task, data):
            loop.step(x, labels)
        trained = clock()
        end_epoch(loop, task, data, file)
        return trained - start, clock() - trained

    return epoch


def from_options(given: Namespace) -> tuple[Loop | AdversarialLoop, Task, dict[str, Any], Path]:
    """Return the arguments of ``epochs`` that the options of the process ask for, see ``side.options``."""
    torch.manual_seed(0)
    task, data = TASKS[given.recipe], torch.load(given.folder / "data.pt")
    return task.loop(given.fused), task, data, given.folder / f"{given.recipe}-{os.getpid()}.pt"


if __name__ == "__main__":
    serve(epochs(*from_options(options())))
