"""Checks before the first epoch: a last batch of one example, a warm-up that outlasts the training."""

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler, TensorDataset

from lit_bottleneck import VAE, VDBGAN, VIBClassifier
from lit_bottleneck.beta import CapacityBeta, ScheduledBeta
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data import Digits
from lit_bottleneck.networks import MLP, MLPDecoder
from tests.models.runs import batches, checkpoint_of, fit

X, Y = torch.randn(9, 6, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 3


def norm(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, width))


def vib(encoder: nn.Module | None = None, **kwargs: Any) -> VIBClassifier:
    return VIBClassifier(norm(8) if encoder is None else encoder, latent_dim=4, num_classes=3, **kwargs)


def vae(encoder: nn.Module | None = None, **kwargs: Any) -> VAE:
    encoder = norm(8) if encoder is None else encoder
    return VAE(encoder, MLP(4, [8], 6), latent_dim=4, likelihood="gaussian", **kwargs)


def gan(encoder: nn.Module | None = None, **kwargs: Any) -> VDBGAN:
    encoder = norm(8) if encoder is None else encoder
    return VDBGAN(MLPDecoder(2, [8], [6]), encoder, latent_dim=4, noise_dim=2, **{"beta": 0.1} | kwargs)


MODELS = pytest.mark.parametrize("make", [vib, vae, gan])


def loaders() -> dict[str, Any]:
    """Return loaders of nine examples in batches of four."""
    data = TensorDataset(X, Y)
    sampler = BatchSampler(SequentialSampler(data), 4, drop_last=False)
    return {
        "loader": batches(X, Y, size=4),
        "shuffled": DataLoader(data, batch_size=4, shuffle=True),
        "batch sampler": DataLoader(data, batch_sampler=sampler),
        "several": [batches(X[:8], Y[:8], size=4), batches(X, Y, size=4)],
    }


def adam(fused: bool) -> Any:
    return lambda weights: torch.optim.Adam(weights, fused=fused)


@pytest.mark.parametrize("make", [vib, vae])
def test_a_fused_optimizer_is_refused_where_mixed_precision_cannot_clip_its_gradients(make: Any) -> None:
    def train(fused: bool, **kwargs: Any) -> None:
        fit(make(MLP(6, [4], 8), optimizer=adam(fused)), batches(X, Y, size=4), **kwargs)

    with pytest.raises(ConfigurationError, match=r"^gradient_clip_val=1\.0 with precision=bf16-mixed .* fused=false"):
        train(fused=True, gradient_clip_val=1.0, precision="bf16-mixed")
    train(fused=False, gradient_clip_val=1.0, precision="bf16-mixed")
    train(fused=True, precision="bf16-mixed")
    train(fused=True, gradient_clip_val=1.0)


@MODELS
@pytest.mark.parametrize("name", ["loader", "shuffled", "batch sampler"])
def test_a_last_batch_of_one_example_is_refused_before_the_epoch(make: Any, name: str) -> None:
    model = make()
    with pytest.raises(ConfigurationError, match=r"last batch of an epoch will have one example, .* drop_last=True"):
        fit(model, loaders()[name])
    [layer] = [part for part in model.modules() if isinstance(part, nn.BatchNorm1d)]
    assert layer.num_batches_tracked == 0


@MODELS
def test_other_last_batches_train(make: Any) -> None:
    steps = 2 if make is gan else 1
    dropped = DataLoader(TensorDataset(X, Y), batch_size=4, drop_last=True)
    assert fit(make(), dropped).global_step == 2 * steps
    assert fit(make(), batches(X[:7], Y[:7], size=4)).global_step == 2 * steps
    assert fit(make(), batches(X, Y, size=4), limit_train_batches=2).global_step == 2 * steps
    assert fit(make(), batches(X, Y, size=4), max_steps=2 * steps).global_step == 2 * steps
    with pytest.raises(ConfigurationError, match="last batch of an epoch"):
        fit(make(), batches(X, Y, size=4), max_steps=3 * steps)
    assert fit(make(MLP(6, [8], 8)), batches(X, Y, size=4)).global_step == 3 * steps
    averages = norm(8).eval()
    assert fit(make(averages), batches(X, Y, size=4)).global_step == 3 * steps


@MODELS
def test_a_loader_that_tells_no_length_is_refused_at_its_batch_of_one(make: Any) -> None:
    class Stream(IterableDataset):
        def __iter__(self) -> Any:
            return iter(zip(X, Y, strict=True))

    with pytest.raises(ConfigurationError, match=r"this batch has one example, .* drop_last=True"):
        fit(make(), DataLoader(Stream(), batch_size=4))


def test_one_of_several_loaders_is_enough() -> None:
    class Two(VIBClassifier):
        def inputs(self, batch: Any) -> Any:
            return torch.cat([part[0] for part in batch])

        def labelled(self, batch: Any) -> Any:
            return self.inputs(batch), torch.cat([part[1] for part in batch])

    with pytest.raises(ConfigurationError, match=r"last batch of an epoch will have one example"):
        fit(Two(norm(8), 4, 3), loaders()["several"])


def test_data_modules_can_leave_out_the_last_batch() -> None:
    data = Digits(batch_size=404)  # of 1257 images
    rows = len(data.dataset("train"))
    sizes = [len(x) for x, _ in Digits(batch_size=rows // 2, drop_last=True).train_dataloader()]
    assert sizes == [rows // 2] * 2
    assert sum(len(x) for x, _ in Digits(batch_size=rows // 2 + 1, drop_last=True).test_dataloader()) == 359
    with pytest.raises(
        ConfigurationError, match=rf"leaves no batch of {rows} .* with batch_size=5000: set a batch_size"
    ):
        Digits(batch_size=5000, drop_last=True).train_dataloader()


def warned(model: Any, data: Any, **kwargs: Any) -> list[str]:
    """Return the warnings of a warm-up in a training."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(model, data, **kwargs)
    return [str(one.message) for one in caught if "warmup_steps" in str(one.message)]


@MODELS
def test_a_warm_up_that_is_longer_than_the_training_is_told_with_both_numbers(make: Any) -> None:
    data = batches(X[:8], Y[:8], size=4)  # 2 steps of beta an epoch
    schedule, capacity = ScheduledBeta(0.1, warmup_steps=7), CapacityBeta(1.0, capacity=2.0, warmup_steps=7)
    for beta in (schedule, capacity):
        [told] = warned(make(beta=beta), data, max_epochs=3)
        kind = type(beta).__name__
        assert re.search(rf"warmup_steps=7 of {kind} .* in 6 optimizer steps", told)
        assert warned(make(beta=beta), data, max_epochs=4) == []
    every = 2 if make is gan else 1  # the trainer counts the generator's steps, too
    assert "in 5 optimizer steps" in warned(make(beta=schedule), data, max_epochs=9, max_steps=5 * every)[0]
    assert warned(make(beta=schedule), data, max_epochs=9, max_steps=7 * every) == []
    assert warned(make(beta=ScheduledBeta(0.1, warmup_steps=0)), data) == []
    assert warned(make(beta=0.1), data) == []


def test_accumulated_batches_make_one_step_of_the_warm_up() -> None:
    beta, data = ScheduledBeta(0.1, warmup_steps=4), batches(X[:8], Y[:8], size=2)  # 4 batches
    assert "in 3 optimizer steps" in warned(vib(beta=beta), data, max_epochs=3, accumulate_grad_batches=4)[0]
    assert "in 3 optimizer steps" in warned(gan(beta=beta, accumulate_grad_batches=4), data, max_epochs=3)[0]
    assert "in 2 optimizer steps" in warned(gan(beta=beta, discriminator_steps=2), data, max_steps=3)[0]


def test_nothing_is_told_where_the_steps_are_not_known() -> None:
    class Stream(IterableDataset):
        def __iter__(self) -> Any:
            return iter(zip(X, Y, strict=True))

    beta = ScheduledBeta(0.1, warmup_steps=100)
    assert warned(vib(MLP(6, [], 8), beta=beta), DataLoader(Stream(), batch_size=3)) == []
    assert warned(vib(beta=beta), batches(X[:8], Y[:8], size=4), max_epochs=-1, max_time="00:00:00:00") == []


def test_a_training_that_goes_on_counts_on(tmp_path: Path) -> None:
    beta, data = ScheduledBeta(0.1, warmup_steps=4), batches(X[:8], Y[:8], size=4)
    with pytest.warns(UserWarning, match="warmup_steps=4 .* in 2 optimizer steps"):
        path = checkpoint_of(vae(beta=beta), data, tmp_path)
    loaded = VAE.load_from_checkpoint(path, weights_only=True, encoder=norm(8), decoder=MLP(4, [8], 6))
    assert warned(loaded, data, max_epochs=1) == []
    assert loaded.beta == pytest.approx(0.1)
