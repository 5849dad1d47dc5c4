"""Steps of training a text classifier, against the plain PyTorch form of its encoder.

The essay's network (vocabulary 5000, embedding 50, 250 filters of 3, a code of 128) on synthetic reviews: tokens as
frequent as Zipf's law has them, a median of 230 tokens, the last 400 kept, padded in front. Both train from the same
weights with Adam on the same batches and noise, and must have the same losses.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_bottleneck.code import gaussian_code
from lit_bottleneck.networks import TextEncoder
from tests.benchmarks.timing import Row, compare, row

VOCABULARY, LENGTH, BATCH, LATENT_DIM, STEPS = 5000, 400, 32, 128, 20

Batch = tuple[Tensor, Tensor, Tensor]  # tokens, labels, noise


class PlainTextEncoder(nn.Module):
    """``TextEncoder`` with one kernel size in plain PyTorch, with the same parameters."""

    def __init__(self, out_features: int = 2 * LATENT_DIM) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 50)
        self.convolutions = nn.ModuleList([nn.Conv1d(50, 250, 3)])
        self.moments = nn.Linear(250, out_features)

    def forward(self, tokens: Tensor) -> Tensor:
        moments: Tensor = self.moments(
            self.convolutions[0](self.embedding(tokens).transpose(1, 2)).relu().amax(2),
        )
        return moments


def reviews(count: int, seed: int = 0) -> Tensor:
    """Draw tokens ``(count, LENGTH)``, of which 0 is padding."""
    generator = torch.Generator().manual_seed(seed)
    frequency = 1 / (torch.arange(1, VOCABULARY, dtype=torch.float64) + 2.7)
    drawn = torch.multinomial(frequency, count * LENGTH, replacement=True, generator=generator) + 1
    lengths = 230 * (0.6 * torch.randn(count, 1, generator=generator)).exp()
    return drawn.view(count, LENGTH).masked_fill(torch.arange(LENGTH) < LENGTH - lengths, 0)


def batches(count: int) -> list[Batch]:
    """Draw reviews, labels (whether a certain token is there, as it is in about half of them) and noise."""
    tokens = reviews(count * BATCH).view(count, BATCH, LENGTH)
    noise = torch.randn(count, BATCH, LATENT_DIM, generator=torch.Generator().manual_seed(0))
    return list(zip(tokens, (tokens == 40).any(2).long(), noise, strict=True))


def training(encoder: nn.Module, drawn: list[Batch]) -> Callable[[], list[float]]:
    """Return a function that trains on all batches once, and returns the losses."""
    torch.manual_seed(0)
    decoder = nn.Linear(LATENT_DIM, 2)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)

    def train() -> list[float]:
        losses = []
        for tokens, labels, noise in drawn:
            code = gaussian_code(encoder(tokens), sample=True, noise=noise)
            loss = F.cross_entropy(decoder(code.z), labels) + 0.1 * code.rate.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return train


def rows(root: Path) -> Iterator[Row]:
    """Train both in turn."""
    ours, plain, drawn = TextEncoder(VOCABULARY), PlainTextEncoder(), batches(STEPS)
    plain.load_state_dict(ours.state_dict())
    mine, other = training(ours, drawn), training(plain, drawn)
    torch.testing.assert_close(mine(), other(), rtol=1e-5, atol=0)
    name = f"step of a text classifier, {BATCH} x {LENGTH}, against torch's convolutions"
    yield row(name, compare(mine, other, rounds=8), bar=0.4, of=STEPS)
