"""A segmentation net whose code is a map: ``(B, 2K, H, W)``."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_bottleneck import Code, GaussianBottleneck
from lit_bottleneck.beta import BetaController
from tests.projects.checks import assert_logged, assert_resumes, fit, quick_dual, rate_by_hand, traced
from tests.quiet import trainer


class Segmenter(GaussianBottleneck, LightningModule):
    """Label each pixel by a code that is a map of half the resolution."""

    def __init__(self, beta: float | BetaController, latent_dim: int = 3) -> None:
        super().__init__(beta=beta, latent_dim=latent_dim)
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.SiLU(), nn.Conv2d(8, 2 * latent_dim, 1)
        )
        self.decoder = nn.Sequential(nn.ConvTranspose2d(latent_dim, 8, 2, stride=2), nn.SiLU(), nn.Conv2d(8, 2, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.bottleneck(self.encoder(images), sample=False).z)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        code = self.bottleneck(self.encoder(images))
        return F.cross_entropy(self.decoder(code.z), labels) + self.rate_penalty(code.rate)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        images, labels = batch
        code = self.bottleneck(self.encoder(images))
        self.log_dict({"val/rate": code.rate.mean(), "val/loss": F.cross_entropy(self.decoder(code.z), labels)})
        self.rate_penalty(1000 * code.rate)  # counts for nothing

    def predict_step(self, batch: list[Tensor], batch_idx: int) -> Code:
        return self.bottleneck(self.encoder(batch[0]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def data(batch_size: int = 8) -> DataLoader[tuple[Tensor, ...]]:
    """Return noisy images of bright squares, and where the squares are."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(40, 8, 8, dtype=torch.long)
    for label, (row, column) in zip(labels, torch.randint(5, (40, 2), generator=generator).tolist(), strict=True):
        label[row : row + 4, column : column + 4] = 1
    images = labels[:, None] + 0.3 * torch.randn(40, 1, 8, 8, generator=generator)
    return DataLoader(TensorDataset(images, labels), batch_size=batch_size)


def test_beta_follows_the_rate_of_the_map_and_is_logged(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Segmenter(quick_dual())
    with traced(module.encoder, module) as trace:
        run, logged = fit(module, data(), tmp_path, max_epochs=4)
    trace.assert_follows(quick_dual(), updates=20)
    assert run.global_step == 20
    assert_logged(logged, trace, beta=0.01)


def test_the_penalty_is_the_price_of_all_positions() -> None:
    module = Segmenter(0.5)
    images = data().dataset[:8][0]
    code = module.bottleneck(module.encoder(images))
    expected = rate_by_hand(module.encoder(images))
    assert (code.z.shape, code.kl.shape) == ((8, 3, 4, 4), (8, 3, 4, 4))
    torch.testing.assert_close(code.rate.double(), expected, rtol=1e-5, atol=1e-6)
    assert module.rate_penalty(code.rate).item() == pytest.approx(0.5 * expected.mean().item(), rel=1e-5)


def test_validation_counts_for_nothing() -> None:
    torch.manual_seed(0)
    module = Segmenter(quick_dual())
    with traced(module.encoder, module) as trace:
        run = trainer(max_epochs=2, val_check_interval=2)
        run.fit(module, data(), data(batch_size=20))
    trace.assert_follows(quick_dual(), updates=10)
    expected = torch.cat([rate_by_hand(module.encoder(images)) for images, _ in data()]).mean().item()
    run.validate(module, data(batch_size=20), verbose=False)
    assert run.callback_metrics["val/rate"].item() == pytest.approx(expected, rel=1e-5)


def test_codes_are_predictions() -> None:
    module = Segmenter(0.1)
    first, *_ = codes = trainer().predict(module, data())
    assert isinstance(first, Code)
    assert torch.equal(first[2:4].z, first.mean[2:4])
    expected = torch.cat([rate_by_hand(module.encoder(images)) for images, _ in data()])
    torch.testing.assert_close(torch.cat([code.rate for code in codes]).double(), expected, rtol=1e-5, atol=1e-6)


def test_resuming_continues_to_the_last_bit(tmp_path: Path) -> None:
    assert_resumes(lambda: Segmenter(quick_dual()), data(), tmp_path, "beta_controller._extra_state")
