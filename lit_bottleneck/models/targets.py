"""Targets of a regression: their form, their units, and the R2 of what is predicted of them."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.functional import at_least_float32
from lit_bottleneck.models.batch import described, tensor_from
from lit_bottleneck.training.precision import Move, without_casts


def targets_from(targets: Any, target_dims: tuple[int, ...], rows: int) -> Tensor:
    """Return targets in one form; their values are left to the likelihood.

    Args:
        targets: a tensor or NumPy array of real numbers ``(B, *target_dims)``, or ``(B,)`` for one target.
        target_dims: shape of an example's targets.
        rows: number of inputs B.

    Returns:
        ``(B, *target_dims)``, at least float32.

    Raises:
        ConfigurationError: for another shape, complex numbers, and another number of targets than of inputs.

    >>> targets_from(torch.tensor([1, 2]), (1,), rows=2)
    tensor([[1.],
            [2.]])
    """
    targets = tensor_from("targets", targets)
    single = target_dims == (1,)
    if single and targets.dim() == 1:
        targets = targets[:, None]
    if targets.dim() < 2 or tuple(targets.shape[1:]) != target_dims or targets.is_complex():
        form = f"target_dims={target_dims} needs targets ({', '.join(('B', *map(str, target_dims)))})"
        fitting = tuple(targets.shape[1:]) or (1,)
        way_out = f": these have target_dims={fitting}" if targets.dim() and fitting != target_dims else ""
        raise ConfigurationError(f"{form}{' or (B,)' * single} of real numbers; got {described(targets)}{way_out}")
    if len(targets) != rows:
        raise ConfigurationError(f"a batch of {rows} inputs needs as many targets; got {len(targets)}")
    return at_least_float32(targets if targets.is_floating_point() else targets.float())


class TargetUnits(nn.Module):
    """The units of targets that a datamodule has standardised: ``target * scale + mean``. They are kept in float32.

    Args:
        target_dims: shape of an example's targets.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, target_dims: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(*target_dims, dtype=torch.float32))
        self.register_buffer("scale", torch.ones(*target_dims, dtype=torch.float32))

    @property
    def are_given(self) -> bool:
        """Whether they are others than those of the batches."""
        return bool((self.mean != 0).any() or (self.scale != 1).any())

    def take(self, mean: Any, scale: Any) -> None:
        """Take the units of a datamodule, numbers in the shape of ``target_dims`` (or flat).

        Raises:
            ConfigurationError: for another number of them.
        """
        for name, value in (("mean", mean), ("scale", scale)):
            given, own = torch.as_tensor(value, dtype=torch.float32), getattr(self, name)
            if given.numel() != own.numel():
                wanted = f"target_dims={tuple(own.shape)} needs a datamodule with as many numbers in target_{name}"
                raise ConfigurationError(f"{wanted}; got {given.numel()}")
            own.copy_(given.reshape(own.shape))

    def restore(self, targets: Tensor) -> Tensor:
        """Return targets ``(..., *target_dims)`` in their own units."""
        return targets * self.scale.to(targets.dtype) + self.mean.to(targets.dtype)

    def _apply(self, fn: Move, recurse: bool = True) -> Self:
        return super()._apply(without_casts(fn), recurse)  # type: ignore[no-any-return, no-untyped-call]


class R2(Metric):
    """Coefficient of determination, the mean over the targets that vary in the rows; NaN if none does, as in one row.

    torchmetrics' R2 subtracts the square of a sum, which cancels for targets far from 0, and takes squared errors below
    1e-4 for none. Here the state is count, means, and sums of squares about the means, which merge by Chan's formula.

    Args:
        num_targets: numbers D that are predicted of each row.

    >>> metric = R2(num_targets=1)
    >>> metric.update(torch.tensor([[2.5], [0.0], [2.0], [8.0]]), torch.tensor([[3.0], [-0.5], [2.0], [7.0]]))
    >>> metric.compute()
    tensor(0.9486, dtype=torch.float64)
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    moments: Tensor

    def __init__(self, num_targets: int) -> None:
        super().__init__()
        self.add_state("moments", torch.zeros(4, num_targets, dtype=torch.float64), dist_reduce_fx=merge_moments)

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Add rows ``(B, D)``."""
        if not len(targets):
            return
        predictions, targets = predictions.double(), targets.double()
        count, mean = torch.full_like(targets[0], len(targets)), targets.mean(0)
        errors = (targets - predictions).square().sum(0)
        batch = torch.stack([count, mean, (targets - mean).square().sum(0), errors])
        self.moments = merge_moments(torch.stack([self.moments, batch]))

    def compute(self) -> Tensor:
        """Return the mean over the targets of ``1 - errors / squares``."""
        count, mean, squares, errors = self.moments
        varies = squares > count * (1e-12 * mean).square()  # by more than the mean is rounded
        return torch.where(varies, 1 - errors / squares.where(varies, 1), torch.nan).nanmean()


def merge_moments(parts: Tensor) -> Tensor:
    """Merge count, mean, squares about the mean, and squared errors of several parts: ``(P, 4, D)`` to ``(4, D)``."""
    counts, means, squares, errors = parts.unbind(1)
    count = counts.sum(0)
    mean = (counts * means).sum(0) / count.clamp(min=1)
    squares = (squares + counts * (means - mean).square()).sum(0)
    return torch.stack([count, mean, squares, errors.sum(0)])
