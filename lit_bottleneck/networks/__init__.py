"""Encoders, decoders and generators: small, readable, replaceable by any module of the user's."""

from lit_bottleneck.networks.conv import ConvDecoder, ConvEncoder
from lit_bottleneck.networks.mlp import MLP, MLPDecoder

__all__ = ["MLP", "ConvDecoder", "ConvEncoder", "MLPDecoder"]
