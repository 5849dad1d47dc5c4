"""Steps that are not finite are skipped and counted, and change nothing."""

import math
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_bottleneck import VAE, VDBGAN, GaussianBottleneck, VIBClassifier
from lit_bottleneck.beta import DualBeta
from lit_bottleneck.callbacks import SkipNonFinite
from lit_bottleneck.networks import MLP, MLPDecoder
from tests.quiet import trainer


def vib() -> LightningModule:
    return VIBClassifier(MLP(4, [8], 8), latent_dim=4, num_classes=2, beta=DualBeta(capacity=0.3))


def vae() -> LightningModule:
    return VAE(MLP(4, [8], 8), MLP(4, [8], 4), latent_dim=4, likelihood="gaussian", beta=DualBeta(capacity=0.3))


def gan() -> LightningModule:
    return VDBGAN(MLPDecoder(4, [8], [4]), MLP(4, [8], 8), latent_dim=4, noise_dim=4, beta=DualBeta(capacity=0.3))


class Own(GaussianBottleneck, LightningModule):
    """A user's module with its own loss."""

    def __init__(self) -> None:
        super().__init__(beta=DualBeta(capacity=0.3))
        self.encoder = MLP(4, [8], 8)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        code = self.bottleneck(self.encoder(batch[0]))
        return code.z.square().mean() + self.rate_penalty(code.rate)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters())


class Bad(nn.Module):
    """Multiplies the output, or its gradient, by a number that is not finite, in some calls in training."""

    def __init__(self, network: nn.Module, value: float, in_gradient: bool, calls: set[int]) -> None:
        super().__init__()
        self.network, self.value, self.in_gradient, self.calls, self.call = network, value, in_gradient, calls, 0

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.network(x)
        if self.training:
            self.call += 1
            if self.call in self.calls:
                if not self.in_gradient:
                    return out * self.value
                out.register_hook(lambda gradient: gradient * self.value)
        return out


def data() -> DataLoader:
    x = torch.rand(48, 4, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(x, torch.arange(48) % 2), batch_size=4)


def train(model: LightningModule, most_in_a_row: int = 100, steps: int = -1) -> tuple[Trainer, SkipNonFinite]:
    skip = SkipNonFinite(most_in_a_row)
    run = trainer(max_steps=steps, callbacks=[skip])
    run.fit(model, data())
    return run, skip


@pytest.mark.filterwarnings("ignore:step .* is left out")
@pytest.mark.parametrize("in_gradient", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("make", [vib, vae, Own])
def test_a_step_that_is_not_finite_changes_nothing(make: Any, value: float, in_gradient: bool) -> None:
    torch.manual_seed(0)
    model = make()
    model.encoder = Bad(model.encoder, value, in_gradient, calls=set(range(3, 13)))
    with pytest.warns(UserWarning, match="step 2 is left out: the gradient of .*encoder"):
        run, skip = train(model)
    assert (skip.skipped, skip.in_a_row) == (10, 10)
    assert run.global_step == 12
    assert float(run.callback_metrics["train/skipped_steps"]) == 10

    torch.manual_seed(0)
    alike = make()
    alike.encoder = Bad(alike.encoder, value, in_gradient, calls=set())
    two, _ = train(alike, steps=2)
    for name, weight in model.state_dict().items():
        if not name.endswith("_extra_state"):
            torch.testing.assert_close(weight, alike.state_dict()[name], rtol=0, atol=0)
    for mine, theirs in zip(run.optimizers[0].state.values(), two.optimizers[0].state.values(), strict=True):
        assert mine["step"] == theirs["step"] == 2
    assert model.beta == alike.beta
    assert model.beta_controller.skipped_updates == 10


def test_without_it_training_stops_and_names_the_term() -> None:
    model = vib()
    model.encoder = Bad(model.encoder, math.nan, in_gradient=False, calls={3})
    with pytest.raises(FloatingPointError, match="not finite at step 2: cross_entropy, rate_penalty"):
        trainer().fit(model, data())


def test_too_many_skips_in_a_row_stop_the_training() -> None:
    model = vib()
    model.encoder = Bad(model.encoder, math.nan, in_gradient=True, calls={2, 3, *range(5, 13)})
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(
            FloatingPointError, match="step 8: the gradient of encoder is not finite, for the 5th time in a row"
        ),
    ):
        train(model, most_in_a_row=4)


def test_too_many_skips_of_one_network_stop_a_gan() -> None:
    model = gan()
    weights = list(model.encoder.parameters())  # frozen in the generator's step
    model.encoder.register_forward_hook(lambda _, x, out: out * (math.nan if weights[0].requires_grad else 1.0))
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(FloatingPointError, match="of encoder, head is not finite, for the 4th time in a row"),
    ):
        train(model, most_in_a_row=3)


@pytest.mark.parametrize("network", ["generator", "encoder"])
def test_both_networks_of_a_gan_train_on(network: str) -> None:
    model = gan()
    setattr(model, network, Bad(getattr(model, network), math.nan, in_gradient=False, calls={4, 5, 6}))
    with pytest.warns(UserWarning, match="is left out"):
        _, skip = train(model)
    assert 2 <= skip.skipped <= 4
    assert all(weight.isfinite().all() for weight in model.parameters())
    assert math.isfinite(model.beta)
    assert model.steps_taken == {"discriminator": 12, "generator": 12}
    assert model.beta_controller.skipped_updates > 0
