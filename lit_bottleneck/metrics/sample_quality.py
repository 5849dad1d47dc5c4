"""How far generated examples are from real ones, by the features of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import poly_mmd
from torchmetrics.utilities.data import dim_zero_cat

from lit_bottleneck.checks import whole_number
from lit_bottleneck.functional import at_least_float32
from lit_bottleneck.metrics.base import Float64Metric
from lit_bottleneck.training.precision import without_casts

_AT_ONCE = 2**24  # distances in memory: 128 MiB of them


class FrechetDistance(FrechetInceptionDistance):
    """Squared Fréchet distance between two Gaussians with the moments of the features (FID, arXiv 1706.08500).

    ``|m_r - m_g|^2 + tr(C_r + C_g - 2 (C_r C_g)^(1/2))``, from sums in float64. It is too large by a term that falls
    with the number of samples: compare numbers of the same number of samples only.

    Args:
        num_features: F.
        kwargs: those of `torchmetrics.Metric`.

    Raises:
        ValueError: by ``update`` for features that are not finite ``(B, F)``, by ``compute`` for less than 2 samples of
            either kind.

    >>> distance = FrechetDistance(num_features=1)
    >>> distance.update(torch.tensor([[-1.0], [1.0]]), real=True)
    >>> distance.update(torch.tensor([[2.0], [4.0]]), real=False)
    >>> distance.compute()
    tensor(9.)
    """

    def __init__(self, num_features: int, **kwargs: Any) -> None:
        super().__init__(feature=_Identity(whole_number("num_features", num_features, at_least=1)), **kwargs)
        self.orig_dtype = torch.float32  # that of the result, also where only the states of others come in

    def update(self, features: Tensor, real: bool) -> None:
        """Take in features ``(B, F)`` of real or of generated examples."""
        features, wanted = _checked(features), len(self.real_features_sum)
        if features.shape[1] != wanted:
            raise ValueError(f"num_features={wanted}, but the features are {tuple(features.shape)}")
        super().update(features, real)

    def compute(self) -> Tensor:
        """Return the squared distance, a scalar."""
        counts = int(self.real_features_num_samples), int(self.fake_features_num_samples)
        _check_counts("FrechetDistance", 2, *counts)
        distance: Tensor = super().compute()
        return distance.clamp(min=0)  # below it by rounding only

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> nn.Module:
        return super()._apply(fn if self._dtype_convert else without_casts(fn), exclude_state)


class _TwoSets(Float64Metric):
    """All features of both kinds, kept in memory."""

    real: list[Tensor]
    generated: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("real", [], dist_reduce_fx="cat")
        self.add_state("generated", [], dist_reduce_fx="cat")

    def update(self, features: Tensor, real: bool) -> None:
        """Take in features ``(B, F)`` of real or of generated examples."""
        (self.real if real else self.generated).append(_checked(features))

    def both(self, who: str, needed: int) -> tuple[Tensor, Tensor]:
        """Return all real and all generated features, ``(N, F)`` and ``(M, F)``, if there are enough."""
        real, generated = (dim_zero_cat(kind) if len(kind) else torch.empty(0) for kind in (self.real, self.generated))
        _check_sets(who, needed, real, generated)
        return real, generated


class KernelDistance(_TwoSets):
    """Squared kernel distance between the features, without bias (KID, arXiv 1801.01401).

    The squared MMD with the kernel ``(x . y / F + 1)^3``, in float64, averaged over random subsets. Its mean is 0 for
    equal distributions, so that it is negative at times. All features are kept in memory.

    Args:
        subsets: how many are averaged over.
        subset_size: samples of each kind in a subset; where there are less of either, subsets are as large as that.
        seed: of the subsets. The global random state is neither read nor changed.
        kwargs: those of `torchmetrics.Metric`.

    Raises:
        ValueError: for sizes out of range, by ``update`` for features that are not finite ``(B, F)``, by ``compute``
            for less than 2 samples of either kind or features of two widths.

    >>> distance = KernelDistance(subsets=1)
    >>> distance.update(torch.tensor([[-1.0], [1.0]]), real=True)
    >>> distance.update(torch.tensor([[-1.0], [1.0]]), real=False)
    >>> distance.compute()
    tensor(-8.)
    """

    higher_is_better = False

    def __init__(self, subsets: int = 100, subset_size: int = 1000, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.subsets = whole_number("subsets", subsets, at_least=1)
        self.subset_size = whole_number("subset_size", subset_size, at_least=2)
        self.seed = seed

    def compute(self) -> Tensor:
        """Return the mean over the subsets, a scalar."""
        real, generated = self.both("KernelDistance", 2)
        size = min(self.subset_size, len(real), len(generated))
        generator = torch.Generator().manual_seed(self.seed)
        distances = []
        for _ in range(self.subsets):
            some_real, some_generated = (
                kind[torch.randperm(len(kind), generator=generator)[:size].to(kind.device)].double()
                for kind in (real, generated)
            )
            distances.append(poly_mmd(some_real, some_generated))
        return torch.stack(distances).mean().to(real.dtype)


class PrecisionRecall(_TwoSets):
    """Improved precision and recall (arXiv 1904.06991): see `precision_recall`. All features are kept in memory.

    Args:
        k: which neighbour's distance is the radius.
        kwargs: those of `torchmetrics.Metric`.

    Raises:
        ValueError: for ``k`` below 1, by ``update`` for features that are not finite ``(B, F)``, by ``compute`` for
            less than ``k + 1`` samples of either kind or features of two widths.

    >>> metric = PrecisionRecall(k=1)
    >>> metric.update(torch.tensor([[0.0], [1.0], [8.0], [9.0]]), real=True)
    >>> metric.update(torch.tensor([[0.0], [1.0], [1.5]]), real=False)
    >>> metric.compute()
    {'precision': tensor(1.), 'recall': tensor(0.5000)}
    """

    higher_is_better = True

    def __init__(self, k: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k = whole_number("k", k, at_least=1)

    def compute(self) -> dict[str, Tensor]:
        """Return ``{"precision": ..., "recall": ...}``, two scalars."""
        precision, recall = precision_recall(*self.both(f"PrecisionRecall(k={self.k})", self.k + 1), self.k)
        return {"precision": precision, "recall": recall}


def precision_recall(real: Tensor, generated: Tensor, k: int = 3) -> tuple[Tensor, Tensor]:
    """Improved precision and recall (arXiv 1904.06991), by Euclidean distances in float64.

    Precision is the share of generated samples that lie within reach of any real one: not farther from it than its
    k-th nearest *other* real sample. Recall is the share of real samples within reach of any generated one.

    Both grow as samples get scarcer: compare numbers of the same number of samples only.

    Args:
        real: ``(N, F)``.
        generated: ``(M, F)``.
        k: which neighbour's distance is the radius.

    Returns:
        Precision and recall, two float32 scalars.

    Raises:
        ValueError: for less than ``k + 1`` samples of either kind, or features of two widths.

    >>> precision_recall(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.5], [0.6], [8.0], [9.0]]), k=1)
    (tensor(0.5000), tensor(0.))
    """
    _check_sets(f"k={k}", k + 1, real, generated)
    real, generated = real.double(), generated.double()
    centre = real.mean(0)  # distances do not change, and less cancels
    real, generated = real - centre, generated - centre
    # What rounding does to squared distances. Without it luck decides ties, as between a sample and its copy.
    slack = 1e-12 * max(features.square().sum(1).max().item() for features in (real, generated))
    real_reach, generated_reach = (_reach(features, k) + slack for features in (real, generated))
    hits, found = 0, torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for rows in _blocks(len(generated), len(real)):
        distances = torch.cdist(generated[rows], real).square()
        hits += int((distances <= real_reach).any(1).sum())
        found |= (distances <= generated_reach[rows, None]).any(0)
    return torch.tensor(hits / len(generated), device=real.device), found.float().mean()


def _reach(features: Tensor, k: int) -> Tensor:
    """Squares of the distances to the k-th nearest other sample, ``(N,)``."""
    reach = []
    for rows in _blocks(len(features), len(features)):
        distances = torch.cdist(features[rows], features)
        distances[:, rows].fill_diagonal_(torch.inf)  # itself
        reach.append(distances.kthvalue(k, dim=1).values.square())
    return torch.cat(reach)


def _blocks(rows: int, columns: int) -> list[slice]:
    """The rows, in blocks of which the distances to all columns fit into memory."""
    size = max(1, _AT_ONCE // columns)
    return [slice(start, start + size) for start in range(0, rows, size)]


class _Identity(nn.Identity):
    """Where torchmetrics has its network."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


def _checked(features: Tensor) -> Tensor:
    """Features in at least float32, without a gradient, if they are finite and ``(B, F)``."""
    if features.dim() != 2:
        raise ValueError(f"features must be (B, F); got {tuple(features.shape)}")
    finite = features.isfinite().all(1)
    if not finite.all():
        bad = len(features) - int(finite.sum())
        raise ValueError(f"features must be finite; {bad} of {len(features)} rows have an infinity or NaN")
    return at_least_float32(features.detach())


def _check_sets(who: str, needed: int, real: Tensor, generated: Tensor) -> None:
    _check_counts(who, needed, len(real), len(generated))
    if real.dim() != 2 or generated.dim() != 2 or real.shape[1] != generated.shape[1]:
        raise ValueError(
            "real and generated features must be (N, F) and (M, F), of one width; "
            f"got {tuple(real.shape)} and {tuple(generated.shape)}"
        )


def _check_counts(who: str, needed: int, real: int, generated: int) -> None:
    if min(real, generated) < needed:
        raise ValueError(
            f"{who} needs at least {needed} real and {needed} generated samples; got {real} and {generated}"
        )
