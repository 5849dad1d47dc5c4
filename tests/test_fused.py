"""The fused operation equals the plain formulas in value, gradient and gradient of the gradient."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lit_bottleneck.code import gaussian_code
from lit_bottleneck.functional import bounded_log_var, softplus_log_var
from lit_bottleneck.fused import FusedCode, fused_code, plain_code

SCALES = [bounded_log_var, softplus_log_var]
OUTPUTS = ["z", "log_var", "kl", "rate"]


def moments(shape: tuple[int, ...] = (5, 6), spread: float = 3.0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return spread * torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_()


def noise_for(given: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(given.shape[0], given.shape[1] // 2, *given.shape[2:], generator=generator, dtype=given.dtype)


def is_fused(code_part: Tensor) -> bool:
    return type(code_part.grad_fn).__name__ == "FusedCodeBackward"


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", [(5, 6), (1, 2), (3, 4, 2, 5), (0, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sample", [True, False])
def test_values_and_gradients_are_those_of_the_plain_formulas(
    scale: Callable[[Tensor], Tensor], shape: tuple[int, ...], dtype: torch.dtype, sample: bool
) -> None:
    given = moments(shape, dtype=dtype).detach().requires_grad_()
    noise = noise_for(given) if sample else None
    fused, plain = fused_code(given, noise, scale), plain_code(given, noise, scale)
    assert is_fused(fused[1])
    for name, ours, expected in zip(OUTPUTS, fused, plain, strict=True):
        if expected is None:
            assert ours is None
            continue
        torch.testing.assert_close(ours, expected, msg=name)
        [gradient] = torch.autograd.grad(ours.tanh().sum(), given, retain_graph=True)
        [expected_gradient] = torch.autograd.grad(expected.tanh().sum(), given, retain_graph=True)
        torch.testing.assert_close(gradient, expected_gradient, msg=name)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("outputs", [(0,), (1,), (2,), (3,), (0, 3), (1, 2), (0, 1, 2, 3)])
def test_first_and_second_gradients_are_those_of_finite_differences(
    scale: Callable[[Tensor], Tensor], outputs: tuple[int, ...]
) -> None:
    given = moments((3, 4))
    noise = noise_for(given)

    def read(x: Tensor) -> Tensor:
        parts = FusedCode.apply(x, noise, scale, 1)
        return torch.cat([parts[number].flatten().square() for number in outputs])

    assert torch.autograd.gradcheck(read, [given])
    assert torch.autograd.gradgradcheck(read, [given])


@pytest.mark.parametrize("scale", SCALES)
def test_a_gradient_penalty_through_the_code_has_the_plain_gradient(scale: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    encoder, x = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 6)).double(), torch.randn(5, 4).double()
    noise = torch.randn(5, 3).double()
    gradients = []
    for compute in (fused_code, plain_code):
        inputs = x.clone().requires_grad_()
        z, _, _, rate = compute(encoder(inputs), noise, scale)
        [slope] = torch.autograd.grad((z.square().sum(1) + rate).sum(), inputs, create_graph=True)
        encoder.zero_grad()
        (slope.square().sum() + rate.mean()).backward()
        gradients.append([weight.grad.clone() for weight in encoder.parameters()])
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected)


@given(
    raw=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=6),
    mean=st.floats(-1e4, 1e4, width=32),
    scale=st.sampled_from(SCALES),
)
def test_extreme_moments_have_the_plain_values_and_finite_gradients(
    raw: list[float], mean: float, scale: Callable[[Tensor], Tensor]
) -> None:
    for dtype in (torch.float32, torch.float64):
        given = torch.tensor([[mean] * len(raw) + raw], dtype=dtype, requires_grad=True)
        noise = torch.ones(1, len(raw), dtype=dtype)
        fused, plain = fused_code(given, noise, scale), plain_code(given, noise, scale)
        [ours] = torch.autograd.grad(fused[0].sum() + fused[3].sum(), given)
        [expected] = torch.autograd.grad(plain[0].sum() + plain[3].sum(), given)
        assert all(part.isfinite().all() for part in (*fused, ours))
        tolerance = {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-4}
        torch.testing.assert_close(ours, expected, **tolerance)
        for mine, formula in zip(fused, plain, strict=True):
            torch.testing.assert_close(mine, formula, **tolerance)


@pytest.mark.parametrize("magnitude", [1e12, 1e20, 1e30, 3e38])
def test_huge_raw_scales_stay_within_the_bounds(magnitude: float) -> None:
    given = torch.tensor([[0.0, 0.0, magnitude, -magnitude]], requires_grad=True)
    _, log_var, _, rate = fused_code(given, None, bounded_log_var)
    torch.testing.assert_close(log_var, torch.tensor([[8.0, -14.0]]))
    rate.sum().backward()
    assert given.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_moments_have_their_gradient_in_half_precision(dtype: torch.dtype) -> None:
    given = moments(dtype=torch.float32).detach().to(dtype).requires_grad_()
    noise = torch.ones(5, 3)
    code = gaussian_code(given, sample=True, noise=noise)
    assert (code.z.dtype, code.rate.dtype) == (dtype, torch.float32)
    (code.z.float().sum() + code.rate.sum()).backward()
    wide = given.detach().float().requires_grad_()
    parts = plain_code(wide, noise, bounded_log_var)
    (parts[0].sum() + parts[3].sum()).backward()
    assert given.grad.dtype == dtype
    torch.testing.assert_close(given.grad.float(), wide.grad, rtol=2e-2, atol=2e-2)


def test_moments_need_not_be_contiguous() -> None:
    given = moments((6, 5)).detach().T.requires_grad_()
    assert not given.is_contiguous()
    for parts in zip(*(compute(given, None, bounded_log_var)[1:] for compute in (fused_code, plain_code)), strict=True):
        ours, expected = (torch.autograd.grad(part.sum(), given, retain_graph=True)[0] for part in parts)
        torch.testing.assert_close(ours, expected)


def test_other_scales_noise_with_gradients_and_no_grad_use_the_plain_formulas() -> None:
    given = moments()
    noise = noise_for(given)
    assert not is_fused(fused_code(given, noise, torch.tanh)[1])
    learned = noise.clone().requires_grad_()
    z, *_ = fused_code(given, learned, bounded_log_var)
    assert torch.autograd.grad(z.sum(), learned)[0].abs().sum() > 0
    with torch.no_grad():
        assert fused_code(given, noise, bounded_log_var)[1].grad_fn is None


def test_function_transforms_and_forward_gradients_work() -> None:
    given = moments((4, 6)).detach()

    def rate(row: Tensor) -> Tensor:
        return gaussian_code(row[None], sample=False).rate[0]

    of_each = torch.func.vmap(torch.func.grad(rate))(given)
    expected = given.clone().requires_grad_()
    gaussian_code(expected, sample=False).rate.sum().backward()
    torch.testing.assert_close(of_each, expected.grad)
    _, along = torch.func.jvp(rate, (given[0],), (torch.ones(6, dtype=torch.float64),))
    torch.testing.assert_close(along, of_each[0].sum())
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(given.clone().requires_grad_(), torch.ones_like(given))
        tangent = torch.autograd.forward_ad.unpack_dual(gaussian_code(dual, sample=False).rate).tangent
    torch.testing.assert_close(tangent, of_each.sum(1))


def test_batched_gradients_are_the_single_ones() -> None:
    given = moments()
    rate = fused_code(given, noise_for(given), bounded_log_var)[3]
    directions = torch.randn(3, len(rate), dtype=torch.float64)
    [batched] = torch.autograd.grad(rate, given, directions, is_grads_batched=True, retain_graph=True)
    for direction, gradient in zip(directions, batched, strict=True):
        torch.testing.assert_close(gradient, torch.autograd.grad(rate, given, direction, retain_graph=True)[0])


def test_backward_frees_the_graph_of_the_code() -> None:
    given = moments()
    code = gaussian_code(given, sample=True)
    code.rate.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        code.rate.sum().backward()
