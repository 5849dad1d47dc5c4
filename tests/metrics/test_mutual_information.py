"""Bounds of the information: closed forms, a double loop over torch.distributions, and the choice of kept codes."""

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal

from lit_bottleneck.functional import kl_per_dimension, pairwise_log_density
from lit_bottleneck.metrics.code_metric import sums_of
from lit_bottleneck.metrics.contrastive_bounds import leave_one_out_bound, minibatch_stratified, nce_bound
from lit_bottleneck.metrics.marginal_moments import moments_of
from lit_bottleneck.metrics.mutual_information import MutualInformation, code_keys, mutual_information
from tests.metrics.cases import exact, randn


def measured(mean: Tensor, log_var: Tensor, batch_size: int = 10**6, **arguments: int) -> dict[str, float]:
    batches = zip(mean.split(batch_size), log_var.split(batch_size), strict=True)
    return exact(MutualInformation(**arguments), *batches)


def of_moments(mean: Tensor, log_var: Tensor) -> float:
    """The upper bound that follows from the moments of the codes."""
    moments = moments_of(sums_of(mean.double(), log_var.double(), joint=True))
    return (moments["information_upper"] + moments["marginal_kl_bias"]).item()


def linear_channel(n: int) -> tuple[Tensor, Tensor]:
    """Draws of a linear Gaussian channel with I = 1.146550 and R = 1.329721 nats."""
    x = randn(n, 2) @ torch.linalg.cholesky(torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)).T
    mean = x @ torch.tensor([[0.6, 0.3], [0.0, 0.8]], dtype=torch.float64) + torch.tensor([0.2, -0.1])
    return mean, torch.tensor([0.5, 0.25]).double().log().expand_as(mean)


# --- the estimators ---------------------------------------------------------------------------------------------------


def test_the_bounds_equal_a_double_loop_over_torch_distributions() -> None:
    mean, log_var, noise = randn(12, 3), randn(12, 3, seed=1) - 1, randn(12, 3, seed=2)
    z = mean + (log_var / 2).exp() * noise
    posteriors = [Normal(*moments) for moments in zip(mean, (log_var / 2).exp(), strict=True)]
    dense = [[posterior.log_prob(row).sum().exp().item() for posterior in posteriors] for row in z]
    densities = pairwise_log_density(z, mean, log_var)
    for i, row in enumerate(dense):
        others = [value for j, value in enumerate(row) if j != i]
        assert nce_bound(densities)[i].item() == pytest.approx(math.log(row[i] / (sum(row) / 12)), rel=1e-9)
        found = leave_one_out_bound(densities)[i].item()
        assert found == pytest.approx(math.log(row[i] / (sum(others) / 11)), rel=1e-9)
        weighted = row[i] / 50 + sum(others) * 49 / (50 * 11)
        found = minibatch_stratified(densities, 50)[i].item()
        assert found == pytest.approx(math.log(row[i] / weighted), rel=1e-9)
    torch.testing.assert_close(minibatch_stratified(densities, 12), nce_bound(densities))


def test_the_stratified_density_of_the_marginal_has_no_bias() -> None:
    # Its mean over all choices of 3 of 5 examples that include the first is the density under all 5.
    dense = torch.tensor([0.9, 0.2, 0.5, 0.05, 0.4], dtype=torch.float64)
    parts = [dense[[0, *others]].log().expand(3, 3) for others in combinations(range(1, 5), 2)]
    found = [(rows[0, 0] - minibatch_stratified(rows, 5)[0]).exp() for rows in parts]
    assert torch.stack(found).mean().item() == pytest.approx(dense.mean().item(), rel=1e-12)


@given(st.integers(2, 40), st.integers(0, 10**6), st.floats(-1e6, 1e6), st.sampled_from([torch.float32, torch.float64]))
def test_equal_columns_have_exactly_no_information(m: int, more: int, density: float, dtype: torch.dtype) -> None:
    densities = (randn(m, 1, seed=m) * density).to(dtype).expand(m, m)
    for found in (nce_bound(densities), leave_one_out_bound(densities), minibatch_stratified(densities, m + more)):
        assert found.abs().max() == 0
        assert found.dtype == dtype


@given(st.integers(2, 20), st.integers(0, 100), st.floats(0, 1e4))
def test_the_bounds_are_ordered_and_finite(m: int, seed: int, spread: float) -> None:
    densities = spread * randn(m, m, seed=seed)
    nce, mss = nce_bound(densities), minibatch_stratified(densities, 10 * m)
    assert bool((nce <= math.log(m) + 1e-12).all())
    assert bool((mss <= math.log(10 * m) + 1e-12).all())
    leave_one_out = leave_one_out_bound(densities)
    assert bool(leave_one_out.isfinite().all())
    above = leave_one_out >= 0  # both are negative for a code that is less dense under its own input than under others
    assert bool((nce[above] <= leave_one_out[above] + 1e-9).all())


def test_disjoint_codes_are_all_distinguished() -> None:
    densities = torch.full((7, 7), -torch.inf).fill_diagonal_(0.0)
    torch.testing.assert_close(nce_bound(densities), torch.full((7,), math.log(7)))
    torch.testing.assert_close(minibatch_stratified(densities, 99), torch.full((7,), math.log(99)))
    assert bool((leave_one_out_bound(densities) == torch.inf).all())
    far = nce_bound(torch.full((7, 7), -1e30).fill_diagonal_(1e30))
    torch.testing.assert_close(far, torch.full((7,), math.log(7)))


def test_gradients_flow_through_the_bounds() -> None:
    densities = randn(5, 5).requires_grad_()
    for bound in (nce_bound, leave_one_out_bound, lambda matrix: minibatch_stratified(matrix, 9)):
        assert torch.autograd.gradcheck(bound, densities)


def test_invalid_matrices_are_refused() -> None:
    for shape in ((3, 4), (1, 1), (3,)):
        for bound in (nce_bound, leave_one_out_bound, lambda matrix: minibatch_stratified(matrix, 9)):
            with pytest.raises(ValueError, match=r"log_densities must be \(M, M\), with M at least 2; got"):
                bound(torch.zeros(shape))
    with pytest.raises(ValueError, match="dataset_size=4 is less than the 5 codes"):
        minibatch_stratified(torch.zeros(5, 5), 4)


# --- the metric -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 3, 17])
@pytest.mark.parametrize("n", [2, 3, 10, 101])
@pytest.mark.parametrize("shape", [(0.3, -1.1), (0.0, 0.0), (-7.7, 3.3)])
def test_a_collapsed_encoder_has_exactly_no_information(n: int, width: int, shape: tuple[float, float]) -> None:
    mean, log_var = (value * (1 + torch.arange(width) / 7).expand(n, width) for value in shape)
    found = measured(mean, log_var, num_draws=3)
    assert found["lower"] == found["saturated"] == 0
    assert found["marginal_kl_upper"] == found["rate"]
    assert found["upper"] == 0
    assert found["marginal_kl_lower"] == found["rate"]


def test_minus_zero_is_zero() -> None:
    mean = torch.tensor([[0.0, 1.0], [-0.0, 1.0], [0.0, 1.0]])
    log_var = torch.tensor([[-0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    assert measured(mean, log_var)["lower"] == 0


def test_disjoint_codes_saturate_the_lower_bound_and_the_rate_is_the_upper() -> None:
    mean = torch.arange(40.0)[:, None] * 1000
    found = measured(mean, torch.zeros(40, 1))
    assert found["lower"] == pytest.approx(math.log(40), rel=1e-12)
    assert found["saturated"] == 1
    assert found["upper"] == of_moments(mean, torch.zeros(40, 1))  # the leave-one-out bound is in the thousands
    assert found["marginal_kl_lower"] == pytest.approx(found["rate"] - found["upper"], rel=1e-12)


def test_the_linear_channel() -> None:
    mean, log_var = linear_channel(3000)
    found = measured(mean, log_var, num_draws=1)
    z = mean + (log_var / 2).exp() * randn(3000, 2, seed=5)
    rows = nce_bound(pairwise_log_density(z, mean, log_var))
    # The standard error of a mean over 3000 inputs; both bounds are within O(1 / 3000) of the truth.
    error = rows.std().item() / math.sqrt(3000)
    assert error < 0.025
    assert found["lower"] == pytest.approx(1.146550, abs=4 * error)
    assert found["upper"] == pytest.approx(1.146550, abs=4 * error)
    assert found["rate"] == pytest.approx(1.329721, abs=4 * error)
    assert found["marginal_kl_lower"] == pytest.approx(0.183171, abs=4 * error)
    assert found["marginal_kl_upper"] == pytest.approx(0.183171, abs=4 * error)
    assert found["saturated"] == 0
    assert rows.mean().item() == pytest.approx(found["lower"], abs=4 * error)


def test_it_is_the_mean_of_the_bounds_of_its_own_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    mean, log_var = randn(30, 3), randn(30, 3, seed=1) - 2
    whole = measured(mean, log_var, num_draws=2, seed=7)
    keys, order = code_keys(torch.stack([mean, log_var], 1), 7).sort()
    assert len(keys.unique()) == 30
    mean, log_var = mean[order], log_var[order]
    generator = torch.Generator().manual_seed(7)
    draws = torch.randn(60, 3, generator=generator, dtype=torch.float64).split(30)
    matrices = [pairwise_log_density(mean + (log_var / 2).exp() * noise, mean, log_var) for noise in draws]
    assert whole["lower"] == pytest.approx(torch.stack([*map(nce_bound, matrices)]).mean().item(), rel=1e-12)
    leave_one_out = torch.stack([*map(leave_one_out_bound, matrices)]).mean().item()
    upper = min(leave_one_out, whole["rate"], of_moments(mean, log_var))
    assert whole["upper"] == pytest.approx(upper, rel=1e-12)
    for at_once in (1, 100):
        monkeypatch.setattr("lit_bottleneck.metrics.mutual_information._AT_ONCE", at_once)
        assert measured(mean, log_var, num_draws=2, seed=7) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("max_codes", [1000, 10_000])
def test_repeated_codes_are_counted(max_codes: int) -> None:
    """Ten symbols that are never confused have log 10 nats, however many codes come and however few are kept."""
    mean = 1000 * torch.arange(10.0).repeat(2000)[:, None]
    found = measured(mean, torch.zeros_like(mean), batch_size=300, max_codes=max_codes)
    assert found["lower"] == pytest.approx(math.log(10), rel=1e-9)
    assert found["saturated"] == 0
    assert found["upper"] >= found["lower"]


def test_repeated_codes_are_as_good_as_kept_one_by_one() -> None:
    """Against all pairs: 60 codes, of which some are the same, and noise of their own for each draw."""
    mean, log_var = randn(20, 2).repeat_interleave(torch.arange(20) % 5 + 1, 0), torch.zeros(60, 2, dtype=torch.float64)
    found = measured(mean, log_var, num_draws=2000)
    noise = randn(200, 60, 2, seed=5)
    naive = torch.stack([nce_bound(pairwise_log_density(mean + e, mean, log_var)).mean() for e in noise])
    error = 4 * naive.std().item() / math.sqrt(200)
    assert found["lower"] == pytest.approx(naive.mean().item(), abs=error)


def test_half_of_the_codes_repeat_and_not_all_are_kept() -> None:
    """1000 different codes and one that came 1000 times, all far apart: the entropy of which of them it was."""
    mean = 1000 * torch.cat([torch.arange(1.0, 1001), torch.zeros(1000)])[:, None]
    truth = 0.5 * math.log(2) + 0.5 * math.log(2000)
    all_kept = measured(mean, torch.zeros_like(mean), max_codes=1500)
    assert all_kept["lower"] == pytest.approx(truth, rel=1e-9)
    some_kept = [measured(mean, torch.zeros_like(mean), max_codes=500, seed=seed)["lower"] for seed in range(3)]
    assert max(some_kept) <= truth


def test_the_function_is_the_metric_of_all_codes() -> None:
    mean, log_var = linear_channel(300)
    found = mutual_information(mean, log_var, seed=3, num_draws=2)
    expected = measured(mean, log_var, seed=3, num_draws=2)
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match="at least 2 codes; got 1"):
        mutual_information(mean[:1], log_var[:1])


def test_few_codes_have_more_draws() -> None:
    """Near collapse the bounds are closer to the truth than to the error of one draw."""
    mean = 0.1 * randn(1000, 2)
    truth = 0.5 * 2 * math.log1p(mean.var(0).mean().item())
    found = measured(mean, torch.zeros_like(mean))
    assert found["lower"] == pytest.approx(truth, abs=4e-3)
    assert found["upper"] == pytest.approx(truth, abs=4e-3)


def test_the_store_is_bounded_and_independent_of_the_split() -> None:
    mean, log_var = randn(200, 3), randn(200, 3, seed=1) - 2
    whole = measured(mean, log_var, max_codes=25)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    metric = MutualInformation(max_codes=25)
    for batch in order.split(9):
        metric.update(mean[batch], log_var[batch])
        assert sum(map(len, metric.codes)) < 2 * 25 * 7
        assert all(map(len, metric.codes))
    found = exact(metric)
    assert found == pytest.approx(whole, rel=1e-12)
    other, last = MutualInformation(max_codes=25), MutualInformation(max_codes=25)
    other.update(mean[:120], log_var[:120])
    last.update(mean[120:], log_var[120:])
    last.merge_state(other)
    assert sum(map(len, last.codes)) == 25 * 7
    assert exact(last) == pytest.approx(whole, rel=1e-12)
    # Rate and moments are those of all codes.
    assert found["rate"] == pytest.approx(kl_per_dimension(mean, log_var).sum(1).mean().item(), rel=1e-12)
    assert found["lower"] <= math.log(25)


def test_kept_codes_are_a_random_part_of_all() -> None:
    mean = torch.cat([torch.zeros(1000, 2), torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))])
    mean[:1000, 0] = torch.arange(1000) / 1000
    metric = MutualInformation(max_codes=400)
    metric.update(mean, torch.zeros(2000, 2))
    kept = metric.codes[0].view(-1, 5)[:, 1:3]
    ordered = (kept[:, 1] == 0).sum().item()
    assert ordered == pytest.approx(200, abs=4 * math.sqrt(400 / 4 * 0.8))  # hypergeometric
    assert kept[kept[:, 1] == 0, 0].mean().item() == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / ordered))


def test_keys_differ_where_codes_do_and_are_spread_evenly() -> None:
    grid = torch.cartesian_prod(torch.arange(300.0), torch.arange(300.0)).double()
    keys = code_keys(grid, seed=0)
    assert len(keys.unique()) == 90_000
    counts = torch.histc(keys.double(), bins=10, min=-(2.0**63), max=2.0**63)
    assert bool(((counts - 9000).abs() < 5 * math.sqrt(9000)).all())
    assert not torch.equal(keys, code_keys(grid, seed=1))
    one = torch.cat([code_keys(row[None], seed=0) for row in grid[:50]])
    assert torch.equal(one, keys[:50])


def test_the_seed_draws_the_noise() -> None:
    mean, log_var = randn(50, 3), randn(50, 3, seed=1)
    first = measured(mean, log_var)
    assert measured(mean, log_var) == first
    assert measured(mean, log_var, seed=1)["lower"] != first["lower"]


def test_codes_without_noise_are_refused() -> None:
    log_var = torch.zeros(4, 2)
    log_var[1:3, 0] = -torch.inf
    with pytest.raises(ValueError, match=r"-inf in 2 of 4 rows: the information .* is infinite"):
        MutualInformation().update(torch.zeros(4, 2), log_var)


def test_bad_arguments_are_named() -> None:
    for name, least in (("max_codes", 2), ("num_draws", 1)):
        with pytest.raises(ValueError, match=f"{name} must be a whole number, at least {least}"):
            MutualInformation(**{name: least - 1})
