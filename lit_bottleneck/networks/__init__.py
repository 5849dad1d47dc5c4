"""Encoders, decoders and generators: small, readable, replaceable by any module of the user's."""

from lit_bottleneck.networks.conv import ConvEncoder
from lit_bottleneck.networks.mlp import MLP

__all__ = ["MLP", "ConvEncoder"]
