"""Facts about the code: its parts, draws, rate, precision and errors."""

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.utils._pytree import tree_flatten, tree_unflatten

from lit_bottleneck.code import Code, check_scale, gaussian_code
from lit_bottleneck.functional import bounded_log_var, gaussian_kl, softplus_log_var

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def moments_of(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 5), (2, 4, 3, 3)])
@pytest.mark.parametrize(("name", "scale"), [("bounded", bounded_log_var), ("softplus", softplus_log_var)])
def test_mean_and_scale_are_the_two_halves_of_the_moments(shape, name, scale) -> None:
    moments = moments_of(*shape, dtype=torch.float64)
    code = gaussian_code(moments, sample=False, scale=name)
    k = shape[1] // 2
    mean, log_var = moments[:, :k], scale(moments[:, k:])
    assert torch.equal(code.mean, mean)
    assert torch.equal(code.z, mean)
    assert torch.equal(code.log_var, log_var)
    reference = kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(torch.zeros_like(mean), 1.0))
    torch.testing.assert_close(code.kl, reference, rtol=1e-12, atol=1e-12)
    assert code.rate.shape == shape[:1]
    torch.testing.assert_close(code.rate, reference.flatten(1).sum(1), rtol=1e-12, atol=1e-12)


def test_the_scale_may_be_a_function() -> None:
    moments = moments_of(3, 4, dtype=torch.float64)
    code = gaussian_code(moments, sample=False, scale=lambda raw: 0 * raw)
    torch.testing.assert_close(code.rate, moments[:, :2].square().sum(1) / 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_code_is_at_least_float32_and_its_draws_have_the_dtype_of_the_moments(
    dtype: torch.dtype, sample: bool, deterministic: bool
) -> None:
    code = gaussian_code(moments_of(3, 8, dtype=dtype), sample, deterministic=deterministic)
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    assert code.z.dtype == dtype
    assert {code.mean.dtype, code.log_var.dtype, code.kl.dtype, code.rate.dtype} == {exact}
    assert code.sample(2).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_moments_have_the_rate_of_the_same_numbers_in_float64(dtype: torch.dtype) -> None:
    moments = 5 * moments_of(6, 64, dtype=dtype)
    code, exact = (gaussian_code(m, sample=False) for m in (moments, moments.double()))
    torch.testing.assert_close(code.rate.double(), exact.rate, rtol=1e-5, atol=0)


def test_autocast_does_not_change_the_rate() -> None:
    encoder, x = nn.Linear(8, 16), moments_of(5, 8, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        moments = encoder(x)
        code = gaussian_code(moments, sample=True)
        in_float64 = gaussian_code(moments.double(), sample=True)
    assert moments.dtype == code.z.dtype == torch.bfloat16
    assert code.rate.dtype == code.kl.dtype == code.log_var.dtype == torch.float32
    assert in_float64.rate.dtype == in_float64.z.dtype == torch.float64
    torch.testing.assert_close(code.rate, gaussian_code(moments, sample=False).rate, rtol=0, atol=0)
    torch.testing.assert_close(code.rate.double(), in_float64.rate, rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", [(3, 8), (2, 4, 3, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_given_noise_is_scaled_and_added_to_the_mean(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    moments = moments_of(*shape, dtype=dtype)
    noise = moments_of(shape[0], shape[1] // 2, *shape[2:], seed=1, dtype=dtype)
    code = gaussian_code(moments, sample=True, noise=noise)
    shift = torch.exp(0.5 * code.log_var) * noise  # the sum may be fused with the product: one rounding less
    rounding = torch.finfo(dtype).eps * (code.mean.abs() + 2 * shift.abs())
    assert ((code.z - (code.mean + shift)).abs() <= rounding).all()
    nothing = gaussian_code(moments, sample=True, noise=torch.zeros_like(noise))
    assert torch.equal(nothing.z, nothing.mean)


def test_drawn_noise_follows_torchs_generator_and_differs_between_draws() -> None:
    moments = moments_of(3, 8)
    torch.manual_seed(1)
    noise = torch.randn(3, 4)
    torch.manual_seed(1)
    first, second = (gaussian_code(moments, sample=True).z for _ in range(2))
    assert torch.equal(first, gaussian_code(moments, sample=True, noise=noise).z)
    assert not torch.equal(first, second)


def test_samples_have_the_moments_of_the_code() -> None:
    n = 20_000
    torch.manual_seed(0)
    code = gaussian_code(moments_of(2, 6, dtype=torch.float64), sample=False)
    samples = code.sample(n)
    assert samples.shape == (n, 2, 3)
    sigma = (code.log_var / 2).exp()
    assert ((samples.mean(0) - code.mean).abs() < 4.5 * sigma / n**0.5).all()
    assert ((samples.var(0) / sigma.square() - 1).abs() < 4.5 * (2 / n) ** 0.5).all()
    assert gaussian_code(moments_of(2, 6, 4, 4), sample=False).sample(5).shape == (5, 2, 3, 4, 4)


def test_gradients_flow_to_mean_and_scale_of_the_draw() -> None:
    moments = moments_of(3, 4, dtype=torch.float64).requires_grad_()
    noise = moments_of(3, 2, seed=1, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda m: gaussian_code(m, True, noise).z, moments)
    assert torch.autograd.gradcheck(lambda m: gaussian_code(m, True, noise).rate, moments)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sample", [False, True])
def test_a_deterministic_code_is_its_mean_with_a_rate_of_zero(dtype: torch.dtype, sample: bool) -> None:
    moments = moments_of(3, 8, 2, dtype=dtype).requires_grad_()
    code = gaussian_code(moments, sample, deterministic=True)
    assert torch.equal(code.z, moments[:, :4])
    assert torch.equal(code.rate, torch.zeros(3))
    assert torch.equal(code.kl, torch.zeros(3, 4, 2))
    assert (code.log_var == -torch.inf).all()
    assert torch.equal(code.sample(2), code.z.expand(2, -1, -1, -1))
    (gradient,) = torch.autograd.grad((code.z.sum() + code.rate.sum()), moments)
    assert torch.equal(gradient, torch.cat([torch.ones(3, 4, 2), torch.zeros(3, 4, 2)], 1).to(dtype))


def test_a_code_is_a_collection_of_tensors() -> None:
    code = gaussian_code(torch.randn(5, 4), sample=True)
    halved = apply_to_collection(code, Tensor, lambda field: field / 2)
    leaves, spec = tree_flatten(code)
    assert isinstance(halved, Code)
    assert torch.equal(halved.kl, code.kl / 2)
    assert tree_unflatten(leaves, spec).rate is code.rate
    assert torch.equal(pickle.loads(pickle.dumps(code)).z, code.z)


def test_rows_casts_and_a_code_without_a_graph() -> None:
    moments = torch.randn(5, 4, 3, requires_grad=True)
    code = gaussian_code(moments, sample=True)
    rows = torch.tensor([3, 0])
    for index in (slice(1, 3), rows, 2, rows.new_tensor([True, False, True, False, False], dtype=torch.bool)):
        part = code[index]
        assert isinstance(part, Code)
        for field, whole in zip(part, code, strict=True):
            assert torch.equal(field, whole[index])
    assert code[:2].sample(7).shape == (7, 2, 2, 3)
    assert code.to(torch.float64).rate.dtype == code.to("cpu", torch.float64).z.dtype == torch.float64
    assert not any(field.requires_grad for field in code.detach())
    assert code.rate.requires_grad


@pytest.mark.parametrize("scale", ["bounded", "softplus", "exp"])
@pytest.mark.parametrize("dim", [2, -1, -2, 1])
def test_a_code_along_another_dimension_is_that_of_the_moved_moments(scale: Any, dim: int) -> None:
    moments = torch.randn(3, 8, 6, requires_grad=True)
    noise = torch.randn_like(moments.chunk(2, dim)[0])
    code = gaussian_code(moments, True, noise, scale, dim=dim)
    moved = gaussian_code(moments.movedim(dim, 1), True, noise.movedim(dim, 1), scale)
    for field, other in zip(code, moved, strict=True):
        torch.testing.assert_close(field.movedim(dim, 1) if field.dim() > 1 else field, other)
    gradients = [torch.autograd.grad(each.z.square().sum() + each.rate.sum(), moments)[0] for each in (code, moved)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64])
def test_masked_positions_cost_nothing(dtype: torch.dtype) -> None:
    moments, lengths = torch.randn(4, 6, 10, requires_grad=True), torch.tensor([6, 1, 3, 0])
    mask = torch.arange(6) < lengths[:, None]
    code, whole = gaussian_code(moments, False, dim=-1, mask=mask.to(dtype)), gaussian_code(moments, False, dim=-1)
    per_position = Normal(whole.mean, (whole.log_var / 2).exp())
    kl = kl_divergence(per_position, Normal(torch.zeros(()), torch.ones(()))).sum(-1)
    expected = torch.stack([row[:length].sum() for row, length in zip(kl, lengths, strict=True)])
    torch.testing.assert_close(code.rate, expected)
    assert torch.equal(code.z, whole.z)
    [gradient] = torch.autograd.grad(code.rate.sum(), moments)
    assert gradient[~mask].abs().max() == 0
    spoiled = moments.detach().masked_fill(~mask[..., None], torch.nan).requires_grad_()
    rate = gaussian_code(spoiled, False, dim=-1, mask=mask).rate
    torch.testing.assert_close(rate, expected)
    assert torch.equal(torch.autograd.grad(rate.sum(), spoiled)[0], gradient)
    assert gradient[mask].abs().min() > 0


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.ones(4, 5), r"shape .*\(4, 6\); got \(4, 5\)"),
        (torch.ones(4, 6, 1), r"shape .*\(4, 6\); got \(4, 6, 1\)"),
        (torch.ones(4, 6), "true or 1.*float32"),
        (torch.zeros(4, 6, dtype=torch.bool), "leaves no position"),
    ],
)
def test_masks_that_do_not_fit_are_refused(mask: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        gaussian_code(torch.randn(4, 6, 10), False, dim=-1, mask=mask)


@pytest.mark.parametrize("dim", [0, 3, -3, -4])
def test_a_dimension_out_of_range_is_refused(dim: int) -> None:
    with pytest.raises(ValueError, match=rf"dim={dim} and the shape \(4, 6, 10\)"):
        gaussian_code(torch.randn(4, 6, 10), False, dim=dim)


@pytest.mark.parametrize("shape", [(4,), (2, 5), (2, 3, 4)])
def test_moments_that_cannot_be_halved_are_refused_by_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"2 \* latent_dim") as refused:
        gaussian_code(torch.zeros(shape), sample=False)
    assert str(tuple(shape)) in str(refused.value)


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda: gaussian_code(torch.zeros(2, 6), sample=True, noise=torch.zeros(3)), r"noise.*\(2, 3\).*\(3,\)"),
        (lambda: gaussian_code(torch.zeros(2, 4), sample=False).sample(0), "n must be at least 1; got 0"),
        (lambda: gaussian_code(torch.zeros(2, 4), sample=False).sample(-1), "n must be at least 1; got -1"),
        (lambda: check_scale("sigmoid"), r"scale must be one of 'bounded', 'softplus'.*got 'sigmoid'"),
    ],
)
def test_other_noise_sample_sizes_and_scales_are_refused(use: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        use()
    assert (check_scale("softplus"), check_scale(torch.tanh)) == ("softplus", torch.tanh)


@pytest.mark.parametrize("scale", ["bounded", "softplus"])
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=40)
@given(data=st.data())
def test_values_and_gradients_are_finite_for_moments_up_to_ten_thousand(scale, dtype, data) -> None:
    batch, k = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    spatial = data.draw(st.sampled_from([(), (2,), (1, 2)]))
    size = batch * 2 * k * torch.Size(spatial).numel()
    numbers = data.draw(st.lists(st.floats(-1e4, 1e4, width=32), min_size=size, max_size=size))
    leaf = torch.tensor(numbers).reshape(batch, 2 * k, *spatial).requires_grad_()
    moments = leaf.to(dtype)
    noise = torch.linspace(-3, 3, size // 2).reshape(batch, k, *spatial)
    code = gaussian_code(moments, sample=True, noise=noise, scale=scale)
    assert code.rate.shape == (batch,)
    finite = (code.mean, code.kl, code.rate)
    assert all(value.isfinite().all() for value in finite)
    torch.testing.assert_close(code.rate, gaussian_kl(code.mean, code.log_var))
    (gradient,) = torch.autograd.grad(code.rate.sum(), leaf, retain_graph=True)
    assert gradient.isfinite().all()
    if scale == "bounded":
        assert code.z.isfinite().all()
        (gradient,) = torch.autograd.grad(code.z.float().sum(), leaf)
        assert gradient.isfinite().all()


@given(batch=st.integers(0, 4), k=st.integers(1, 4), spatial=st.lists(st.integers(1, 3), max_size=2))
def test_shapes(batch: int, k: int, spatial: list[int]) -> None:
    code = gaussian_code(torch.zeros(batch, 2 * k, *spatial), sample=True)
    assert code.z.shape == code.mean.shape == code.log_var.shape == code.kl.shape == (batch, k, *spatial)
    assert torch.equal(code.rate, torch.zeros(batch))
    assert code.sample(3).shape == (3, batch, k, *spatial)
