"""Three optimizers by hand that step at different frequencies: encoder, predictor and adversary."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_bottleneck import GaussianBottleneck
from lit_bottleneck.beta import BetaController
from tests.projects.checks import assert_resumes, fit, quick_dual, traced


class Fair(GaussianBottleneck, LightningModule):
    """Predict y from a code from which an adversary cannot read s: the encoder steps in every other batch."""

    def __init__(self, beta: float | BetaController, latent_dim: int = 3) -> None:
        super().__init__(beta=beta, latent_dim=latent_dim)
        self.automatic_optimization = False
        self.encoder = nn.Sequential(nn.Linear(6, 16), nn.SiLU(), nn.Linear(16, 2 * latent_dim))
        self.predictor, self.adversary = nn.Linear(latent_dim, 1), nn.Linear(latent_dim, 1)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        x, y, s = batch
        of_encoder, of_predictor, of_adversary = self.optimizers()
        code = self.bottleneck(self.encoder(x))

        for _ in range(2):  # the adversary sees the code without its graph
            of_adversary.zero_grad()
            self.manual_backward(F.binary_cross_entropy_with_logits(self.adversary(code.z.detach()), s))
            of_adversary.step()

        of_predictor.zero_grad()
        prediction = F.binary_cross_entropy_with_logits(self.predictor(code.z), y)
        guess = F.binary_cross_entropy_with_logits(self.adversary(code.z), s)
        self.manual_backward(prediction - 0.1 * guess + self.rate_penalty(code.rate))
        of_predictor.step()
        if batch_idx % 2:  # over the gradients of two batches
            of_encoder.step()
            of_encoder.zero_grad()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        parts = ((self.encoder, 0.005), (self.predictor, 0.01), (self.adversary, 0.01))
        return [torch.optim.Adam(part.parameters(), lr=lr) for part, lr in parts]


def data() -> DataLoader[Any]:
    x = torch.randn(22 * 8, 6, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(x, (x[:, :1] > 0).float(), (x[:, 1:2] > 0).float()), batch_size=8)


def test_beta_moves_with_the_optimizer_of_the_encoder_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Fair(quick_dual())
    with traced(module.encoder, module) as trace:
        run, logged = fit(module, data(), tmp_path)
    assert run.global_step == 22 * 3 + 11
    assert [len(window) for window in trace.windows[:-1]] == [2] * 11
    trace.assert_follows(quick_dual(), updates=11)
    # Lightning counts the steps of all optimizers, and its loggers the batches.
    rates = dict(zip(range(1, 22, 2), trace.mean_rates, strict=True))
    assert {step: logged["train/rate"][step] for step in rates} == pytest.approx(rates, rel=1e-5)
    priced = [quick_dual().beta, *trace.betas[:-1]]
    assert [logged["train/beta"][step] for step in rates] == pytest.approx(priced, rel=1e-5)


def test_a_loop_by_hand_is_no_different() -> None:
    torch.manual_seed(0)
    module, parts = Fair(quick_dual()), ("encoder", "predictor", "adversary")
    optimizers = {part: torch.optim.SGD(getattr(module, part).parameters(), lr=0.01) for part in parts}
    with traced(module.encoder, module) as trace:
        for index, (x, y, _) in enumerate(data()):
            code = module.bottleneck(module.encoder(x))
            loss = F.binary_cross_entropy_with_logits(module.predictor(code.z), y)
            (loss + module.rate_penalty(code.rate)).backward()
            for part, every in (("encoder", 2), ("predictor", 1), ("adversary", 3)):
                if index % every == every - 1:
                    optimizers[part].step()
                    optimizers[part].zero_grad()
    trace.assert_follows(quick_dual(), updates=11)


def test_one_encoder_of_two_optimizers_moves_beta_with_the_first_of_them() -> None:
    """Once a step, whatever the number of optimizers."""
    torch.manual_seed(0)
    module = Fair(quick_dual())
    first, last = module.encoder[0], module.encoder[2]
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.01) for part in (last, first)]
    with traced(last, module) as trace:
        for x, *_ in data():
            module.rate_penalty(module.bottleneck(module.encoder(x)).rate).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    trace.assert_follows(quick_dual(), updates=22)


def test_a_scaler_may_skip_the_step_of_one_optimizer() -> None:
    torch.manual_seed(0)
    module, reference = Fair(quick_dual()), quick_dual()
    own = [torch.optim.SGD(part.parameters(), lr=0.01) for part in (module.encoder, module.predictor)]
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for index, (x, y, _) in enumerate(data()):
        code = module.bottleneck(module.encoder(x))
        loss = F.binary_cross_entropy_with_logits(module.predictor(code.z.detach()), y)
        penalty = module.rate_penalty(code.rate) * (math.inf if index == 5 else 1)
        scaler.scale(loss + penalty).backward()
        before = module.beta
        for optimizer in own:
            scaler.step(optimizer)
            optimizer.zero_grad()
        scale = scaler.get_scale()
        scaler.update()
        if scaler.get_scale() < scale:
            module.discard_step()
        if index == 5:
            assert module.beta == before
        else:
            reference.update(code.rate.double().mean().item())
            assert module.beta == pytest.approx(reference.beta, rel=1e-9)
    assert module.beta_controller.skipped_updates == 1


def test_resuming_continues_to_the_last_bit(tmp_path: Path) -> None:
    assert_resumes(lambda: Fair(quick_dual()), data(), tmp_path, "beta_controller._extra_state")
