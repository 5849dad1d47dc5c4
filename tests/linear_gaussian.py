"""The linear Gaussian VAE (probabilistic PCA): data, networks, and analytic expectations."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lit_bottleneck import VAE

EIGENVALUES = (4.0, 2.0, 1.0, 0.5, 0.5)


class LinearEncoder(nn.Module):
    """An encoder with a linear mean, and a scale that is the same for all inputs."""

    def __init__(self, in_features: int, latent_dim: int) -> None:
        super().__init__()
        self.out_features = 2 * latent_dim
        self.mean = nn.Linear(in_features, latent_dim)
        self.raw = nn.Parameter(torch.zeros(latent_dim))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.mean(x), self.raw.expand(len(x), -1)], dim=1)


def covariance(dtype: torch.dtype = torch.float64) -> Tensor:
    """Return a covariance with ``EIGENVALUES`` in rotated axes."""
    rotation, _ = torch.linalg.qr(
        torch.randn(5, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64),
    )
    return (rotation * torch.tensor(EIGENVALUES, dtype=torch.float64) @ rotation.T).to(dtype)


def draw(count: int, seed: int = 0) -> Tensor:
    """Draw rows ``(count, 5)`` of the Gaussian."""
    noise = torch.randn(count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (noise @ torch.linalg.cholesky(covariance()).T).float()


@dataclass
class Expectations:
    """Expectations in nats per example, over the Gaussian and the noise of the code."""

    distortion: float
    rate: float

    @property
    def elbo(self) -> float:
        return -(self.distortion + self.rate)


@torch.no_grad()
def expectations(vae: VAE, sigma: float) -> Expectations:
    """Return the expectations of a VAE of ``LinearEncoder`` and a linear decoder."""
    encoder, decoder = vae.encoder.double(), vae.decoder.double()
    inward, shift = encoder.mean.weight, encoder.mean.bias
    outward, offset = decoder.weight, decoder.bias
    log_var = vae.encode(torch.zeros(1, 5, dtype=torch.float64), sample=False).log_var[0]
    variance, data = log_var.exp(), covariance()
    left_over = torch.eye(5, dtype=torch.float64) - outward @ inward
    error = (left_over @ data @ left_over.T).trace() + (offset + outward @ shift).square().sum()
    error = error + (outward.square() @ variance).sum()
    distortion = 2.5 * math.log(2 * math.pi * sigma**2) + error / (2 * sigma**2)
    second_moment = (inward @ data @ inward.T).diagonal() + shift.square()
    rate = 0.5 * (second_moment + variance - 1 - log_var).sum()
    vae.float()
    return Expectations(distortion.item(), rate.item())
