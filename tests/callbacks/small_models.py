"""Small models of digits and points that the tests of several callbacks share."""

from typing import Any

import torch
from lightning import LightningModule
from torch import nn

from lit_bottleneck import VAE, VDBGAN, VIBClassifier
from lit_bottleneck.networks import MLP, MLPDecoder


class Trainable(LightningModule):
    """Base of models that need neither a loss in evaluation nor a good optimizer."""

    lr = 0.1

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        pass

    test_step = validation_step

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), self.lr)


def classifier() -> VIBClassifier:
    torch.manual_seed(0)
    return VIBClassifier(MLP(64, [16], 6), latent_dim=3, num_classes=10)


def vae(decoder: nn.Module | None = None, **kwargs: Any) -> VAE:
    torch.manual_seed(0)
    decoder = MLPDecoder(4, [16], (1, 8, 8)) if decoder is None else decoder
    return VAE(MLP(64, [16], 8), decoder, latent_dim=4, likelihood="gaussian", likelihood_samples=0, **kwargs)


def gan(generator: nn.Module | None = None, width: int = 64, **kwargs: Any) -> VDBGAN:
    torch.manual_seed(0)
    generator = MLPDecoder(4, [16], (1, 8, 8)) if generator is None else generator
    return VDBGAN(generator, MLP(width, [16], 6), latent_dim=3, noise_dim=4, beta=0.1, **kwargs)


def point_gan(generator: nn.Module | None = None, **kwargs: Any) -> VDBGAN:
    """A GAN of points in the plane."""
    torch.manual_seed(0)
    return gan(MLPDecoder(4, [16], [2]) if generator is None else generator, width=2, **kwargs)
