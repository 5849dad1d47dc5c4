"""Skip optimizer steps that are not finite."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch.optim import Optimizer

from lit_bottleneck.bottleneck import GaussianBottleneck
from lit_bottleneck.checks import whole_number


class SkipNonFinite(Callback):
    """Skip optimizer steps whose loss, rate or gradient is NaN or infinite, and count them.

    Without this callback, a loss that is not finite stops the training of this library's models. With it, such a step
    changes neither weights nor the optimizer's state nor beta, on any process; each skip is a warning, and their number
    is logged as ``train/skipped_steps``. (What the forward pass itself changes, such as batch-norm statistics, stays
    changed.)

    Args:
        most_in_a_row: number of consecutive steps of an optimizer that may be skipped. Its weights do not move
            meanwhile: only other data or noise can help.

    Raises:
        ConfigurationError: if ``most_in_a_row`` is less than 1.
        FloatingPointError: in training, when more consecutive steps are not finite.
    """

    def __init__(self, most_in_a_row: int = 100) -> None:
        self.most_in_a_row = whole_number("most_in_a_row", most_in_a_row, at_least=1)
        self.skipped = 0
        self._in_a_row: dict[int, int] = {}  # by the optimizer's position

    @property
    def in_a_row(self) -> int:
        """Number of steps skipped in a row, by the optimizer with the most."""
        return max(self._in_a_row.values(), default=0)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let a loss that is not finite pass to the gradient, instead of stopping the training."""
        if hasattr(pl_module, "stops_at_non_finite_loss"):
            pl_module.stops_at_non_finite_loss = False  # type: ignore[assignment]

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Drop gradients that are not finite, so that the step does nothing."""
        place = next((place for place, each in enumerate(trainer.optimizers) if each is optimizer), 0)
        weights = [weight for group in optimizer.param_groups for weight in group["params"] if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in weights])
        if not trainer.strategy.reduce_boolean_decision(not norm.isfinite().item(), all=False):
            self._in_a_row[place] = 0
            return
        gradients = [(name, weight.grad) for name, weight in pl_module.named_parameters() if weight.grad is not None]
        networks = {name.split(".")[0] for name, gradient in gradients if not gradient.isfinite().all()}
        broken = ", ".join(sorted(networks)) or "the network on another process"
        for weight in weights:
            weight.grad = None
        for module in pl_module.modules():
            if isinstance(module, GaussianBottleneck):
                module.discard_step()
        self.skipped += 1
        self._in_a_row[place] = in_a_row = self._in_a_row.get(place, 0) + 1
        step, complaint = trainer.global_step, f"the gradient of {broken} is not finite"
        if in_a_row > self.most_in_a_row:
            times = f"for the {in_a_row}th time in a row (more than most_in_a_row={self.most_in_a_row})"
            raise FloatingPointError(f"step {step}: {complaint}, {times}. Look at the data, or lower the learning rate")
        rank_zero_warn(f"step {step} is left out: {complaint}")
        pl_module.log("train/skipped_steps", float(self.skipped))

    def state_dict(self) -> dict[str, Any]:
        """Return the numbers of skipped steps."""
        return {"skipped": self.skipped, "in_a_row": dict(self._in_a_row)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the numbers of skipped steps."""
        self.skipped, self._in_a_row = state_dict["skipped"], dict(state_dict["in_a_row"])
