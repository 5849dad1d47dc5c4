"""Encoders, decoders and generators: small, readable, and replaceable by any ``nn.Module``."""

from lit_bottleneck.networks.backbone import Backbone
from lit_bottleneck.networks.conv import ConvDecoder, ConvEncoder
from lit_bottleneck.networks.dcgan import DCGANEncoder, DCGANGenerator
from lit_bottleneck.networks.mlp import MLP, MLPDecoder
from lit_bottleneck.networks.resnet import LogitHead, ResNetEncoder, ResNetGenerator
from lit_bottleneck.networks.spectral import add_spectral_norm
from lit_bottleneck.networks.text import TextEncoder

__all__ = [
    "MLP",
    "Backbone",
    "ConvDecoder",
    "ConvEncoder",
    "DCGANEncoder",
    "DCGANGenerator",
    "LogitHead",
    "MLPDecoder",
    "ResNetEncoder",
    "ResNetGenerator",
    "TextEncoder",
    "add_spectral_norm",
]
