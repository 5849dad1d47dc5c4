"""Outputs of a linear decoder at many draws: the same distribution, and when they are not drawn."""

import math

import pytest
import torch
from torch import Tensor, nn

from lit_bottleneck import VIBClassifier, VIBRegressor
from lit_bottleneck.code import Code, gaussian_code
from lit_bottleneck.models.draws import decode_draws
from lit_bottleneck.networks import MLP
from tests.models.runs import batches
from tests.quiet import trainer

WIDTH, OUTPUTS, MANY = 32, 5, 4096 // 32


def code_of(rows: int = 3, width: int = WIDTH, dtype: torch.dtype = torch.float32) -> Code:
    moments = torch.randn(rows, 2 * width, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return gaussian_code(moments, sample=False)


def decoder_of(outputs: int = OUTPUTS) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(WIDTH, outputs)


@torch.no_grad()
def drawn(decoder: nn.Module, code: Code, n: int = MANY, seed: int = 2) -> Tensor:
    torch.manual_seed(seed)
    return decode_draws(decoder, code, n)


@torch.no_grad()
def by_draws_of_the_code(decoder: nn.Module, code: Code, n: int = MANY, seed: int = 2) -> Tensor:
    torch.manual_seed(seed)
    outputs: Tensor = decoder(code.sample(n).flatten(0, 1))
    return outputs


def numbers_drawn(decoder: nn.Module, code: Code, n: int = MANY) -> int:
    """Return how many numbers of the generator a call takes: outputs and codes differ in it."""
    drawn(decoder, code, n)
    [after] = torch.rand(1, dtype=torch.float64).tolist()
    for count in (n * len(code.mean) * OUTPUTS, n * len(code.mean) * WIDTH):
        torch.manual_seed(2)
        torch.randn(count)
        if torch.rand(1, dtype=torch.float64).item() == after:
            return count
    return -1


@pytest.mark.parametrize("wrapped", [False, True])
def test_outputs_have_the_mean_and_the_covariance_of_the_layer(wrapped: bool) -> None:
    layer, code, n = decoder_of(), code_of(), 40_000
    decoder = nn.Sequential(nn.Flatten(), layer) if wrapped else layer
    outputs = drawn(decoder, code, n).unflatten(0, (n, len(code.mean))).double()
    mean = (code.mean @ layer.weight.T + layer.bias).double()
    covariance = ((layer.weight * code.log_var.exp()[:, None]) @ layer.weight.T).double()
    assert numbers_drawn(decoder, code) == MANY * 3 * OUTPUTS
    deviation = outputs - outputs.mean(0)
    found = torch.einsum("nbi,nbj->bij", deviation, deviation) / (n - 1)
    variances = covariance.diagonal(dim1=1, dim2=2)
    assert ((outputs.mean(0) - mean).abs() < 5 * (variances / n).sqrt()).all()
    # The variance of an element of the sample covariance is (C_ii C_jj + C_ij^2) / n.
    error = ((variances[:, :, None] * variances[:, None] + covariance.square()) / n).sqrt()
    assert ((found - covariance).abs() < 5 * error).all()


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_a_singular_covariance_moves_outputs_only_in_its_range(rank: int) -> None:
    layer, code = decoder_of(), code_of()
    with torch.no_grad():
        weight = torch.randn(OUTPUTS, rank) @ torch.randn(rank, WIDTH)
        layer.weight.copy_(weight)
        away = drawn(layer, code).unflatten(0, (MANY, 3)) - layer(code.mean)
    outside = torch.linalg.svd(weight).U[:, rank:]
    assert away.isfinite().all()
    assert (away @ outside).abs().max() < 1e-5 * max(1, rank) * weight.abs().max().clamp(min=1) * math.sqrt(WIDTH)
    assert bool(away.abs().max() > 0.1) == bool(rank)


def test_a_deterministic_code_gives_the_outputs_of_the_mean() -> None:
    layer = decoder_of()
    code = gaussian_code(torch.randn(3, 2 * WIDTH), sample=False, deterministic=True)
    with torch.no_grad():
        torch.testing.assert_close(drawn(layer, code), layer(code.mean).repeat(MANY, 1), rtol=0, atol=0)


@pytest.mark.parametrize("rows", [0, 1])
def test_the_shape_is_that_of_draws_for_no_examples_and_for_one(rows: int) -> None:
    assert drawn(decoder_of(), code_of(rows)).shape == (MANY * rows, OUTPUTS)


def test_a_double_code_gives_doubles() -> None:
    assert drawn(decoder_of().double(), code_of(dtype=torch.float64)).dtype == torch.float64


class Clamped(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clamp(-1, 1)


class Half(nn.Sequential):
    def forward(self, z: Tensor) -> Tensor:  # type: ignore[override]
        return torch.relu(super().forward(z[:, : WIDTH // 2]))


def clamped_by_hook(before: bool) -> nn.Module:
    layer = decoder_of()
    if before:
        layer.register_forward_pre_hook(lambda module, arguments: (arguments[0].clamp(-4, 4),))
    else:
        layer.register_forward_hook(lambda module, arguments, output: output.clamp(-9, 9))  # which no mean reaches
    return layer


@pytest.mark.parametrize(
    "decoder",
    [
        clamped_by_hook(before=False),
        clamped_by_hook(before=True),
        Clamped(WIDTH, OUTPUTS),
        Half(nn.Linear(WIDTH // 2, OUTPUTS)),
        nn.Sequential(nn.Linear(WIDTH, OUTPUTS), nn.Tanh()),
        MLP(WIDTH, [8], OUTPUTS),
        nn.Linear(WIDTH, 12),
        nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, OUTPUTS)),
        nn.utils.spectral_norm(nn.Linear(WIDTH, OUTPUTS)).eval(),
    ],
    ids=[
        "hook",
        "hook before",
        "subclass",
        "sequential of its own",
        "tanh",
        "hidden layer",
        "144 > 128 draws",
        "parametrised",
        "normed by a hook",
    ],
)
def test_any_other_decoder_decodes_draws_of_the_code(decoder: nn.Module) -> None:
    assert torch.equal(drawn(decoder, code_of()), by_draws_of_the_code(decoder, code_of()))


def test_a_layer_more_than_half_as_wide_as_the_code_decodes_draws_of_the_code() -> None:
    layer, code = nn.Linear(WIDTH, WIDTH // 2 + 1), code_of()
    assert torch.equal(drawn(layer, code, 400), by_draws_of_the_code(layer, code, 400))


def test_few_draws_or_a_gradient_take_draws_of_the_code() -> None:
    layer, code = decoder_of(), code_of()
    assert torch.equal(drawn(layer, code, MANY - 1), by_draws_of_the_code(layer, code, MANY - 1))
    torch.manual_seed(2)
    outputs = decode_draws(layer, code, MANY)
    assert torch.equal(outputs, by_draws_of_the_code(layer, code))
    outputs.sum().backward()
    assert layer.weight.grad is not None


def test_an_exporter_sees_draws_of_the_code() -> None:
    class Drawn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = decoder_of()

        def forward(self, moments: Tensor) -> Tensor:
            return decode_draws(self.decoder, gaussian_code(moments, sample=False), MANY)

    moments = torch.randn(3, 2 * WIDTH)
    with torch.no_grad():
        exported = torch.export.export(Drawn(), (moments,), strict=False)
        assert exported.module()(moments).shape == (3 * MANY, OUTPUTS)
    assert not any("qr" in str(node.target) for node in exported.graph.nodes)


def test_autocast_takes_the_precision_of_the_decoder() -> None:
    layer, code = decoder_of(), code_of()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = drawn(layer, code)
    torch.testing.assert_close(outputs.float(), drawn(layer, code), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_models_evaluate_many_draws_by_their_outputs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    encoder, x = MLP(6, [16], 2 * WIDTH), torch.randn(40, 6)
    if kind == "classes":
        model, y = VIBClassifier(encoder, WIDTH, num_classes=4, eval_samples=5000), torch.arange(40) % 4
    else:
        model, y = VIBRegressor(encoder, WIDTH, target_dims=(4,), eval_samples=5000), torch.randn(40, 4)

    def loss() -> float:
        [metrics] = trainer().validate(model, batches(x, y, size=40), verbose=False)
        return metrics["val/loss"]

    by_outputs = loss()
    monkeypatch.setattr("lit_bottleneck.models.draws._MANY", math.inf)
    by_codes = loss()
    assert by_outputs != by_codes
    assert by_outputs == pytest.approx(by_codes, rel=0.01)
