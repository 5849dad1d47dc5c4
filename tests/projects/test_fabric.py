"""A siamese net by Fabric and in a bare loop, with accumulation and a gradient scaler."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_bottleneck import BottleneckLayer, GaussianBottleneck
from lit_bottleneck.beta import BetaController
from tests.distributed.pool import Pool
from tests.projects.checks import Trace, kl_by_hand, quick_dual, traced

STEPS, ROWS = 9, 8


class Twins(GaussianBottleneck, nn.Module):
    """Tell whether two inputs are of one class by the distance of their codes; a pair pays for both."""

    def __init__(self, beta: float | BetaController, latent_dim: int = 3) -> None:
        super().__init__(beta=beta)
        self.code = BottleneckLayer(12, latent_dim, reduction="sum")
        self.encoder = nn.Sequential(nn.Linear(4, 12), nn.SiLU(), self.code)
        self.threshold = nn.Parameter(torch.ones(1))

    def forward(self, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        distance = (self.encoder(one) - self.encoder(other)).square().sum(1)
        return self.threshold - distance, self.rate_penalty()


def data(batch_size: int = ROWS) -> DataLoader[Any]:
    x = torch.randn(2, STEPS * ROWS, 4, generator=torch.Generator().manual_seed(0))
    same = (x[0, :, 0] > 0) == (x[1, :, 0] > 0)
    return DataLoader(TensorDataset(*x, same.float()), batch_size=batch_size)


def traced_pairs(module: Twins) -> Any:
    def rate(z: Tensor, hidden: Tensor) -> Tensor:
        return kl_by_hand(F.linear(hidden, module.code.moments.weight, module.code.moments.bias)).sum(1)

    return traced(module.code, module, rate)


def assert_pairs_paid(trace: Trace, batches: int, updates: int) -> None:
    """Each batch went through the encoder twice, and the rates of both passes add up."""
    assert {len(window) for window in trace.windows if window} == {2 * batches}
    trace.windows = [[one + other for one, other in zip(w[::2], w[1::2], strict=True)] for w in trace.windows]
    trace.assert_follows(quick_dual(), updates)


def train(fabric: Fabric, module: Twins, accumulate: int = 1, epochs: int = 2) -> tuple[Any, Any]:
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    model, optimizer = fabric.setup(module, optimizer)
    for _ in range(epochs):
        for index, (one, other, same) in enumerate(fabric.setup_dataloaders(data())):
            last = index % accumulate == accumulate - 1
            with fabric.no_backward_sync(model, enabled=not last):
                logits, penalty = model(one, other)
                loss = F.binary_cross_entropy_with_logits(logits, same) + penalty
                fabric.backward(loss / accumulate)
            if last:
                optimizer.step()
                optimizer.zero_grad()
    return model, optimizer


@pytest.mark.filterwarnings("error:::lit_bottleneck")
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_beta_moves_once_a_step_of_fabric(precision: Any, accumulate: int) -> None:
    torch.manual_seed(0)
    module = Twins(quick_dual())
    with traced_pairs(module) as trace:
        train(Fabric(accelerator="cpu", devices=1, precision=precision), module, accumulate)
    if precision == "32-true":
        assert_pairs_paid(trace, accumulate, updates=18 // accumulate)
    else:  # the moments are rounded
        assert len(set(trace.betas)) == 18 // accumulate


def overflowing(loss: Tensor, index: int) -> Tensor:
    return loss * torch.inf if index == 4 else loss


def test_a_scaler_of_fabric_skips_a_step_and_beta_stays() -> None:
    torch.manual_seed(0)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    fabric = Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler=scaler)])
    module = Twins(quick_dual())
    model, optimizer = fabric.setup(module, torch.optim.Adam(module.parameters(), lr=0.02))
    betas = [module.beta]
    for index, (one, other, same) in enumerate(fabric.setup_dataloaders(data())):
        logits, penalty = model(one, other)
        fabric.backward(overflowing(F.binary_cross_entropy_with_logits(logits, same) + penalty, index))
        optimizer.step()
        optimizer.zero_grad()
        betas.append(module.beta)
    assert betas[5] == betas[4]
    assert len(set(betas)) == STEPS
    assert scaler.get_scale() == 4.0


@pytest.mark.parametrize("fused", [False, True])
def test_a_bare_loop_with_a_scaler(fused: bool) -> None:
    torch.manual_seed(0)
    module, reference = Twins(quick_dual()), quick_dual()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for index, (one, other, same) in enumerate(data()):
        with torch.autocast("cpu", torch.bfloat16):
            logits, penalty = module(one, other)
            loss = F.binary_cross_entropy_with_logits(logits, same) + penalty
        rate = penalty.item() / module.beta
        optimizer.zero_grad()
        scaler.scale(overflowing(loss, index)).backward()
        scaler.step(optimizer)
        scale = scaler.get_scale()
        scaler.update()
        if scaler.get_scale() < scale:  # a skipped step: forget its rates
            module.discard_step()
        else:
            reference.update(rate)
        assert module.beta == pytest.approx(reference.beta, rel=1e-6)
    assert module.beta_controller.skipped_updates == 1


def test_a_checkpoint_of_fabric_continues_to_the_last_bit(tmp_path: Path) -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    torch.manual_seed(0)
    module = Twins(quick_dual())
    model, optimizer = train(fabric, module, epochs=1)
    fabric.save(tmp_path / "half.ckpt", {"model": model, "optimizer": optimizer})
    stored = torch.load(tmp_path / "half.ckpt", weights_only=True)["model"]
    assert torch.equal(stored["beta_controller._extra_state"], module.beta_controller.get_extra_state())

    def second_half(model: Any, optimizer: Any) -> list[Tensor]:
        torch.manual_seed(1)
        for one, other, same in data():
            logits, penalty = model(one, other)
            fabric.backward(F.binary_cross_entropy_with_logits(logits, same) + penalty)
            optimizer.step()
            optimizer.zero_grad()
        return list(model.state_dict().values())

    straight = second_half(model, optimizer)
    twin = Twins(quick_dual())
    resumed = fabric.setup(twin, torch.optim.Adam(twin.parameters(), lr=0.02))
    fabric.load(tmp_path / "half.ckpt", {"model": resumed[0], "optimizer": resumed[1]})
    for one, other in zip(second_half(*resumed), straight, strict=True):
        assert torch.equal(one, other)


def trained_by_rank(rank: int) -> tuple[float, float]:
    torch.manual_seed(0)
    module = Twins(quick_dual())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0)
    for one, other, _ in data(ROWS):
        half = slice(rank, None, 2)
        module(one[half], other[half])[1].backward()
        optimizer.step()
    return module.beta, module.beta_controller.smoothed_error


def test_a_siamese_layer_on_two_processes_is_that_on_one(pool: Pool) -> None:
    first, second = pool(trained_by_rank)
    assert first == second
    torch.manual_seed(0)
    module, reference = Twins(quick_dual()), quick_dual()
    with traced_pairs(module) as trace:
        for one, other, _ in data():
            module(one, other)
    rates = trace.windows[0]
    for one, other in zip(rates[::2], rates[1::2], strict=True):
        reference.update((one + other).mean().item())
    assert first == pytest.approx((reference.beta, reference.smoothed_error), rel=1e-5)
