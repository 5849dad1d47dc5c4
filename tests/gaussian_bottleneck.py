"""The Gaussian information bottleneck, in closed form (JMLR 6:165-188): data, curve and optimum.

``x`` and ``y`` are jointly Gaussian. In their canonical axes, component i of ``x`` correlates with component i of ``y``
by ``CORRELATIONS[i]`` and with nothing else. The best code at ``beta = 1 / b`` is linear with Gaussian noise.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

CORRELATIONS = (0.9, 0.6)
INPUTS, OUTPUTS = 4, len(CORRELATIONS)  # two directions of x are independent of y
ENTROPY_OF_Y = 0.5 * OUTPUTS * math.log(2 * math.pi * math.e)  # nats: its components are independent, of variance 1


@dataclass(frozen=True)
class Information:
    """Information about the inputs, I(x;z), and about the target, I(z;y), in nats."""

    of_x: float
    of_y: float


@dataclass(frozen=True)
class Channel:
    """``z = inward x + shift + noise`` and ``q(y|z) = N(outward z + offset, diag(y_variance))``, in float64.

    Attributes:
        inward: ``(K, INPUTS)``.
        shift: ``(K,)``.
        noise: ``(K,)``, the variances of the independent noise.
        outward: ``(OUTPUTS, K)``.
        offset: ``(OUTPUTS,)``.
        y_variance: ``(OUTPUTS,)``.
    """

    inward: Tensor
    shift: Tensor
    noise: Tensor
    outward: Tensor
    offset: Tensor
    y_variance: Tensor

    @property
    def signal(self) -> Tensor:
        """Covariance of the means, ``(K, K)``: that of x is the identity."""
        return self.inward @ self.inward.T

    @property
    def covariance(self) -> Tensor:
        """Covariance of the code, ``(K, K)``."""
        return self.signal + self.noise.diag()

    @property
    def cross(self) -> Tensor:
        """Covariance of y and the code, ``(OUTPUTS, K)``."""
        return cross_covariance() @ self.inward.T

    @property
    def information(self) -> Information:
        """True information, whatever prior and decoder are."""
        of_x = 0.5 * (torch.logdet(self.covariance) - self.noise.log().sum())
        left_over = torch.eye(OUTPUTS, dtype=torch.float64) - self.cross @ torch.linalg.solve(
            self.covariance, self.cross.T
        )
        return Information(of_x.item(), -0.5 * torch.logdet(left_over).item())

    @property
    def rate(self) -> float:
        """KL from the prior N(0, I), an upper bound of I(x;z)."""
        second_moment = self.signal.diagonal() + self.shift.square()
        return 0.5 * (second_moment + self.noise - 1 - self.noise.log()).sum().item()

    @property
    def distortion(self) -> float:
        """Mean of ``-log q(y|z)``; the entropy of y minus this is a lower bound of I(z;y)."""
        error = 1 - 2 * (self.outward * self.cross).sum(1) + ((self.outward @ self.covariance) * self.outward).sum(1)
        error = error + (self.outward @ self.shift + self.offset).square()
        return 0.5 * ((2 * math.pi * self.y_variance).log() + error / self.y_variance).sum().item()


def curve(b: float, correlations: tuple[float, ...] = CORRELATIONS) -> Information:
    """Return the information of the best code at ``beta = 1 / b``: a component is coded where ``b rho^2 > 1``."""
    coded = [rho**2 for rho in correlations if b * rho**2 > 1]
    of_x = sum(0.5 * math.log((b - 1) * r / (1 - r)) for r in coded)
    return Information(of_x, of_x - sum(0.5 * math.log(b * r) for r in coded))


def rotation() -> Tensor:
    """Return the canonical axes of x, ``(INPUTS, INPUTS)``: column i is axis i."""
    noise = torch.randn(INPUTS, INPUTS, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return torch.linalg.qr(noise)[0]


def cross_covariance() -> Tensor:
    """Return the covariance of y and x, ``(OUTPUTS, INPUTS)``."""
    return torch.tensor(CORRELATIONS, dtype=torch.float64)[:, None] * rotation()[:, :OUTPUTS].T


def draw(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw rows of x and y in float32 whose means and second moments are exactly those of the Gaussian."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, INPUTS + OUTPUTS, generator=generator, dtype=torch.float64)
    noise = noise - noise.mean(0)
    noise = torch.linalg.solve_triangular(torch.linalg.cholesky(noise.T @ noise / count), noise.T, upper=False).T
    y, canonical = noise[:, :OUTPUTS], noise[:, OUTPUTS:].clone()
    rho = torch.tensor(CORRELATIONS, dtype=torch.float64)
    canonical[:, :OUTPUTS] = rho * y + (1 - rho**2).sqrt() * canonical[:, :OUTPUTS]
    return (canonical @ rotation().T).float(), y.float()


def optimum(b: float, latent_dim: int = INPUTS) -> Channel:
    """Return the best channel at ``beta = 1 / b``, by the paper's theorem 3.1 and the true ``p(y|z)``.

    The projection has noise of variance 1; here each dimension of the code is scaled to the prior's variance 1.
    """
    rho = torch.tensor(CORRELATIONS, dtype=torch.float64)
    gain = ((b * rho**2 - 1).clamp(min=0) / (1 - rho**2)).sqrt()
    inward = torch.zeros(latent_dim, INPUTS, dtype=torch.float64)
    inward[:OUTPUTS] = (gain / (1 + gain**2).sqrt())[:, None] * rotation()[:, :OUTPUTS].T
    outward = cross_covariance() @ inward.T
    return Channel(
        inward=inward,
        shift=torch.zeros(latent_dim, dtype=torch.float64),
        noise=1 - inward.square().sum(1),
        outward=outward,
        offset=torch.zeros(OUTPUTS, dtype=torch.float64),
        y_variance=1 - outward.square().sum(1),
    )
