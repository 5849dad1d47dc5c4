"""Compile the networks of a model before training."""

import inspect
from collections.abc import Sequence

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.training.compilation import compile_in_place, is_compiled

_NETWORKS = ("encoder", "decoder", "generator", "head")


class Compile(Callback):
    """Compile networks of a model in place (``torch.compile``) before training. Results are equal up to rounding.

    Names in checkpoints do not change. The bottleneck, the loss and the metrics are not compiled, so that the code's
    noise does not change; networks that draw random numbers themselves (dropout) draw others.

    Args:
        networks: names of the model's networks. Default: those of ``encoder``, ``decoder``, ``generator`` and ``head``
            that it has.
        mode: of ``torch.compile``: ``"default"``, ``"reduce-overhead"``, ``"max-autotune"``, ...
        backend: of ``torch.compile``; ``"inductor"`` needs a C++ compiler on a CPU.

    Raises:
        ConfigurationError: in ``setup``, for a network that the model does not have, or that the model's
            ``check_compilable(networks)`` refuses (the encoder or head of a GAN with a gradient penalty or a spectral
            norm).
    """

    def __init__(self, networks: Sequence[str] | None = None, mode: str | None = None, backend: str = "inductor"):
        self.networks = networks
        self.mode = mode
        self.backend = backend

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse networks that cannot be compiled."""
        names = self._names(pl_module)
        if stage == "fit" and hasattr(pl_module, "check_compilable"):
            pl_module.check_compilable(names)  # type: ignore[operator]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compile the networks that are not compiled yet."""  # in setup, dry runs would compile for another size
        options = inspect.signature(torch.compile).parameters
        # Otherwise all networks share the limit of eight variants, beyond which one falls back to eager mode.
        own_limit = {"isolate_recompiles": True} if "isolate_recompiles" in options else {}
        for name in self._names(pl_module):
            network = getattr(pl_module, name)
            if not is_compiled(network):
                compile_in_place(network, mode=self.mode, backend=self.backend, **own_limit)

    def _names(self, module: LightningModule) -> list[str]:
        known = [name for name, part in module.named_children() if next(part.parameters(), None) is not None]
        names = [name for name in _NETWORKS if name in known] if self.networks is None else list(self.networks)
        if not names or not set(names) <= set(known):
            has = f"{type(module).__name__} has {', '.join(known) or 'none'}"
            raise ConfigurationError(f"networks={self.networks} of Compile must name networks of the model; {has}")
        return names
