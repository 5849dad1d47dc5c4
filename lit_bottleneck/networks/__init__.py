"""Encoders, decoders and generators: small, readable, and replaceable by any ``nn.Module``."""

from lit_bottleneck.networks.backbone import Backbone as Backbone
from lit_bottleneck.networks.conv import ConvDecoder as ConvDecoder
from lit_bottleneck.networks.conv import ConvEncoder as ConvEncoder
from lit_bottleneck.networks.dcgan import DCGANEncoder as DCGANEncoder
from lit_bottleneck.networks.dcgan import DCGANGenerator as DCGANGenerator
from lit_bottleneck.networks.layers import add_spectral_norm as add_spectral_norm
from lit_bottleneck.networks.mlp import MLP as MLP
from lit_bottleneck.networks.mlp import MLPDecoder as MLPDecoder
from lit_bottleneck.networks.resnet import LogitHead as LogitHead
from lit_bottleneck.networks.resnet import ResNetEncoder as ResNetEncoder
from lit_bottleneck.networks.resnet import ResNetGenerator as ResNetGenerator
from lit_bottleneck.networks.text import TextEncoder as TextEncoder
