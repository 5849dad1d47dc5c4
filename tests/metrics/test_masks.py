"""Codes of positions with a mask: the rate is of an example, every other statistic of an unmasked position."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.code import gaussian_code
from lit_bottleneck.metrics import ClassConditionalTotalCorrelation, MarginalMoments, MutualInformation, Rate
from lit_bottleneck.metrics.code_metric import CodeMetric, in_float32
from lit_bottleneck.metrics.marginal_moments import marginal_moments
from lit_bottleneck.metrics.mutual_information import mutual_information
from lit_bottleneck.metrics.rate import rate

Batch = tuple[Tensor, Tensor, Tensor]
K = 3


def sequences() -> Iterator[Batch]:
    """Batches of 5, 8 and 3 sequences, each batch of its own length, with anything at all in the padding."""
    generator = torch.Generator().manual_seed(0)
    for rows, length in ((5, 4), (8, 7), (3, 3)):  # the last as long as the code is wide
        mean, log_var = (torch.randn(rows, length, K, generator=generator, dtype=torch.float64) for _ in range(2))
        lengths = torch.randint(1, length + 1, (rows, 1), generator=generator)
        mask = torch.arange(length) < lengths
        mean = 2 + mean * torch.tensor([1.0, 0.05, 2.0]) + mean[..., :1]  # correlated; the second varies with the first
        yield mean.masked_fill(~mask[..., None], torch.nan), log_var.masked_fill(~mask[..., None], torch.inf), mask


def maps() -> Iterator[Batch]:
    """The same codes as ``(B, K, T, 1)``."""
    for mean, log_var, mask in sequences():
        yield mean.mT[..., None], log_var.mT[..., None], mask[..., None]


def by_position(batches: Iterator[Batch]) -> tuple[Tensor, Tensor]:
    """The codes at unmasked positions, ``(N, K)``, one by one."""
    pairs = [
        (mean[row, t], log_var[row, t])
        for mean, log_var, mask in batches
        for row, t in np.ndindex(*mask.shape)
        if mask[row, t]
    ]
    means, log_vars = zip(*pairs, strict=True)
    return torch.stack(means), torch.stack(log_vars)


def fed(metric: CodeMetric, batches: Iterator[Batch], dim: int) -> dict[str, Tensor]:
    for mean, log_var, mask in batches:
        metric.update(mean, log_var, mask=mask, dim=dim)
    return metric.in_float64()


@pytest.mark.parametrize(("batches", "dim"), [(sequences, -1), (sequences, 2), (maps, 1)])
def test_the_rate_is_of_an_example_and_active_are_dimensions_of_positions(batches: Any, dim: int) -> None:
    of_examples = [
        sum(
            kl_divergence(Normal(m, (v / 2).exp()), Normal(0.0, 1.0))
            for m, v, counts in zip(*example, strict=True)
            if counts
        )
        for batch in sequences()
        for example in zip(*batch, strict=True)
    ]
    expected = torch.stack(of_examples).mean(0)
    found = fed(Rate(per_dimension=True, threshold=3.0), batches(), dim)
    torch.testing.assert_close(found["rate_per_dimension"], expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(found["rate"], expected.sum(), rtol=1e-12, atol=0)
    variances = np.var(by_position(sequences())[0].numpy(), axis=0)
    assert found["active_units"] == (variances > 3).sum() == 2


def test_the_rate_is_that_of_the_code_which_is_priced() -> None:
    moments = torch.randn(6, 5, 2 * K, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(5) < torch.tensor([5, 1, 3, 0, 2, 4])[:, None]  # one example has no position: its rate is 0
    code = gaussian_code(moments, sample=False, dim=-1, mask=mask)
    found = rate(code.mean, code.log_var, mask=mask, dim=-1)["rate"]
    torch.testing.assert_close(found, code.rate.mean())
    assert found < rate(code.mean, code.log_var)["rate"]


@pytest.mark.parametrize(("batches", "dim"), [(sequences, -1), (maps, 1)])
def test_moments_and_bounds_are_of_the_positions(batches: Any, dim: int) -> None:
    mean, log_var = by_position(sequences())
    covariance = np.cov(mean.numpy().T, ddof=0) + np.diag(log_var.exp().mean(0).numpy())
    scales = np.sqrt(np.diag(covariance))
    moments = fed(MarginalMoments(), batches(), dim)
    _, log_det = np.linalg.slogdet(covariance / np.outer(scales, scales))
    assert moments["total_correlation"].item() == pytest.approx(-log_det / 2, rel=1e-10)
    squares = covariance.trace() + (mean.mean(0) ** 2).sum().item()
    assert moments["marginal_kl"].item() == pytest.approx((squares - K - np.linalg.slogdet(covariance)[1]) / 2)
    torch.testing.assert_close(in_float32(moments), marginal_moments(mean, log_var))
    bounds = fed(MutualInformation(max_codes=len(mean)), batches(), dim)
    torch.testing.assert_close(in_float32(bounds), mutual_information(mean, log_var))
    assert 0 < fed(MutualInformation(), batches(), dim)["lower"] <= math.log(len(mean))


def test_the_functions_take_masks_too() -> None:
    mean, log_var, mask = next(sequences())
    for function in (rate, marginal_moments, mutual_information):
        found = function(mean, log_var, mask=mask, dim=-1)
        expected = function(*by_position(iter([(mean, log_var, mask)])))
        if function is rate:
            expected["rate"] = expected["rate"] * mask.sum() / len(mask)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("batches", "dim"), [(sequences, -1), (maps, 1)])
def test_all_positions_have_the_class_of_their_example(batches: Any, dim: int) -> None:
    found, expected = ClassConditionalTotalCorrelation(2), ClassConditionalTotalCorrelation(2)
    for (mean, log_var, mask), sequence in zip(batches(), sequences(), strict=True):
        labels = torch.arange(len(mask)) % 2
        found.update(mean, log_var, labels, mask=mask, dim=dim)
        for row, label in enumerate(labels):
            codes = by_position(iter([tuple(part[row : row + 1] for part in sequence)]))
            expected.update(*codes, label.expand(len(codes[0])))
    torch.testing.assert_close(found.in_float64(), expected.in_float64())


def test_a_mask_of_examples_and_one_of_whole_numbers() -> None:
    mean, log_var = by_position(sequences())
    keep = torch.arange(len(mean)) % 3 > 0
    metric = MarginalMoments()
    metric.update(mean, log_var, mask=keep.to(torch.uint8))
    torch.testing.assert_close(metric.compute(), marginal_moments(mean[keep], log_var[keep]))


def test_without_a_mask_dimensions_are_flattened_as_before() -> None:
    mean, log_var = (torch.randn(9, 2, K, generator=torch.Generator().manual_seed(seed)) for seed in range(2))
    for function in (rate, marginal_moments, mutual_information):
        torch.testing.assert_close(
            function(mean, log_var), function(mean.flatten(1), log_var.flatten(1)), rtol=0, atol=0
        )


@pytest.mark.parametrize(
    ("mask", "dim", "message"),
    [
        (torch.ones(4, 5), 2, r"dim=2 of codes \(4, 5, 3\) needs a mask of bools \(4, 5\); got torch.float32 \(4, 5\)"),
        (torch.ones(4, 5).bool(), 1, r"dim=1 .* needs a mask of bools \(4, 3\); .*bool \(4, 5\) \(dim=-1 is for seq"),
        (torch.ones(4, 5, 3).bool(), -1, r"needs a mask of bools \(4, 5\); got torch.bool \(4, 5, 3\)$"),
        (np.ones((4, 5), dtype=bool), -1, "needs a mask of bools .*; got ndarray"),
        (torch.ones(4, 5).bool(), 0, r"dim must be a dimension of codes \(4, 5, 3\) after the batch; got 0"),
        (torch.ones(4, 5).bool(), 3, r"dim must be .*; got 3"),
        (torch.ones(4, 5).bool(), -3, r"dim must be .*; got -3"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_and_leaves_no_trace(mask: Any, dim: int, message: str) -> None:
    mean, log_var, fitting = next(sequences())
    metric = Rate()
    metric.update(mean, log_var, fitting, -1)
    before = metric.in_float64()
    with pytest.raises(ConfigurationError, match=message):
        metric.update(torch.zeros(4, 5, 3), torch.zeros(4, 5, 3), mask, dim)
    assert metric.in_float64() == before
    with pytest.raises(ValueError, match="must be finite"):
        metric.update(mean, log_var, torch.ones_like(fitting), -1)  # the padding counts
