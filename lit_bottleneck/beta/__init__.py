"""Controllers of beta, the price of a nat: constant, scheduled, or driven by the rate or the distortion.

A ``BetaController`` turns the rates of a batch into a penalty (``forward``), and updates beta once per optimizer step
(``update``) from the mean rate over all examples of that step. Its state is Python numbers, stored in the checkpoint as
extra state, a float64 tensor, so that no precision setting rounds it and no callback averages it.
"""

from lit_bottleneck.beta.base import BetaController, ConstantBeta, controller_from, controllers_from
from lit_bottleneck.beta.feedback import GECO, DualBeta
from lit_bottleneck.beta.schedules import CapacityBeta, ScheduledBeta

__all__ = [
    "GECO",
    "BetaController",
    "CapacityBeta",
    "ConstantBeta",
    "DualBeta",
    "ScheduledBeta",
    "controller_from",
    "controllers_from",
]

for _kind in (GECO, BetaController, CapacityBeta, ConstantBeta, DualBeta, ScheduledBeta):
    _kind.__module__ = __name__  # the path under which recipes and checkpoints name it
