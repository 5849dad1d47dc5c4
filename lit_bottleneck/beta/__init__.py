"""What a nat costs, and how the price moves.

A `BetaController` turns the rates of a batch into the penalty that is added to the loss (`forward`), and moves its
price once per optimizer step (`update`), from the mean rate over all examples of that step. The state that moves is
Python floats, kept in the checkpoint as extra state: no precision setting rounds it, nothing averages it.
"""

from lit_bottleneck.beta.base import BetaController, ConstantBeta, controller_from
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
]

for _kind in (GECO, BetaController, CapacityBeta, ConstantBeta, DualBeta, ScheduledBeta):
    _kind.__module__ = __name__  # the path under which recipes and checkpoints name it
