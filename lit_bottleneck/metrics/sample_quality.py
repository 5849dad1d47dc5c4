"""Distances between real and generated examples by all of their features: kernel distance, precision and recall."""

from typing import Any

import torch
from torch import Tensor

from lit_bottleneck.checks import whole_number
from lit_bottleneck.functional import at_least_float32, square_distances
from lit_bottleneck.metrics.base import RowMetric, check_finite, flat

_AT_ONCE = 2**24  # distances in memory: 128 MiB
_SLACK = 1e-9  # relative, of squared distances: above their rounding


class SampleMetric(RowMetric):
    """Base of metrics that keep all features of real and of generated examples in memory, in float64."""

    def describe(self, *layout: int) -> str:
        """Return the width of features in words."""
        return f"features (B, {layout[0]})"

    def update(self, features: Tensor, real: bool) -> None:
        """Add features ``(B, F)`` of real or of generated examples."""
        features = checked_features(features).double()
        rows = torch.cat([features.new_full((len(features), 1), real), features], 1)
        self.add_rows(rows, features.shape[1])

    def both(self) -> tuple[Tensor, Tensor]:
        """Return the features of all real and of all generated examples, ``(N, F)`` and ``(M, F)``."""
        [width] = self.layout or [0]
        rows = flat(self.rows).view(-1, 1 + width)
        real = rows[:, 0] == 1
        return rows[real, 1:], rows[~real, 1:]


class KernelDistance(SampleMetric):
    """Squared kernel distance between the features, without bias (KID, arXiv 1801.01401).

    The squared MMD with the kernel ``(x . y / F + 1)^3``, in float64, averaged over random subsets. Its mean is 0 for
    equal distributions, so that it is negative at times. All features are kept in memory.

    Args:
        subsets: the number of subsets.
        subset_size: samples of each kind in a subset; if there are fewer of either kind, that number.
        seed: of the subsets. The global random state is neither read nor changed.
        kwargs: those of ``torchmetrics.Metric``.

    Raises:
        ConfigurationError: for sizes out of range.
        ValueError: by ``update`` for features that are not finite ``(B, F)`` or of another width than earlier ones; by
            ``compute`` for fewer than 2 samples of either kind.

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
        """Return the mean over the subsets, a float32 scalar."""
        real, generated = self.both()
        check_counts("KernelDistance", 2, len(real), len(generated))
        size = min(self.subset_size, len(real), len(generated))
        generator = torch.Generator().manual_seed(self.seed)
        subsets = ([drawn(features, size, generator) for features in (real, generated)] for _ in range(self.subsets))
        return torch.stack([squared_mmd(*pair) for pair in subsets]).mean().float()


def drawn(features: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw ``count`` of the features ``(N, F)``, without replacement."""
    return features[torch.randperm(len(features), generator=generator)[:count].to(features.device)]


def squared_mmd(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared MMD of two samples ``(N, F)``, without bias, with the kernel ``(x . y / F + 1)^3``."""
    count = len(x)
    within = x.new_zeros(())
    for sample in (x, y):
        kernel = _kernel(sample, sample).fill_diagonal_(0)  # not subtracted from the sum, in which one far sample rules
        within = within + kernel.sum()
    return within / (count * (count - 1)) - 2 * _kernel(x, y).sum() / count**2


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


class PrecisionRecall(SampleMetric):
    """Improved precision and recall (arXiv 1904.06991): see ``precision_recall``. All features are kept in memory.

    Args:
        k: the neighbour whose distance is the radius.
        max_samples: the number of samples of each kind that are compared, drawn at random if there are more. Time grows
            with its square; memory does not.
        seed: of the draw. The global random state is neither read nor changed.
        kwargs: those of ``torchmetrics.Metric``.

    Raises:
        ConfigurationError: for ``k`` below 1, or no more ``max_samples`` than ``k``.
        ValueError: by ``update`` for features that are not finite ``(B, F)`` or of another width than earlier ones; by
            ``compute`` for fewer than ``k + 1`` samples of either kind.

    >>> metric = PrecisionRecall(k=1)
    >>> metric.update(torch.tensor([[0.0], [1.0], [8.0], [9.0]]), real=True)
    >>> metric.update(torch.tensor([[0.0], [1.0], [1.5]]), real=False)
    >>> metric.compute()
    {'precision': tensor(1.), 'recall': tensor(0.5000)}
    """

    higher_is_better = True

    def __init__(self, k: int = 3, max_samples: int = 50_000, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k = whole_number("k", k, at_least=1)
        self.max_samples = whole_number("max_samples", max_samples, at_least=self.k + 1)
        self.seed = seed

    def compute(self) -> dict[str, Tensor]:
        """Return ``precision`` and ``recall``, float32 scalars by name."""
        real, generated = self.both()
        check_counts(f"PrecisionRecall(k={self.k})", self.k + 1, len(real), len(generated))
        generator = torch.Generator().manual_seed(self.seed)
        real, generated = (
            drawn(features, self.max_samples, generator) if len(features) > self.max_samples else features
            for features in (real, generated)
        )
        precision, recall = precision_recall(real, generated, self.k)
        return {"precision": precision, "recall": recall}


def precision_recall(real: Tensor, generated: Tensor, k: int = 3) -> tuple[Tensor, Tensor]:
    """Return improved precision and recall (arXiv 1904.06991), by Euclidean distances in float64.

    Precision is the share of generated samples within reach of any real one: not farther from it than its k-th nearest
    *other* real sample. Recall is the share of real samples within reach of any generated one.

    Squares of distances are equal up to a relative 1e-9. Both shares grow as samples get scarcer: compare scores of the
    same number of samples only. Time grows with the square of that number, memory linearly.

    Args:
        real: ``(N, F)``.
        generated: ``(M, F)``.
        k: the neighbour whose distance is the radius.

    Returns:
        Precision and recall, two float32 scalars.

    Raises:
        ValueError: for fewer than ``k + 1`` samples of either kind, or features of two widths.

    >>> precision_recall(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.5], [0.6], [8.0], [9.0]]), k=1)
    (tensor(0.5000), tensor(0.))
    """
    check_counts(f"k={k}", k + 1, len(real), len(generated))
    if real.dim() != 2 or generated.dim() != 2 or real.shape[1] != generated.shape[1]:
        got = f"{tuple(real.shape)} and {tuple(generated.shape)}"
        raise ValueError(f"real and generated features must be (N, F) and (M, F), of one width; got {got}")
    real, generated = real.double(), generated.double()
    # Without the slack, rounding decides ties. It is each pair's own: a far sample changes nothing for the others.
    real_reach, generated_reach = (_reach(features, k) * (1 + _SLACK) for features in (real, generated))
    hits, found = 0, torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for rows in _blocks(len(generated), len(real)):
        distances = square_distances(generated[rows], real)
        hits += int((distances <= real_reach).any(1).sum())
        found |= (distances <= generated_reach[rows, None]).any(0)
    precision = torch.tensor(hits / len(generated), dtype=torch.float32, device=real.device)
    return precision, found.float().mean()


def _reach(features: Tensor, k: int) -> Tensor:
    """Return the squared distance from each sample to its k-th nearest other sample, ``(N,)``."""
    reach = []
    for rows in _blocks(len(features), len(features)):
        distances = square_distances(features[rows], features)
        distances[:, rows].fill_diagonal_(torch.inf)  # to itself
        reach.append(distances.kthvalue(k, dim=1).values)
    return torch.cat(reach)


def _blocks(rows: int, columns: int) -> list[slice]:
    """Return slices of the rows, so small that the distances to all columns fit into memory."""
    size = max(1, _AT_ONCE // columns)
    return [slice(start, start + size) for start in range(0, rows, size)]


def checked_features(features: Tensor) -> Tensor:
    """Return features in at least float32, without a gradient, if they are finite and ``(B, F)``."""
    if features.dim() != 2:
        raise ValueError(f"features must be (B, F); got {tuple(features.shape)}")
    check_finite("features must be finite", features)
    return at_least_float32(features.detach())


def check_counts(who: str, needed: int, real: int, generated: int) -> None:
    """Raise a ValueError for fewer real or generated samples than are needed."""
    if min(real, generated) < needed:
        raise ValueError(f"{who} needs at least {needed} samples of each kind; got {real} real, {generated} generated")
