"""Two prices in one module and a third in a part of it: on one process, on two, and over accumulated batches."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_bottleneck import GaussianBottleneck
from lit_bottleneck.beta import BetaController, DualBeta
from tests.distributed.pool import Pool
from tests.projects.checks import assert_logged, assert_resumes, fit, quick_dual, rate_by_hand, traced
from tests.quiet import trainer

K = 2


class Scaled(nn.Module):
    """Moments ``(B, 2K)`` of inputs ``(B, 2K)``, each by itself: the same bits in a batch of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.rand(2 * K) + 0.5), nn.Parameter(torch.zeros(2 * K))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.shift


class Residue(GaussianBottleneck, nn.Module):
    """A part with a code and a price of its own."""

    def __init__(self, beta: float | BetaController) -> None:
        super().__init__(beta=beta)
        self.encoder = Scaled()

    def forward(self, x: Tensor, pays: bool = True) -> tuple[Tensor, Tensor | float]:
        code = self.bottleneck(self.encoder(x), sample=False)
        return code.z, self.rate_penalty(code.rate) if pays else 0.0


class TwoViews(GaussianBottleneck, LightningModule):
    """Code what two views share at one price, and what the first alone knows at another (arXiv 1702.00948)."""

    def __init__(self, beta: Any, residue: Any = 1e-3, lr: float = 0.01, one_view_from: int = 100) -> None:
        super().__init__(beta=beta, latent_dim=K)
        self.common, self.own, self.residue = Scaled(), Scaled(), Residue(residue)
        self.head, self.lr, self.one_view_from = nn.Linear(3 * K, 2 * K), lr, one_view_from

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        first, second = batch
        shared = self.bottleneck(self.common(first + second), sample=False)
        private = self.bottleneck(self.own(first), sample=False)
        is_one_view = batch_idx >= self.one_view_from
        rest, residue_penalty = self.residue(second, pays=not is_one_view)
        loss = F.mse_loss(self.head(torch.cat([shared.z, private.z, rest], 1)), first) + residue_penalty
        loss = loss + self.rate_penalty(shared.rate, name="shared")
        return loss if is_one_view else loss + self.rate_penalty(private.rate, name="private")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


STEPS, ROWS = 12, 8
KEYS = [f"beta_controller.{name}._extra_state" for name in ("shared", "private")] + [
    "residue.beta_controller._extra_state"
]


def three_prices(**kwargs: Any) -> TwoViews:
    torch.manual_seed(0)
    prices = {"shared": quick_dual(4.0), "private": quick_dual(0.2)}
    return TwoViews(prices, quick_dual(0.5), **kwargs)


def data(batches: Tensor | None = None) -> DataLoader[Any]:
    views = torch.randn(2, STEPS * ROWS, 2 * K, generator=torch.Generator().manual_seed(1))
    batches = torch.arange(STEPS * ROWS).reshape(STEPS, ROWS) if batches is None else batches
    return DataLoader(TensorDataset(*views), batch_sampler=batches.tolist())  # type: ignore[arg-type]


def test_each_price_follows_its_own_rate_and_is_logged_by_its_name(tmp_path: Path) -> None:
    module = three_prices()
    with (
        traced(module.common, module, name="shared") as shared,
        traced(module.own, module, name="private") as private,
        traced(module.residue.encoder, module.residue) as residue,
    ):
        run, logged = fit(module, data(), tmp_path, max_epochs=2)
    assert run.global_step == 2 * STEPS
    for trace, capacity, suffix in ((shared, 4.0, "/shared"), (private, 0.2, "/private"), (residue, 0.5, "/residue")):
        trace.assert_follows(quick_dual(capacity), updates=2 * STEPS)
        assert_logged(logged, trace, 0.01, suffix)
    assert {name for name in logged if name.startswith("train/beta")} == {
        "train/beta/shared",
        "train/beta/private",
        "train/beta/residue",
    }


def test_a_constant_price_beside_one_that_moves() -> None:
    module = TwoViews({"shared": DualBeta(4.0), "private": 0.25})
    rate = torch.tensor([1.0, 3.0])
    penalty = module.rate_penalty(rate, name="private") + module.rate_penalty(2 * rate, name="shared")
    assert penalty.item() == pytest.approx(0.25 * 2 + 1e-3 * 4)
    module.step_beta()
    assert module.beta["private"] == 0.25
    assert module.beta["shared"] == DualBeta(4.0).beta  # the rate was at its capacity


@pytest.mark.parametrize("key", KEYS)
def test_each_price_is_resumed_to_the_last_bit(key: str, tmp_path: Path) -> None:
    assert_resumes(three_prices, data(), tmp_path, key)


def state_of(module: nn.Module) -> list[list[float]]:
    return [module.state_dict()[key].tolist() for key in KEYS]


def trained(parts: int, part: int, accumulate: int, lr: float) -> tuple[list[list[float]], list[list[float]]]:
    """Return betas and weights after twelve steps of eight rows, of which this process sees one part."""
    module = three_prices(lr=lr)
    batches = torch.arange(STEPS * ROWS).reshape(STEPS, ROWS).chunk(parts, dim=1)[part].reshape(STEPS * accumulate, -1)
    strategy = "ddp" if parts > 1 else "auto"
    run = trainer(devices=parts, strategy=strategy, use_distributed_sampler=False, accumulate_grad_batches=accumulate)
    run.fit(module, data(batches))
    assert run.global_step == STEPS
    return state_of(module), [weight.tolist() for weight in module.parameters()]


def trained_by_rank(rank: int, accumulate: int, lr: float) -> tuple[list[list[float]], list[list[float]]]:
    return trained(2, rank, accumulate, lr)


def test_betas_are_the_same_to_the_last_bit_on_two_processes_and_under_accumulation(pool: Pool) -> None:
    """Where the rates are: gradients are sums in another order, so that the weights may not move."""
    expected = trained(1, 0, 1, lr=0.0)
    assert trained(1, 0, 4, lr=0.0) == expected
    for accumulate in (1, 2):
        assert pool(trained_by_rank, accumulate, 0.0) == [expected, expected]


def test_processes_that_train_hold_the_same_betas_to_the_last_bit(pool: Pool) -> None:
    first, second = pool(trained_by_rank, 2, 0.01)
    assert first == second
    for found, expected in zip(first[0], trained(1, 0, 1, lr=0.01)[0], strict=True):
        assert found == pytest.approx(expected, rel=1e-5)


def paid_by_one(rank: int) -> list[list[float]]:
    """Train where from the fifth batch on the second process pays for nothing but what is shared."""
    module = three_prices(lr=0.0, one_view_from=4 if rank else 100)
    batches = torch.arange(STEPS * ROWS).reshape(STEPS, ROWS).chunk(2, dim=1)[rank]
    trainer(devices=2, strategy="ddp", use_distributed_sampler=False).fit(module, data(batches))
    return state_of(module)


def test_prices_that_one_process_alone_has_paid_move_by_its_rates_on_both(pool: Pool) -> None:
    first, second = pool(paid_by_one)
    assert first == second
    module = three_prices()
    references = [quick_dual(4.0), quick_dual(0.2), quick_dual(0.5)]
    for step, (one, other) in enumerate(data()):
        paying = ROWS if step < 4 else ROWS // 2
        moments = module.common(one + other), module.own(one[:paying]), module.residue.encoder(other[:paying])
        for reference, of in zip(references, moments, strict=True):
            reference.update(rate_by_hand(of).mean().item())
    for found, reference in zip(first, references, strict=True):
        assert found == pytest.approx(reference.get_extra_state().tolist(), rel=1e-5)


def test_copies_of_one_controller_move_by_themselves() -> None:
    controller = quick_dual()
    module = TwoViews({"shared": controller, "private": controller}, residue=controller)
    module.rate_penalty(torch.tensor([5.0]), name="shared")
    module.step_beta()
    assert module.beta["shared"] > module.beta["private"] == module.residue.beta == controller.beta
    assert controller.beta == quick_dual().beta
    twin = copy.deepcopy(module)
    twin.rate_penalty(torch.tensor([5.0]), name="private")
    twin.step_beta()
    assert module.beta["private"] == controller.beta < twin.beta["private"]
