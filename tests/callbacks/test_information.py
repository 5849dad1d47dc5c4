"""What the callback logs of a model's codes, against the metrics by hand."""

import math
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn

from lit_bottleneck import GaussianBottleneck, VIBClassifier
from lit_bottleneck.callbacks import Information
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data import Digits
from lit_bottleneck.metrics import MarginalMoments, MutualInformation, Rate
from lit_bottleneck.networks import MLP
from tests.quiet import trainer

DATA = Digits(batch_size=100)


class Plain(GaussianBottleneck, LightningModule):
    """A user's own module with the mixin, which has an encoder and nothing more."""

    def __init__(self, deterministic: bool = False) -> None:
        super().__init__(beta=0.1, deterministic=deterministic)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 6))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        code = self.bottleneck(self.encoder(batch[0]))
        return code.z.square().mean() + self.rate_penalty(code.rate)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing of its own."""

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing of its own."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def codes(model: Any, batches: Any) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        made = [model.bottleneck(model.encoder(x), sample=False) for x, _ in batches]
    return torch.cat([code.mean for code in made]), torch.cat([code.log_var for code in made])


def measured(run: Trainer, model: LightningModule) -> dict[str, float]:
    [logged] = run.test(model, datamodule=DATA, verbose=False)
    return dict(logged)


@pytest.mark.parametrize("make", [Plain, lambda: VIBClassifier(MLP(64, [16], 12), latent_dim=6, num_classes=10)])
def test_what_is_logged_is_what_the_metrics_say_of_all_codes(make: Any) -> None:
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


def test_a_deterministic_code_has_moments_and_no_bounds() -> None:
    logged = measured(trainer(callbacks=[Information()]), Plain(deterministic=True))
    assert {"test/total_correlation", "test/marginal_kl", "test/predictability"} <= set(logged)
    assert not any("information" in name or "active" in name for name in logged)


def test_validation_is_measured_every_few_epochs_and_in_the_last() -> None:
    class Epochs(Information):
        seen: list[int]

        def log_results(self, run: Trainer, module: LightningModule, stage: str) -> None:
            super().log_results(run, module, stage)
            self.seen.append(run.current_epoch)

    callback = Epochs(max_codes=50, every_n_epochs=2)
    callback.seen = []
    run = trainer(max_epochs=5, callbacks=[callback])
    run.fit(Plain(), datamodule=DATA)
    assert callback.seen == [1, 3, 4]
    assert "val/information_lower" in run.callback_metrics


def test_it_changes_nothing_of_the_training() -> None:
    weights = []
    for callbacks in ([], [Information(max_codes=50, every_n_epochs=1)]):
        torch.manual_seed(0)
        model = Plain()
        trainer(max_epochs=2, callbacks=callbacks).fit(model, datamodule=DATA)
        weights.append(model.encoder[1].weight.detach())
    assert weights[0].equal(weights[1])


def test_a_module_without_codes_is_refused() -> None:
    class Other(Plain):
        def __init__(self) -> None:
            super().__init__()
            del self.encoder

    with pytest.raises(ConfigurationError, match=r"Information needs a module with encode.*Other has neither"):
        trainer(callbacks=[Information()]).test(Other(), datamodule=DATA, verbose=False)


@pytest.mark.parametrize("arguments", [{"max_codes": 1}, {"every_n_epochs": -1}])
def test_numbers_out_of_range_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Information(**arguments)
