"""The bottleneck operation, forward and backward, against torch.distributions without argument validation."""

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from lit_bottleneck import GaussianBottleneck
from lit_bottleneck.functional import bounded_log_var
from tests.benchmarks.timing import compare

BATCH, LATENT_DIM, REPEAT = 100, 256, 200


class Bottleneck(GaussianBottleneck, nn.Module):
    """A module with only the mixin."""


def run(rounds: int = 15) -> tuple[str, float, float, float]:
    """Time the code, its sample and its rate for a batch."""
    moments = torch.randn(BATCH, 2 * LATENT_DIM, requires_grad=True)
    module = Bottleneck(beta=1e-3)

    def ours() -> None:
        for _ in range(REPEAT):
            code = module.bottleneck(moments)
            backward(code.z, code.rate)

    def distributions() -> None:
        for _ in range(REPEAT):
            mean, raw = moments.chunk(2, dim=1)
            posterior = Normal(mean, (0.5 * bounded_log_var(raw)).exp(), validate_args=False)
            prior = Normal(torch.zeros_like(mean), torch.ones_like(mean), validate_args=False)
            backward(posterior.rsample(), kl_divergence(posterior, prior).sum(1))

    def backward(z: Tensor, rate: Tensor) -> None:
        torch.autograd.grad(z.sum() + rate.mean(), moments)

    mine, theirs, ratio = compare(ours, distributions, rounds)
    return f"bottleneck operation, {BATCH} x {LATENT_DIM}", mine / REPEAT, theirs / REPEAT, ratio
