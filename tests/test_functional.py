"""Facts about the pure functions: closed forms, float64 and torch.distributions references, invariants."""

import math

import mpmath
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from lit_bottleneck.functional import (
    at_least_float32,
    bounded_log_var,
    free_bits_rate,
    gaussian_kl,
    interpolate,
    kl_per_dimension,
    log_density,
    log_ratio,
    pairwise_log_density,
    softplus_log_var,
    square_distances,
)

SCALES = [bounded_log_var, softplus_log_var]
MODES = ["linear", "slerp", "variance_preserving"]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=generator(seed))


# --- KL ---------------------------------------------------------------------------------------------------------------


def test_kl_is_its_closed_form() -> None:
    mean = torch.tensor([[1.0, -0.5, 0.0]], dtype=torch.float64)
    log_var = torch.tensor([[0.25, 1.0, 4.0]], dtype=torch.float64).log()
    expected = torch.tensor([[0.8181471805599453, 0.125, 0.8068528194400547]], dtype=torch.float64)
    torch.testing.assert_close(kl_per_dimension(mean, log_var), expected, rtol=1e-12, atol=0)
    assert gaussian_kl(mean, log_var).item() == pytest.approx(1.75, rel=1e-12)


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5), (2, 3, 2, 4), (3, 1)])
def test_kl_equals_torch_distributions(shape: tuple[int, ...]) -> None:
    mean, log_var = 3 * randn(*shape, seed=1), 2 * randn(*shape, seed=2)
    prior = Normal(torch.zeros(shape, dtype=torch.float64), 1.0)
    reference = kl_divergence(Normal(mean, (log_var / 2).exp()), prior)
    torch.testing.assert_close(kl_per_dimension(mean, log_var), reference, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(gaussian_kl(mean, log_var), reference.flatten(1).sum(1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("magnitude", [1e-4, 3e-4, 1e-3, 1e-2])
def test_kl_of_a_nearly_standard_normal_is_accurate_in_float32(magnitude: float) -> None:
    log_var = magnitude * torch.linspace(-1, 1, 41).reshape(1, -1)  # exp(v) - 1 - v would be wrong by a factor
    exact = gaussian_kl(torch.zeros_like(log_var).double(), log_var.double())
    torch.testing.assert_close(gaussian_kl(torch.zeros_like(log_var), log_var).double(), exact, rtol=5e-3, atol=0)


@given(mean=st.floats(-100, 100), log_var=st.floats(-14, 8))
def test_kl_is_never_negative_and_zero_only_for_the_prior(mean: float, log_var: float) -> None:
    kl = gaussian_kl(torch.tensor([[mean]]), torch.tensor([[log_var]])).item()
    assert kl >= -1e-7 * abs(log_var)
    if abs(mean) > 1e-2 or abs(log_var) > 1e-2:
        assert kl > 0
    assert gaussian_kl(torch.zeros(1, 3), torch.zeros(1, 3)).item() == 0


@given(batch=st.integers(1, 5), latent_dim=st.integers(1, 6), appended=st.integers(1, 9), seed=st.integers(0, 99))
def test_appended_standard_normal_dimensions_change_nothing(batch, latent_dim, appended, seed) -> None:
    mean, log_var = randn(batch, latent_dim, seed=seed), randn(batch, latent_dim, seed=seed + 1)
    nothing = torch.zeros(batch, appended, dtype=torch.float64)
    wider = gaussian_kl(torch.cat([mean, nothing], 1), torch.cat([log_var, nothing], 1))
    torch.testing.assert_close(wider, gaussian_kl(mean, log_var), rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_arithmetic_is_at_least_float32(dtype: torch.dtype) -> None:
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    x = torch.ones(2, 3, dtype=dtype)
    for result in (at_least_float32(x), gaussian_kl(x, x), kl_per_dimension(x, x), *(scale(x) for scale in SCALES)):
        assert result.dtype == wanted


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_kl_survives_log_variances_whose_exponential_overflows_half_precision(dtype: torch.dtype) -> None:
    log_var = torch.tensor([[11.5]], dtype=dtype)  # exp(11.1) is inf in float16
    exact = gaussian_kl(torch.zeros(1, 1).double(), log_var.double())
    torch.testing.assert_close(gaussian_kl(torch.zeros(1, 1, dtype=dtype), log_var).double(), exact, rtol=1e-6, atol=0)


# --- scale maps -------------------------------------------------------------------------------------------------------


def test_bounded_scale_is_zero_with_slope_one_and_continuous_curvature_zero_at_zero() -> None:
    raw = torch.tensor([-1e-6, 0.0, 1e-6], dtype=torch.float64, requires_grad=True)
    log_var = bounded_log_var(raw)
    (slope,) = torch.autograd.grad(log_var.sum(), raw, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), raw)
    assert (log_var[1].item(), slope[1].item(), curvature[1].item()) == (0.0, 1.0, 0.0)
    torch.testing.assert_close(slope, torch.ones_like(slope), rtol=1e-10, atol=0)
    assert curvature.abs().max().item() < 1e-6


@given(st.floats(-1e4, 1e4))
def test_bounded_scale_is_its_formula(raw: float) -> None:
    bound = 14.0 if raw < 0 else 8.0
    expected = raw / math.sqrt(1 + (raw / bound) ** 2)
    value = bounded_log_var(torch.tensor([raw], dtype=torch.float64)).item()
    assert value == pytest.approx(expected, rel=1e-14, abs=1e-300)
    assert -14 < value < 8
    in_float32 = bounded_log_var(torch.tensor([raw])).item()
    assert -14 <= in_float32 <= 8
    assert in_float32 == pytest.approx(expected, rel=1e-6, abs=1e-37)


@pytest.mark.parametrize("scale", SCALES)
def test_scales_are_monotone(scale) -> None:
    raw = torch.cat([torch.linspace(-1e4, 1e4, 20001), torch.linspace(-30, 30, 20001)]).double().sort().values.unique()
    assert (scale(raw).diff() > 0).all()
    rounded = scale(raw.float())  # in float32 to two units in the last place
    assert (rounded.diff() >= -2 * torch.finfo(torch.float32).eps * rounded[1:].abs()).all()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(raws=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=8))
@example(raws=[-5.0, 0.0, -1e4, 1e4])
def test_scales_and_their_gradients_are_finite_and_gradients_never_vanish(scale, dtype, raws: list[float]) -> None:
    raw = torch.tensor(raws, dtype=dtype, requires_grad=True)
    log_var = scale(raw)
    (gradient,) = torch.autograd.grad(log_var.sum(), raw)
    assert log_var.isfinite().all()
    assert gradient.isfinite().all()
    assert (gradient > 0).all()


def softplus_reference(x: float) -> float:
    """2 log(softplus(x)) by the series log(log1p(e)) = log(e) + log(1 - e/2 + e^2/3 - e^3/4) for small e = exp(x)."""
    if x > -5:
        return 2 * math.log(math.log1p(math.exp(x)) if x < 30 else x + math.log1p(math.exp(-x)))
    e = math.exp(x)
    return 2 * (x + math.log1p(-e / 2 + e**2 / 3 - e**3 / 4 + e**4 / 5))


@given(raw=st.one_of(st.floats(-1e4, 1e4, width=32), st.floats(-20, 20, width=32)), shift=st.sampled_from([-5.0, 0.0]))
def test_softplus_scale_is_accurate_everywhere(raw: float, shift: float) -> None:
    expected = softplus_reference(raw + shift)
    in_float64 = softplus_log_var(torch.tensor([raw], dtype=torch.float64), shift).item()
    assert in_float64 == pytest.approx(expected, rel=1e-8, abs=1e-14)
    x = torch.tensor([raw]) + shift  # the sum is rounded to float32, and nothing can be done about that
    assert softplus_log_var(torch.tensor([raw]), shift).item() == pytest.approx(
        softplus_reference(x.item()), rel=2e-6, abs=4e-7
    )


def test_softplus_scale_at_zero_is_the_papers_sigma_and_four_and_a_half_nats_a_dimension() -> None:
    log_var = softplus_log_var(torch.zeros(1, 256, dtype=torch.float64))
    sigma = math.log1p(math.exp(-5))
    torch.testing.assert_close((log_var / 2).exp(), torch.full_like(log_var, sigma), rtol=1e-13, atol=0)
    assert gaussian_kl(torch.zeros_like(log_var), log_var).item() == pytest.approx(1153, abs=0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_softplus_scale_is_continuous_where_it_switches_to_its_expansion(dtype: torch.dtype) -> None:
    at = torch.tensor(-10.0, dtype=dtype)
    around = torch.stack([torch.nextafter(at, at - 1), at, torch.nextafter(at, at + 1)]).requires_grad_()
    log_var = softplus_log_var(around, shift=0.0)
    (slope,) = torch.autograd.grad(log_var.sum(), around)
    jump = 1e-8 if dtype == torch.float64 else 4e-6  # the neglected exp(2x) is 2e-9; float32 has 1e-6 at -20
    assert (log_var.max() - log_var.min()).item() < jump
    torch.testing.assert_close(slope, torch.full_like(slope, 2 * (1 - math.exp(-10) / 2)), rtol=1e-6, atol=0)


# --- pairwise log-densities -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4,), (3, 2), (2, 2, 2)])
def test_pairwise_log_density_equals_sums_of_normals(shape: tuple[int, ...]) -> None:
    z, mean, log_var = randn(5, *shape, seed=1), randn(7, *shape, seed=2), randn(7, *shape, seed=3)
    reference = Normal(mean[None], (log_var / 2).exp()[None]).log_prob(z[:, None]).flatten(2).sum(2)
    found = pairwise_log_density(z, mean, log_var)
    assert found.shape == (5, 7)
    torch.testing.assert_close(found, reference, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4])
@pytest.mark.parametrize("log_var", [0.0, -7.0, -14.0])
def test_pairwise_log_density_is_exact_at_small_sigma_and_large_offsets(offset: float, log_var: float) -> None:
    sigma = math.exp(log_var / 2)
    mean = (offset + randn(9, 16, seed=1)).float()
    z = (mean.double() + sigma * randn(9, 16, seed=2)).float()
    scales = torch.full((9, 16), log_var)
    reference = Normal(mean.double()[None], (scales.double() / 2).exp()[None]).log_prob(z.double()[:, None]).sum(2)
    found = pairwise_log_density(z, mean, scales)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, reference, rtol=1e-12, atol=1e-6)


@pytest.mark.parametrize("log_var", [0.0, -7.0, -14.0])
@pytest.mark.parametrize("far", [[0], [0, 1, 2]])
def test_pairwise_log_density_is_exact_where_one_mean_is_far(log_var: float, far: list[int]) -> None:
    """Beside the definition with 50 digits, of the very float64 numbers.

    1e5 squared is 1e10, times the precision exp(14) = 1.2e6 is 1e16, where float64 has steps of 2: expanded squares
    lose the row's own nats.
    """
    mean, scales = randn(9, 4, seed=1), torch.full((9, 4), log_var).double()
    mean[far, 0] += 1e5
    z = mean + math.exp(log_var / 2) * randn(9, 4, seed=2)
    found = pairwise_log_density(z, mean, scales)
    with mpmath.workdps(50):
        half = (mpmath.mpf(log_var) + mpmath.log(2 * mpmath.pi)) / 2
        for i, row in enumerate(z.tolist()):
            for j, centre in enumerate(mean.tolist()):
                squares = sum((mpmath.mpf(a) - mpmath.mpf(b)) ** 2 for a, b in zip(row, centre, strict=True))
                expected = -squares * mpmath.exp(-mpmath.mpf(log_var)) / 2 - 4 * half
                assert found[i, j].item() == pytest.approx(float(expected), rel=1e-11, abs=1e-6), (i, j)


def test_square_distances_are_those_of_differences() -> None:
    """At 1e9 float64 has steps of 1e-7, so that 1e9 + .25 k are exact; expanded squares of 1e18 have steps of 128."""
    x = torch.cat([1e9 + 0.25 * torch.arange(6.0).double(), torch.arange(5.0).double()])[:, None]
    weights = 1 + torch.arange(11.0).double()[:, None]
    exact = (x - x.T).square()
    assert torch.equal(square_distances(x, x)[:6, :6], exact[:6, :6])
    torch.testing.assert_close(square_distances(x, x, weights), exact * weights.T, rtol=1e-11, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pairwise_log_density_is_float64_for_every_dtype(dtype: torch.dtype) -> None:
    z, mean, log_var = (randn(3, 2, seed=seed).to(dtype) for seed in range(3))
    found = pairwise_log_density(z, mean, log_var)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, pairwise_log_density(z.double(), mean.double(), log_var.double()), rtol=0, atol=0)


@given(n=st.integers(1, 6), m=st.integers(1, 6), k=st.integers(1, 5), seed=st.integers(0, 99))
def test_pairwise_log_density_does_not_change_when_everything_is_moved_or_permuted(n, m, k, seed) -> None:
    z, mean, log_var = randn(n, k, seed=seed), randn(m, k, seed=seed + 1), randn(m, k, seed=seed + 2)
    found = pairwise_log_density(z, mean, log_var)
    moved = pairwise_log_density(z + 3.0, mean + 3.0, log_var)
    torch.testing.assert_close(moved, found, rtol=1e-10, atol=1e-10)
    order = torch.randperm(m, generator=generator(seed))
    torch.testing.assert_close(pairwise_log_density(z, mean[order], log_var[order]), found[:, order])


@pytest.mark.parametrize(
    ("z", "mean", "log_var"), [((3, 2), (4, 3), (4, 3)), ((3, 2), (4, 2), (5, 2)), ((3, 2), (4, 2), (4, 1))]
)
def test_pairwise_log_density_refuses_shapes_that_do_not_fit(z, mean, log_var) -> None:
    with pytest.raises(ValueError, match="z, mean and log_var") as refused:
        pairwise_log_density(torch.zeros(z), torch.zeros(mean), torch.zeros(log_var))
    assert str(tuple(mean)) in str(refused.value)


# --- closed-form cases of information ---------------------------------------------------------------------------------


class LinearChannel:
    """``x ~ N(0, S)``, ``z = W x + b + noise``, with all informations in closed form."""

    S = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    W = torch.tensor([[0.6, 0.0], [0.3, 0.8]], dtype=torch.float64)
    b = torch.tensor([0.2, -0.1], dtype=torch.float64)
    noise = torch.tensor([0.5, 0.25], dtype=torch.float64)
    C = W @ S @ W.T + noise.diag()
    information = 0.5 * (C.logdet() - noise.log().sum())
    gap = 0.5 * (C.trace() + b.square().sum() - 2 - C.logdet())
    total_correlation = 0.5 * (C.diag().log().sum() - C.logdet())


def test_the_rate_of_the_linear_channel_by_exact_cubature() -> None:
    channel = LinearChannel
    root = torch.linalg.cholesky(channel.S)
    x = math.sqrt(2) * torch.cat([root.T, -root.T])  # mean over these four is exact for quadratics under N(0, S)
    mean = x @ channel.W.T + channel.b
    rate = gaussian_kl(mean, channel.noise.log().expand_as(mean)).mean()
    dimension_wise = gaussian_kl(channel.b[None], channel.C.diag().log()[None]).sum()
    assert rate.item() == pytest.approx(1.329721, abs=1e-6)
    assert channel.information.item() == pytest.approx(1.146550, abs=1e-6)
    assert channel.gap.item() == pytest.approx(0.183171, abs=1e-6)
    assert channel.total_correlation.item() == pytest.approx(0.127610, abs=1e-6)
    assert dimension_wise.item() == pytest.approx(0.055561, abs=1e-6)
    torch.testing.assert_close(rate, channel.information + channel.gap, rtol=1e-12, atol=0)
    torch.testing.assert_close(channel.gap, channel.total_correlation + dimension_wise, rtol=1e-12, atol=0)


def test_the_information_of_the_linear_channel_by_monte_carlo() -> None:
    channel, n, blocks = LinearChannel, 50, 400  # of each block of pairwise densities the diagonal is used
    x = randn(blocks * n, 2, seed=5) @ torch.linalg.cholesky(channel.S).T
    mean = x @ channel.W.T + channel.b
    log_var = channel.noise.log().expand_as(mean)
    z = mean + (log_var / 2).exp() * randn(blocks * n, 2, seed=6)
    parts = zip(z.split(n), mean.split(n), log_var.split(n), strict=True)
    own = torch.cat([pairwise_log_density(*part).diagonal() for part in parts])
    terms = own - MultivariateNormal(channel.b, channel.C).log_prob(z)
    standard_error = terms.std().item() / math.sqrt(len(terms))
    assert standard_error < 0.01
    assert terms.mean().item() == pytest.approx(channel.information.item(), abs=4 * standard_error)


# --- interpolation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 2, 2)])
def test_interpolation_ends_exactly_at_its_ends(mode, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    z1, z2 = (randn(*shape, seed=seed).to(dtype) for seed in (1, 2))
    for t, end in ((0, z1), (0.0, z1), (1, z2), (1.0, z2), (torch.tensor(0.0), z1), (torch.tensor(1.0), z2)):
        found = interpolate(z1, z2, t, mode)
        assert found.dtype == dtype
        assert torch.equal(found, end)


@given(t=st.floats(0, 1), seed=st.integers(0, 99))
def test_interpolation_is_its_formula(t: float, seed: int) -> None:
    z1, z2 = randn(3, 4, seed=seed), randn(3, 4, seed=seed + 1)
    torch.testing.assert_close(interpolate(z1, z2, t), (1 - t) * z1 + t * z2, rtol=1e-12, atol=1e-12)
    on_circle = math.cos(math.pi * t / 2) * z1 + math.sin(math.pi * t / 2) * z2
    torch.testing.assert_close(interpolate(z1, z2, t, "variance_preserving"), on_circle, rtol=1e-12, atol=1e-12)
    angle = torch.acos(torch.nn.functional.cosine_similarity(z1, z2, dim=1)).unsqueeze(1)
    along = (((1 - t) * angle).sin() * z1 + (t * angle).sin() * z2) / angle.sin()
    torch.testing.assert_close(interpolate(z1, z2, t, "slerp"), along, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("mode", "variance"), [("variance_preserving", (1.0, 1.0)), ("linear", (0.5, 0.625))])
def test_variance_between_two_draws_of_the_prior(mode, variance: tuple[float, float]) -> None:
    n = 200_000
    z1, z2 = randn(n, seed=1), randn(n, seed=2)
    for t, expected in zip((0.5, 0.25), variance, strict=True):
        found = interpolate(z1.unsqueeze(1), z2.unsqueeze(1), t, mode).var().item()
        standard_error = expected * math.sqrt(2 / (n - 1))
        assert found == pytest.approx(expected, abs=4 * standard_error)


@given(t=st.floats(0, 1), k=st.integers(2, 9), seed=st.integers(0, 99))
def test_slerp_of_unit_vectors_stays_on_the_sphere_and_moves_evenly(t: float, k: int, seed: int) -> None:
    z1, z2 = (torch.nn.functional.normalize(randn(3, k, seed=seed + end), dim=1) for end in (0, 100))
    between = interpolate(z1, z2, t, "slerp")
    torch.testing.assert_close(between.norm(dim=1), torch.ones(3, dtype=torch.float64), rtol=1e-8, atol=0)
    whole = 2 * torch.asin((z1 - z2).norm(dim=1) / 2)
    part = 2 * torch.asin((z1 - between).norm(dim=1) / 2)
    torch.testing.assert_close(part, t * whole, rtol=1e-6, atol=1e-7)


@given(st.floats(1e-12, 1e-2))
def test_slerp_of_a_tiny_angle_stays_on_the_sphere(angle: float) -> None:
    for dtype, tolerance in ((torch.float64, 1e-8), (torch.float32, 3e-7)):
        z1 = torch.tensor([[1.0, 0.0]], dtype=dtype)
        z2 = torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=dtype)
        half = interpolate(z1, z2, 0.5, "slerp")
        expected = torch.tensor([[math.cos(angle / 2), math.sin(angle / 2)]], dtype=dtype)
        torch.testing.assert_close(half, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("apart", [1e-2, 9e-5, 4e-5, 1e-5, 4e-6])
def test_slerp_of_nearly_opposite_codes_stays_on_the_circle(dtype: torch.dtype, apart: float) -> None:
    """From (1, 0) to (-1, d), by hand.

    The angle is w = pi - a with tan a = d. On the circle, t of the way lies at t w: (cos t w, sin t w), but for the
    norm of the end, sqrt(1 + d^2) instead of 1: with the weight sin(t w) / sin(a) this moves the point by d / 2.
    Halfway both weights are sin(w / 2) / sin(w), and (z1 + z2) / (2 sin(a / 2)) = (0, d / (2 sin(a / 2))).
    """
    z1, z2 = torch.tensor([[1.0, 0.0]], dtype=dtype), torch.tensor([[-1.0, apart]], dtype=dtype)
    d = z2[0, 1].item()
    a = math.atan(d)
    half = interpolate(z1, z2, 0.5, "slerp")[0]
    assert half.tolist() == pytest.approx([0, d / (2 * math.sin(a / 2))], rel=1e-6, abs=1e-6)
    for t in (0.25, 0.75, 0.9):
        at = interpolate(z1, z2, t, "slerp")[0].tolist()
        angle = t * (math.pi - a)
        assert at == pytest.approx([math.cos(angle), math.sin(angle)], abs=0.6 * d + 1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_slerp_is_finite_where_the_sine_vanishes(dtype: torch.dtype, t: float) -> None:
    z = randn(3, 6, seed=1).to(dtype)
    zero = torch.zeros_like(z)
    torch.testing.assert_close(interpolate(z, z, t, "slerp"), z)
    torch.testing.assert_close(interpolate(z, 2 * z, t, "slerp"), (1 + t) * z)
    assert interpolate(z, -z, t, "slerp").isfinite().all()
    assert interpolate(z, zero, t, "slerp").isfinite().all()
    assert interpolate(zero, z, t, "slerp").isfinite().all()
    assert torch.equal(interpolate(zero, zero, t, "slerp"), zero)


@pytest.mark.parametrize("mode", MODES)
def test_interpolation_broadcasts_over_steps_and_examples(mode) -> None:
    z1, z2 = randn(3, 4, seed=1), randn(3, 4, seed=2)
    steps = torch.linspace(0, 1, 5).double()
    path = interpolate(z1, z2, steps.reshape(5, 1, 1), mode)
    assert path.shape == (5, 3, 4)
    for at, t in zip(path, steps, strict=True):
        torch.testing.assert_close(at, interpolate(z1, z2, t.item(), mode), rtol=1e-14, atol=1e-14)
    rows = interpolate(z1, z2, steps[:3].unsqueeze(1), mode)
    for row, (a, b, t) in zip(rows, zip(z1, z2, steps[:3], strict=True), strict=True):
        torch.testing.assert_close(row, interpolate(a, b, t.item(), mode), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=30)
@given(seed=st.integers(0, 99), t=st.floats(0, 1))
def test_interpolation_is_symmetric_in_its_ends(mode, seed: int, t: float) -> None:
    z1, z2 = randn(2, 3, seed=seed), randn(2, 3, seed=seed + 1)
    backwards = interpolate(z2, z1, 1 - t, mode)
    torch.testing.assert_close(interpolate(z1, z2, t, mode), backwards, rtol=1e-9, atol=1e-9)


def test_interpolation_refuses_different_shapes_and_unknown_modes() -> None:
    with pytest.raises(ValueError, match=r"same shape; got \(2, 3\) and \(2, 4\)"):
        interpolate(torch.zeros(2, 3), torch.zeros(2, 4), 0.5)
    with pytest.raises(ValueError, match=r"mode must be .*'slerp'.*got 'cubic'"):
        interpolate(torch.zeros(2, 3), torch.zeros(2, 3), 0.5, "cubic")  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------- free bits and log-densities


@given(st.integers(1, 8), st.integers(1, 5), st.floats(0, 3))
def test_free_bits_are_the_papers_sum_over_dimensions(batch: int, width: int, threshold: float) -> None:
    kl = torch.rand(batch, width, dtype=torch.float64, generator=torch.Generator().manual_seed(batch)) * 3
    expected = kl.mean(0).clamp(min=threshold).sum()
    torch.testing.assert_close(free_bits_rate(kl, threshold).mean(), expected)


def test_free_bits_have_no_gradient_below_the_threshold() -> None:
    kl = torch.tensor([[0.1, 2.0], [0.3, 4.0]], requires_grad=True)
    free_bits_rate(kl, 0.5).sum().backward()
    assert kl.grad.tolist() == [[0, 1], [0, 1]]


def test_free_bits_of_spatial_codes_count_every_position() -> None:
    kl = torch.rand(4, 2, 3, 3)
    torch.testing.assert_close(free_bits_rate(kl, 9.0), torch.full((4,), 18 * 9.0))
    torch.testing.assert_close(free_bits_rate(kl, 0.0), kl.flatten(1).sum(1))


def test_log_density_is_that_of_torch() -> None:
    z, mean, log_var = torch.randn(3, 7, 4).unbind()
    expected = torch.distributions.Normal(mean, (0.5 * log_var).exp()).log_prob(z)
    torch.testing.assert_close(log_density(z, mean, log_var), expected)


def test_the_rate_is_the_mean_log_ratio() -> None:
    torch.manual_seed(0)
    mean, log_var = torch.randn(2, 1, 5)
    z = mean + (0.5 * log_var).exp() * torch.randn(100_000, 5)
    ratio = log_ratio(z, mean, log_var)
    assert ratio.shape == (100_000,)
    assert abs(ratio.mean() - gaussian_kl(mean, log_var)) < 4 * ratio.std() / 100_000**0.5
