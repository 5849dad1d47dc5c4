"""Information logs what the metrics give for all codes of a split."""

import math
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn

from lit_bottleneck import GaussianBottleneck, VIBClassifier
from lit_bottleneck.callbacks import Information
from lit_bottleneck.data import Digits
from lit_bottleneck.metrics import MarginalMoments, MutualInformation, Rate
from lit_bottleneck.networks import MLP
from tests.quiet import trainer

DATA = Digits(batch_size=100)


class Plain(GaussianBottleneck, LightningModule):
    """A user's own module: the mixin and an encoder."""

    def __init__(self, deterministic: bool = False) -> None:
        super().__init__(beta=0.1, deterministic=deterministic)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 6))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        pass


def codes(model: Any, batches: Any) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        made = [model.bottleneck(model.encoder(x), sample=False) for x, _ in batches]
    return torch.cat([code.mean for code in made]), torch.cat([code.log_var for code in made])


def measured(run: Trainer, model: LightningModule) -> dict[str, float]:
    [logged] = run.test(model, datamodule=DATA, verbose=False)
    return dict(logged)


@pytest.mark.parametrize("make", [Plain, lambda: VIBClassifier(MLP(64, [16], 12), latent_dim=6, num_classes=10)])
def test_values_are_those_of_the_metrics_for_all_codes(make: Any) -> None:
    torch.manual_seed(0)
    model = make()
    logged = measured(trainer(callbacks=[Information(max_codes=200)]), model)
    mean, log_var = codes(model, DATA.test_dataloader())
    information, moments, rate = MutualInformation(max_codes=200), MarginalMoments(), Rate()
    for metric in (information, moments, rate):
        metric.update(mean, log_var)
    bounds, gaussian = information.compute(), moments.compute()
    expected = {f"information_{name}": bounds[name] for name in ("lower", "upper", "saturated")}
    expected |= {name: bounds[name] for name in ("marginal_kl_lower", "marginal_kl_upper")}
    expected |= {name: gaussian[name] for name in ("marginal_kl", "total_correlation", "dimension_wise_kl")}
    expected |= {name: gaussian[name] for name in ("predictability", "largest_correlation")}
    expected["active_units"] = rate.compute()["active_units"]
    for name, value in expected.items():
        assert logged[f"test/{name}"] == pytest.approx(value.item(), rel=1e-4, abs=1e-5), name
    assert logged["test/information_lower"] <= math.log(200)


def test_a_deterministic_code_has_moments_but_no_bounds() -> None:
    logged = measured(trainer(callbacks=[Information()]), Plain(deterministic=True))
    assert {"test/total_correlation", "test/marginal_kl", "test/predictability"} <= set(logged)
    assert not any("information" in name or "active" in name for name in logged)
