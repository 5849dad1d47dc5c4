"""The bottleneck operation, forward and backward.

Against torch.distributions without argument validation, and against a copy of the same bytes: ``clone`` of the moments.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from lit_bottleneck import GaussianBottleneck
from lit_bottleneck.functional import bounded_log_var
from tests.benchmarks.timing import Row, compare, row

SHAPES = ((128, 32), (100, 256), (4096, 256), (64, 256, 4, 4))  # of the code
BURST = 2**21  # numbers of a code in one burst: tens of milliseconds


class Bottleneck(GaussianBottleneck, nn.Module):
    """A module with only the mixin."""


def rows(root: Path) -> Iterator[Row]:
    """Time the code, its sample and its rate for a batch, with the gradient."""
    for shape in SHAPES:
        batch, width, *places = shape
        moments = torch.randn(batch, 2 * width, *places, requires_grad=True)
        repeat = max(3, min(200, BURST // math.prod(shape)))
        ours, distributions, copy = (
            repeated(run, moments, repeat) for run in (of_ours, of_distributions, Tensor.clone)
        )
        name = f"bottleneck operation, {' x '.join(map(str, shape))}"
        yield row(f"{name}, against torch.distributions", compare(ours, distributions, 31), bar=0.6, of=repeat)
        bar = 3.0 if shape == (4096, 256) else None
        yield row(f"{name}, against a copy", compare(ours, copy, 31), bar=bar, of=repeat)


def repeated(run: Callable[[Tensor], object], moments: Tensor, repeat: int) -> Callable[[], None]:
    """Return a function that runs ``repeat`` times on ``moments``."""

    def burst() -> None:
        for _ in range(repeat):
            run(moments)

    return burst


_module = Bottleneck(beta=1e-3)


def of_ours(moments: Tensor) -> None:
    code = _module.bottleneck(moments)
    backward(code.z, code.rate, moments)


def of_distributions(moments: Tensor) -> None:
    mean, raw = moments.chunk(2, dim=1)
    posterior = Normal(mean, (0.5 * bounded_log_var(raw)).exp(), validate_args=False)
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean), validate_args=False)
    backward(posterior.rsample(), kl_divergence(posterior, prior).flatten(1).sum(1), moments)


def backward(z: Tensor, rate: Tensor, moments: Tensor) -> None:
    torch.autograd.grad(z.sum() + rate.mean(), moments)
