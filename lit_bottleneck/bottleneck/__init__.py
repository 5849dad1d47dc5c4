"""The bottleneck: ``GaussianBottleneck``, the mixin, and ``BottleneckLayer``, the drop-in layer."""

from lit_bottleneck.bottleneck.layer import BottleneckLayer
from lit_bottleneck.bottleneck.mixin import GaussianBottleneck

__all__ = ["BottleneckLayer", "GaussianBottleneck"]
