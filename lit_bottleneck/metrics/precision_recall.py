"""Improved precision and recall of generated examples."""

from typing import Any

import torch
from torch import Tensor

from lit_bottleneck.checks import whole_number
from lit_bottleneck.metrics.sample_metric import SampleMetric, check_counts

_AT_ONCE = 2**24  # distances in memory: 128 MiB


class PrecisionRecall(SampleMetric):
    """Improved precision and recall (arXiv 1904.06991): see ``precision_recall``. All features are kept in memory.

    Args:
        k: the neighbour whose distance is the radius.
        kwargs: those of ``torchmetrics.Metric``.

    Raises:
        ConfigurationError: for ``k`` below 1.
        ValueError: by ``update`` for features that are not finite ``(B, F)`` or of another width than earlier ones; by
            ``compute`` for fewer than ``k + 1`` samples of either kind.

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
        """Return ``precision`` and ``recall``, float32 scalars by name."""
        real, generated = self.both()
        check_counts(f"PrecisionRecall(k={self.k})", self.k + 1, len(real), len(generated))
        precision, recall = precision_recall(real, generated, self.k)
        return {"precision": precision, "recall": recall}


def precision_recall(real: Tensor, generated: Tensor, k: int = 3) -> tuple[Tensor, Tensor]:
    """Return improved precision and recall (arXiv 1904.06991), by Euclidean distances in float64.

    Precision is the share of generated samples within reach of any real one: not farther from it than its k-th nearest
    *other* real sample. Recall is the share of real samples within reach of any generated one.

    Both grow as samples get scarcer: compare scores of the same number of samples only.

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
    centre = real.mean(0)  # distances do not change, and less cancels
    real, generated = real - centre, generated - centre
    # The rounding error of squared distances. Without it, ties (such as a sample and its copy) are decided by chance.
    slack = 1e-12 * max(features.square().sum(1).max().item() for features in (real, generated))
    real_reach, generated_reach = (_reach(features, k) + slack for features in (real, generated))
    hits, found = 0, torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for rows in _blocks(len(generated), len(real)):
        distances = torch.cdist(generated[rows], real).square()
        hits += int((distances <= real_reach).any(1).sum())
        found |= (distances <= generated_reach[rows, None]).any(0)
    precision = torch.tensor(hits / len(generated), dtype=torch.float32, device=real.device)
    return precision, found.float().mean()


def _reach(features: Tensor, k: int) -> Tensor:
    """Return the squared distance from each sample to its k-th nearest other sample, ``(N,)``."""
    reach = []
    for rows in _blocks(len(features), len(features)):
        distances = torch.cdist(features[rows], features)
        distances[:, rows].fill_diagonal_(torch.inf)  # to itself
        reach.append(distances.kthvalue(k, dim=1).values.square())
    return torch.cat(reach)


def _blocks(rows: int, columns: int) -> list[slice]:
    """Return slices of the rows, so small that the distances to all columns fit into memory."""
    size = max(1, _AT_ONCE // columns)
    return [slice(start, start + size) for start in range(0, rows, size)]
