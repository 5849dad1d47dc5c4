"""Several dataloaders of an evaluation: logged as Lightning does, each with metrics of its own."""

from typing import Any

import pytest
import torch

from lit_bottleneck import VAE, VDBGAN, VIBClassifier
from lit_bottleneck.networks import MLP, MLPDecoder
from tests.models.runs import batches
from tests.quiet import trainer

X, Y = torch.randn(12, 6, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
LOADERS = [batches(X[:5], Y[:5], size=2), batches(3 * X[5:], Y[5:], size=4)]
DRAWN = ("cross_entropy_sampled", "log_likelihood")


def vib() -> VIBClassifier:
    return VIBClassifier(MLP(6, [8], 8), 4, 3)


class Mean(VAE):
    """A VAE whose code is its mean, and which has a further term."""

    def encode(self, x: Any, sample: bool | None = None) -> Any:
        return super().encode(x, sample=False)

    def extra_terms(self, code: Any, batch: Any) -> Any:
        return {"spread": code.mean.square().mean()}


def vae() -> VAE:
    return Mean(MLP(6, [8], 8), MLP(4, [8], 6), 4, "gaussian")


def evaluated(make: Any, stage: str, loaders: Any) -> list[dict[str, float]]:
    torch.manual_seed(0)
    return getattr(trainer(), stage)(make(), loaders, verbose=False)


@pytest.mark.parametrize("stage", ["validate", "test"])
@pytest.mark.parametrize("make", [vib, vae])
def test_each_dataloader_has_the_metrics_that_it_has_alone(make: Any, stage: str) -> None:
    together = evaluated(make, stage, LOADERS)
    for index, (found, loader) in enumerate(zip(together, LOADERS, strict=True)):
        [alone] = evaluated(make, stage, loader)
        expected = {f"{name}/dataloader_idx_{index}": value for name, value in alone.items() if name[5:] not in DRAWN}
        assert {name for name in found if not any(drawn in name for drawn in DRAWN)} == set(expected)
        assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert len(together[0]) == len(together[1]) > 3


def test_a_gan_measures_each_dataloader() -> None:
    torch.manual_seed(0)
    gan = VDBGAN(MLPDecoder(2, [8], [6]), MLP(6, [8], 8), latent_dim=4, noise_dim=2)
    first, second = trainer().validate(gan, LOADERS, verbose=False)
    for index, (found, x) in enumerate(((first, X[:5]), (second, 3 * X[5:]))):
        assert found[f"val/rate_real/dataloader_idx_{index}"] == pytest.approx(
            gan.encode(x).rate.mean().item(), rel=1e-5
        )


def test_training_between_validations_of_several_dataloaders_keeps_them_apart() -> None:
    torch.manual_seed(0)
    model, run = vib(), trainer(max_epochs=2, check_val_every_n_epoch=1)
    state = set(model.state_dict())
    run.validate(model, LOADERS, verbose=False)
    run.fit(model, batches(X, Y, size=4), LOADERS)
    found = {name: value.item() for name, value in run.callback_metrics.items() if name.startswith("val/")}
    after = trainer().validate(model, LOADERS, verbose=False)
    assert found == pytest.approx(after[0] | after[1], rel=1e-6)
    assert set(model.state_dict()) == state
    assert all(part.training for part in model.modules())
    [alone] = trainer().validate(model, LOADERS[0], verbose=False)
    assert alone["val/loss"] == after[0]["val/loss/dataloader_idx_0"]
