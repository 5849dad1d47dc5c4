"""What each project is held to, seen from outside: rates by hand, one update of beta a step, logs, resuming."""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from lit_bottleneck.beta import BetaController, DualBeta
from lit_bottleneck.callbacks import RandomStates
from tests.quiet import trainer


def quick_dual(capacity: float = 0.3) -> DualBeta:
    """Return a controller that moves visibly within a dozen steps."""
    return DualBeta(capacity, gain=0.1, ema=0.5, beta_init=0.01, max_error=100.0)


def kl_by_hand(moments: Tensor, dim: int = 1) -> Tensor:
    """Return the KL per dimension of ``(B, 2K, ...)`` means and raw scales, in float64, by torch.distributions.

    The log-variance of a raw scale r is ``r / sqrt(1 + (r / bound)^2)``: bound 8 above zero and 14 below.
    """
    mean, raw = moments.detach().double().tensor_split(2, dim)
    log_var = raw / (1 + (raw / torch.where(raw > 0, 8.0, 14.0)).square()).sqrt()
    return kl_divergence(Normal(mean, (0.5 * log_var).exp()), Normal(torch.zeros_like(mean), 1.0))


def rate_by_hand(moments: Tensor, dim: int = 1) -> Tensor:
    """Return the rate ``(B,)`` of ``(B, 2K, ...)`` moments."""
    return kl_by_hand(moments, dim).flatten(1).sum(1)


class Trace:
    """Rates by hand of the training passes of each optimizer step, and beta after it."""

    def __init__(self) -> None:
        self.windows: list[list[Tensor]] = [[]]
        self.betas: list[float] = []

    @property
    def mean_rates(self) -> list[float]:
        return [torch.cat(window).mean().item() for window in self.windows if window]

    def assert_follows(self, reference: BetaController, updates: int) -> None:
        """Assert that beta is that of a controller that is given the mean rates, once a step."""
        expected = []
        for rate in self.mean_rates:
            reference.update(rate)
            expected.append(reference.beta)
        assert len(expected) == len(self.betas) == updates
        assert len(set(expected)) == updates  # it did move
        assert self.betas == pytest.approx(expected, rel=1e-5)


@contextmanager
def traced(
    network: nn.Module, module: Any, rate: Callable[..., Tensor] = rate_by_hand, name: str | None = None
) -> Iterator[Trace]:
    """Follow beta of ``module``, step by step of any optimizer that holds a parameter of ``network``.

    Args:
        network: returns the moments.
        module: has the price.
        rate: makes the rates ``(examples,)`` of the output and the inputs of the network, or of the output alone.
        name: of the price.
    """
    trace = Trace()

    def note_pass(network: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if network.training and torch.is_grad_enabled():
            trace.windows[-1].append(rate(output) if rate is rate_by_hand else rate(output, *inputs))

    def note_step(optimizer: Optimizer, *_: Any) -> None:
        held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        if any(id(weight) in held for weight in network.parameters()):
            trace.betas.append(module.beta if name is None else module.beta[name])
            trace.windows.append([])

    hooks = network.register_forward_hook(note_pass), register_optimizer_step_post_hook(note_step)
    try:
        yield trace
    finally:
        for hook in hooks:
            hook.remove()


def fit(
    module: LightningModule, data: Any, folder: Path, val: Any = None, **kwargs: Any
) -> tuple[Trainer, dict[str, dict[int, float]]]:
    """Train, and return the trainer and what it has logged: values by step, by name."""
    run = trainer(**{"logger": CSVLogger(folder, name=None, version="logs"), "log_every_n_steps": 1} | kwargs)
    run.fit(module, data, val)
    logged: dict[str, dict[int, float]] = defaultdict(dict)
    with (folder / "logs" / "metrics.csv").open() as lines:
        for line in csv.DictReader(lines):
            for name, value in line.items():
                if value and name not in ("epoch", "step"):
                    logged[name][int(line["step"])] = float(value)
    return run, logged


def assert_logged(logged: dict[str, dict[int, float]], trace: Trace, beta: float, suffix: str = "") -> None:
    """Assert that the rate and the beta that priced it are logged once for each step, from step 0 on."""
    priced = [beta, *trace.betas[:-1]]
    assert logged[f"train/rate{suffix}"] == pytest.approx(dict(enumerate(trace.mean_rates)), rel=1e-5)
    assert logged[f"train/beta{suffix}"] == pytest.approx(dict(enumerate(priced)), rel=1e-5)


def assert_resumes(make: Callable[[], LightningModule], data: Any, folder: Path, key: str, **kwargs: Any) -> None:
    """Assert that a stopped training continues to the last bit, and that the checkpoint holds beta under ``key``."""

    def run_until(epochs: int, checkpoint: Path | None = None) -> tuple[Trainer, dict[str, Tensor]]:
        torch.manual_seed(0)
        module = make()
        run = trainer(**{"max_epochs": epochs, "callbacks": [RandomStates()]} | kwargs)
        run.fit(module, data, ckpt_path=checkpoint, weights_only=True)
        return run, module.state_dict()

    straight = run_until(2)[1]
    half, halfway = run_until(1)
    half.save_checkpoint(folder / "half.ckpt")
    stored = torch.load(folder / "half.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(stored[key], halfway[key])
    resumed = run_until(2, folder / "half.ckpt")[1]
    assert not torch.equal(halfway[key], straight[key])
    for name, value in straight.items():
        assert torch.equal(resumed[name], value), name
