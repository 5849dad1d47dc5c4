"""GAN losses and gradient penalties against numpy, closed forms and finite differences."""

import math
import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from lit_bottleneck.adversarial import R1, WGANGP, GradientPenalty, adversarial_loss, input_gradient, penalty_from
from lit_bottleneck.hparams import to_config

PENALTIES = [R1(3.0), WGANGP(3.0)]
logits = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8)
rows = st.lists(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3), min_size=1, max_size=5)


def doubles(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- losses ---------------------------------------------------------------------------------------------------------

IN_NUMPY = {
    ("non_saturating", "real"): lambda x: np.logaddexp(0, -x),
    ("non_saturating", "generated"): lambda x: np.logaddexp(0, x),
    ("non_saturating", "generator"): lambda x: np.logaddexp(0, -x),
    ("hinge", "real"): lambda x: np.maximum(0, 1 - x),
    ("hinge", "generated"): lambda x: np.maximum(0, 1 + x),
    ("hinge", "generator"): lambda x: -x,
    ("wasserstein", "real"): lambda x: -x,
    ("wasserstein", "generated"): lambda x: x,
    ("wasserstein", "generator"): lambda x: -x,
}


@pytest.mark.parametrize(("name", "part"), IN_NUMPY)
@given(logits)
def test_a_loss_is_its_formula_for_each_logit(name: Any, part: str, values: list[float]) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    found = getattr(adversarial_loss(name), part)(x)
    assert found.shape == x.shape
    np.testing.assert_allclose(found.numpy(), IN_NUMPY[name, part](x.numpy()), rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize(("name", "part"), IN_NUMPY)
@pytest.mark.parametrize("logit", [0.0, -1.0, 1.0, 88.0, -88.0, 104.0, -104.0, 1e30, -1e30, 3e38, -3e38])
def test_extreme_logits_have_losses_and_slopes_of_at_most_one(name: Any, part: str, logit: float) -> None:
    x = torch.tensor([logit], requires_grad=True)
    loss = getattr(adversarial_loss(name), part)(x)
    [slope] = torch.autograd.grad(loss.sum(), x)
    assert loss.isfinite().all()
    assert loss.item() == pytest.approx(float(IN_NUMPY[name, part](np.float64(logit))), rel=1e-6, abs=1e-8)
    assert abs(slope.item()) <= 1
    assert (slope.item() <= 0) == (part != "generated") or slope.item() == 0  # real examples need high logits


def test_the_generators_loss_does_not_saturate_for_a_confident_discriminator() -> None:
    x = torch.tensor([-50.0], requires_grad=True)
    adversarial_loss("non_saturating").generator(x).sum().backward()
    assert x.grad.item() == pytest.approx(-1)


def test_an_unknown_loss_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="loss must be one of 'non_saturating', 'hinge', 'wasserstein'; got 'lsgan'"):
        adversarial_loss("lsgan")  # type: ignore[arg-type]


# --- the input gradient ---------------------------------------------------------------------------------------------


def critic() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1), nn.Flatten(0)).double()


def test_the_input_gradient_of_a_quadratic_critic_is_its_matrix_times_the_input() -> None:
    A, x = doubles(5, 5), doubles(4, 5, seed=1).requires_grad_()
    quadratic = 0.5 * torch.einsum("bi,ij,bj->b", x, A, x)
    torch.testing.assert_close(input_gradient(quadratic, x, False), x.detach() @ (A + A.T) / 2)


def test_each_example_has_its_own_input_gradient() -> None:
    network, x = critic(), doubles(4, 1, 2, 3).requires_grad_()
    together = input_gradient(network(x), x, False)
    assert together.shape == (4, 6)
    for row, alone in zip(together, x, strict=True):
        only = alone.detach()[None].requires_grad_()
        torch.testing.assert_close(input_gradient(network(only), only, False)[0], row)


def test_the_input_gradient_has_a_graph_on_request_and_the_logits_keep_theirs() -> None:
    network, x = critic(), doubles(4, 6).requires_grad_()
    found = network(x)
    assert not input_gradient(found, x, False).requires_grad
    assert input_gradient(found, x, True).requires_grad
    assert x.grad is None
    found.sum().backward()
    assert all(weight.grad is not None for weight in network.parameters())


# --- penalties ------------------------------------------------------------------------------------------------------


@given(rows, st.floats(1e-3, 1e3))
def test_a_penalty_is_its_formula_in_numpy(values: list[list[float]], weight: float) -> None:
    gradient = np.array(values)
    squares = (gradient**2).sum(1)
    for penalty, expected in ((R1(weight), squares.mean()), (WGANGP(weight), ((np.sqrt(squares) - 1) ** 2).mean())):
        found = penalty.forward(torch.from_numpy(gradient))
        assert found.shape == ()
        assert found.item() == pytest.approx(weight * expected, rel=1e-9)


def test_penalties_of_a_quadratic_critic_and_their_gradients_are_the_closed_forms() -> None:
    """The critic ``x' A x / 2`` has the gradient ``S x`` with ``S`` the symmetric part of A."""
    A = doubles(5, 5).requires_grad_()
    S = ((A + A.T) / 2).detach()
    for penalty in PENALTIES:
        x = penalty.points(doubles(4, 5, seed=1).requires_grad_(), doubles(4, 5, seed=2))
        found = penalty.forward(input_gradient(0.5 * torch.einsum("bi,ij,bj->b", x, A, x), x, True))
        gradients = x.detach() @ S
        norms = gradients.norm(dim=1)
        if isinstance(penalty, R1):
            value, by_gradient = 3 * (norms**2).mean(), 6 * gradients / 4
        else:
            value, by_gradient = 3 * ((norms - 1) ** 2).mean(), 6 * (1 - 1 / norms)[:, None] * gradients / 4
        torch.testing.assert_close(found, value)
        outer = by_gradient.T @ x.detach()
        torch.testing.assert_close(torch.autograd.grad(found, A)[0], (outer + outer.T) / 2)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("kind", ["smooth", "piecewise_linear"])
def test_the_gradient_of_a_penalty_by_the_weights_is_that_of_finite_differences(
    penalty: GradientPenalty, kind: str
) -> None:
    network, x = critic(), doubles(3, 6, seed=1).requires_grad_()
    if kind == "piecewise_linear":
        network[2] = nn.LeakyReLU(0.2)
    names, values = zip(*network.named_parameters(), strict=True)

    def price(*weights: Tensor) -> Tensor:
        found = functional_call(network, dict(zip(names, weights, strict=True)), (x,))
        return penalty.forward(input_gradient(found, x, True)) + 0 * sum(weight.sum() for weight in weights)

    assert torch.autograd.gradcheck(price, values)


@pytest.mark.parametrize(("penalty", "value"), [(R1(3.0), 0.0), (WGANGP(3.0), 3.0)])
def test_a_zero_gradient_has_a_finite_penalty_and_slope(penalty: GradientPenalty, value: float) -> None:
    weight = torch.zeros(5, requires_grad=True)
    x = penalty.points(torch.randn(4, 5, requires_grad=True), torch.randn(4, 5))
    found = penalty.forward(input_gradient(x @ weight, x, True))
    assert found.item() == value
    [slope] = torch.autograd.grad(found, weight)
    assert not slope.any()


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-30, 1e-22, 1e-10, 1e10, 1e17])
def test_tiny_and_huge_gradients_have_finite_penalties_and_slopes(penalty: GradientPenalty, size: float) -> None:
    gradient = torch.full((2, 3), size, requires_grad=True)
    found = penalty.forward(gradient)
    [slope] = torch.autograd.grad(found, gradient)
    assert found.isfinite()
    assert slope.isfinite().all()


# --- the points of a penalty ------------------------------------------------------------------------------------------


def test_the_points_of_r1_are_the_real_examples_themselves() -> None:
    real = torch.randn(4, 5)
    assert R1().points(real, torch.randn(3, 5)) is real


@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from([(2,), (1, 4, 4), (3, 2, 5)]), st.integers(0, 99))
def test_the_points_of_wgan_gp_lie_on_the_lines_between_pairs(
    real_rows: int, generated_rows: int, shape: tuple[int, ...], seed: int
) -> None:
    torch.manual_seed(seed)
    pairs = min(real_rows, generated_rows)
    real = doubles(real_rows, *shape, seed=seed)
    generated = doubles(generated_rows, *shape, seed=seed + 1)
    points = WGANGP().points(real, generated)
    assert points.shape == (pairs, *shape)
    assert points.dtype == real.dtype
    shares = (points.detach() - real[:pairs]) / (generated[:pairs] - real[:pairs])
    shares = shares.flatten(1)
    torch.testing.assert_close(shares, shares[:, :1].expand_as(shares), rtol=1e-6, atol=1e-6)  # on a line
    assert shares.min() > -1e-9
    assert shares.max() < 1 + 1e-9
    assert len(shares[:, 0].unique()) == pairs  # each example has its own place on its line


def test_the_points_of_wgan_gp_are_uniform_on_their_line() -> None:
    torch.manual_seed(0)
    count = 4000
    places = WGANGP().points(torch.zeros(count, 1), torch.ones(count, 1)).detach().flatten().sort().values
    assert (places - torch.linspace(0, 1, count)).abs().max() < 1.63 / count**0.5  # Kolmogorov-Smirnov at 1%


def test_the_points_of_wgan_gp_have_no_graph_to_their_ends() -> None:
    real, generated = torch.randn(4, 5, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    points = WGANGP().points(real, 2 * generated)
    assert points.is_leaf
    assert points.requires_grad
    points.square().sum().backward()
    assert real.grad is None
    assert generated.grad is None


# --- from a model's argument ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [None, 0, 0.0, -0.0])
def test_zero_and_none_mean_no_penalty(penalty: float | None) -> None:
    assert penalty_from(penalty) is None


@pytest.mark.parametrize("number", [1, 0.5, 10.0, 1e-12, Fraction(1, 4), np.float64(2.5), np.float32(2.5)])
def test_a_number_is_the_weight_of_r1(number: float) -> None:
    penalty = penalty_from(number)
    assert type(penalty) is R1
    assert penalty.weight == float(number)
    assert type(penalty.weight) is float


class Lipschitz(R1):
    """A user's penalty, of norms above one only."""

    def forward(self, gradient: Tensor) -> Tensor:
        return self.weight * (gradient.norm(dim=1) - 1).relu().square().mean()


@pytest.mark.parametrize("penalty", [R1(), R1(0.5), WGANGP(), WGANGP(weight=2.0), Lipschitz(4.0)])
def test_a_configuration_rebuilds_the_penalty(penalty: GradientPenalty) -> None:
    assert penalty_from(penalty) is penalty
    again = penalty_from(to_config(penalty))
    assert type(again) is type(penalty)
    assert vars(again) == vars(penalty)


def test_a_configuration_names_class_and_arguments() -> None:
    penalty = penalty_from({"class_path": "lit_bottleneck.adversarial.WGANGP", "init_args": {"weight": 2.0}})
    assert (type(penalty), penalty.weight) == (WGANGP, 2.0)
    default = penalty_from({"class_path": "lit_bottleneck.adversarial.R1"})
    assert (type(default), default.weight) == (R1, 10.0)


@pytest.mark.parametrize("make", [R1, WGANGP])
@pytest.mark.parametrize("weight", [-1.0, -1e-9, math.nan, math.inf, -math.inf, 0, 0.0, "1", None])
def test_the_weight_of_a_penalty_must_be_finite_and_above_zero(make: Any, weight: Any) -> None:
    with pytest.raises(ValueError, match=rf"weight of gradient_penalty must be .* above 0; got {weight!r}$"):
        make(weight)


@pytest.mark.parametrize("value", [True, False, "r1", [1.0], (1.0,), 1j, R1])
def test_other_types_are_refused(value: Any) -> None:
    words = re.escape(f"gradient_penalty must be a number, a GradientPenalty or None; got {value!r}") + "$"
    with pytest.raises(ValueError, match=words):
        penalty_from(value)


@pytest.mark.parametrize(
    "path", ["os.system", "R1", "lit_bottleneck.adversarial.GradientPenalty", "lit_bottleneck.objectives.ELBO", None]
)
def test_a_configuration_of_another_class_is_refused(path: str | None) -> None:
    words = re.escape(f"gradient_penalty has the class_path {path!r}, which is no imported subclass of GradientPenalty")
    with pytest.raises(ValueError, match=words):
        penalty_from({} if path is None else {"class_path": path})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
def test_the_points_of_wgan_gp_have_the_dtype_of_the_real_examples(dtype: torch.dtype) -> None:
    assert WGANGP().points(torch.randn(3, 4), torch.randn(3, 4).to(dtype)).dtype == torch.float32


def test_squares_of_gradients_in_half_precision_do_not_overflow() -> None:
    x = torch.ones(2, 4, dtype=torch.half, requires_grad=True)
    gradient = input_gradient((200 * x.float()).sum(1), x, True)
    assert R1(10.0).forward(gradient).item() == 1_600_000
