"""Two processes measure the same as one: every row counts once, also if batches do not divide evenly."""

import itertools
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from lit_bottleneck import VAE, VDBGAN, VIBClassifier, VIBRegressor
from lit_bottleneck.callbacks import Factors, Information, Paths, SampleQuality
from lit_bottleneck.code import Code, gaussian_code
from lit_bottleneck.data import Ring, Shapes
from lit_bottleneck.data.base import LabelledDataModule
from lit_bottleneck.data.dataset import Examples
from lit_bottleneck.metrics import RawFeatures
from lit_bottleneck.metrics.marginal_moments import marginal_moments
from lit_bottleneck.networks import MLP, MLPDecoder
from tests.distributed.pool import Pool
from tests.quiet import trainer


class Rows(LabelledDataModule):
    """Eight training rows, and ``count`` rows each for validation and test."""

    def __init__(self, count: int, batch_size: int) -> None:
        super().__init__(dims=(6,), num_classes=3, batch_size=batch_size, val_size=count)
        self.count = count

    def load(self) -> tuple[Examples, Examples]:
        total = 8 + 2 * self.count
        x = torch.randint(-64, 64, (total, 6), generator=torch.Generator().manual_seed(0)) / 32
        rows = Examples.of(x, torch.arange(total) % 3)
        return rows.select(torch.arange(8 + self.count)), rows.select(torch.arange(8 + self.count, total))


class Noiseless:
    """Encode to the mean: two processes draw other noise than one."""

    def encode(self, x: Tensor, sample: bool | None = None) -> Code:
        return super().encode(x, sample=False)


class NoiselessVIB(Noiseless, VIBClassifier):
    pass


class NoiselessLabeller(NoiselessVIB):
    """A classifier of three labels, of which the last never occurs."""

    def labelled(self, batch: Any) -> tuple[Any, Any]:
        x, y = batch
        return x, torch.stack([y > 0, (y == 1) & (x[:, 0] > 0), y < 0], 1)


class NoiselessRegressor(Noiseless, VIBRegressor):
    """A regressor, of the class as of a number."""

    def labelled(self, batch: Any) -> tuple[Any, Any]:
        return batch


class NoiselessVAE(Noiseless, VAE):
    pass


class NoiselessGAN(Noiseless, VDBGAN):
    """A GAN without noise that always generates the same."""

    def sample(self, n: int) -> Tensor:
        return self.averaged_generator(torch.ones(1, self.noise_dim)).expand(n, -1)


def encoder(width: int) -> nn.Module:
    """Return an encoder with weights in 16ths: for inputs in 32nds, sums are exact in every order."""
    mlp = MLP(width, [8], 8)
    with torch.no_grad():
        for parameter in mlp.parameters():
            parameter.mul_(16).round_().div_(16)
    return nn.Sequential(nn.Flatten(), mlp, nn.BatchNorm1d(8))


def vib() -> NoiselessVIB:
    return NoiselessVIB(encoder(6), latent_dim=4, num_classes=3)


def labeller() -> NoiselessLabeller:
    return NoiselessLabeller(encoder(6), latent_dim=4, num_classes=3, multilabel=True)


def regressor() -> NoiselessRegressor:
    return NoiselessRegressor(encoder(6), latent_dim=4)


def vae(*dims: int) -> NoiselessVAE:
    dims = dims or (6,)
    width = torch.Size(dims).numel()
    return NoiselessVAE(encoder(width), MLPDecoder(4, [8], dims), 4, "gaussian", likelihood_samples=0)


def gan(width: int = 6) -> NoiselessGAN:
    return NoiselessGAN(MLPDecoder(4, [8], [width]), encoder(width), latent_dim=4, noise_dim=4)


def checksums(x: Tensor) -> list[int]:
    return [zlib.crc32(row.numpy().tobytes()) for row in x]


class Seen(Callback):
    """Record the inputs that were evaluated."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def on_validation_batch_end(self, trainer: Trainer, module: LightningModule, out: Any, batch: Any, *_: Any) -> None:
        if not trainer.sanity_checking:
            self.batches.append(checksums(batch[0]))

    def on_test_batch_end(self, trainer: Trainer, module: LightningModule, out: Any, batch: Any, *_: Any) -> None:
        self.on_validation_batch_end(trainer, module, out, batch)


Made = tuple[LightningModule, LightningDataModule, list[Callback]]


def rows(model: Callable[[], LightningModule], count: int, batch_size: int) -> Made:
    return model(), Rows(count, batch_size), [Information(every_n_epochs=1)]


def positions(model: Any, batch: Any) -> tuple[Code, Tensor]:
    """Code the three positions of each row by themselves; a position that begins with a negative number is padding."""
    steps = batch[0].unflatten(1, (3, 2))
    mask = (steps[..., 0] >= 0) | (torch.arange(3) == 0)
    return gaussian_code(torch.cat([steps, steps / 2], -1), sample=False, dim=-1, mask=mask), mask


def padded() -> Made:
    return vib(), Rows(11, 5), [Information(every_n_epochs=1, code=positions, dim=-1)]


def ring() -> Made:
    return gan(2), Ring(batch_size=7, test_size=43, num_examples=20), [SampleQuality(RawFeatures())]


def shapes() -> Made:
    data = Shapes(32, batch_size=10, num_examples=20, test_size=183)
    return vae(1, 32, 32), data, [Factors(probes=["linear"])]


def evaluated(rank: int, devices: int, make: Callable[..., Made], *arguments: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    model, data, callbacks = make(*arguments)
    seen = Seen()
    strategy = "ddp" if devices > 1 else "auto"
    run = trainer(devices=devices, strategy=strategy, callbacks=[seen, *callbacks])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        metrics = {}
        for stage in (run.validate, run.test) if isinstance(data, Rows) else (run.test,):
            for found in stage(model, data, verbose=False):
                metrics |= found
    metrics = {
        name: value for name, value in metrics.items() if "_sampled" not in name or "accuracy" in name
    }  # a draw's
    warned = [str(warning.message) for warning in caught if "DistributedSampler" in str(warning.message)]
    return {"metrics": metrics, "batches": seen.batches, "warned": warned}


def on_both(pool: Pool, make: Callable[..., Made], *arguments: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the results of two processes, and of one."""
    first, second = pool(evaluated, 2, make, *arguments)
    assert first["metrics"] == pytest.approx(second["metrics"], rel=0, abs=0, nan_ok=True)
    assert len(first["batches"]) == len(second["batches"])
    assert first["warned"] == second["warned"] == []
    return first | {"batches": first["batches"] + second["batches"]}, evaluated(0, 1, make, *arguments)


def seen_rows(found: dict[str, Any]) -> list[int]:
    return sorted(row for batch in found["batches"] for row in batch)


# with 6 rows on one process and 5 on the other
@pytest.mark.parametrize(
    ("model", "batch_size"), [*itertools.product([vib, regressor, vae, gan], [1, 5]), (labeller, 5)]
)
def test_metrics_are_those_of_one_process(model: Callable[[], LightningModule], batch_size: int, pool: Pool) -> None:
    together, alone = on_both(pool, rows, model, 11, batch_size)
    assert seen_rows(together) == seen_rows(alone)
    assert len(seen_rows(together)) == len(set(seen_rows(together))) == 22
    assert together["metrics"] == pytest.approx(alone["metrics"], rel=1e-4, abs=1e-6)
    assert {"val/loss", "test/loss", "val/rate_real" if model is gan else "val/rate"} <= set(alone["metrics"])
    assert {"val/information_upper", "test/information_upper", "test/active_units"} <= set(alone["metrics"])


class TwoLoaders(Rows):
    """Validation and test of both parts."""

    def val_dataloader(self) -> Any:
        return [self._evaluation_loader("val"), self._evaluation_loader("test")]

    test_dataloader = val_dataloader


def both(model: Callable[[], LightningModule]) -> Made:
    return model(), TwoLoaders(11, 5), []


@pytest.mark.parametrize("model", [vib, regressor, vae, gan])
def test_metrics_of_several_loaders_are_those_of_one_process(model: Callable[[], LightningModule], pool: Pool) -> None:
    together, alone = on_both(pool, both, model)
    assert together["metrics"] == pytest.approx(alone["metrics"], rel=1e-4, abs=1e-6)
    plain = evaluated(0, 1, rows, model, 11, 5)["metrics"]
    for split, index in (("val", 0), ("test", 1)):  # each as where it is the only loader
        assert alone["metrics"][f"test/loss/dataloader_idx_{index}"] == pytest.approx(plain[f"{split}/loss"], rel=1e-5)


def test_codes_of_positions_are_those_of_one_process(pool: Pool) -> None:
    together, alone = on_both(pool, padded)
    assert together["metrics"] == pytest.approx(alone["metrics"], rel=1e-4, abs=1e-6)
    code, mask = positions(None, Rows(11, 5).dataset("test").__getitems__(range(11)))
    assert 11 < mask.sum() < 33
    expected = marginal_moments(code.mean, code.log_var, mask=mask, dim=-1)["marginal_kl"].item()
    assert together["metrics"]["test/marginal_kl"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("model", [vib, labeller, regressor, vae, gan])
def test_means_are_right_if_a_process_would_have_no_row(model: Callable[[], LightningModule], pool: Pool) -> None:
    together, alone = on_both(pool, lonely, model)
    assert together["metrics"] == pytest.approx(alone["metrics"], rel=1e-5, nan_ok=True)  # R2 of one row
    assert "test/loss" in alone["metrics"]


def lonely(model: Callable[[], LightningModule]) -> Made:
    return model(), Rows(1, 4), []


@pytest.mark.parametrize("make", [ring, shapes])
def test_measurements_are_those_of_one_process(make: Callable[[], Made], pool: Pool) -> None:
    together, alone = on_both(pool, make)
    assert seen_rows(together) == seen_rows(alone)
    assert together["metrics"] == pytest.approx(alone["metrics"], rel=1e-4, abs=1e-6)
    measured = {ring: "test/frechet_distance_raw_43", shapes: "test/mig"}[make]
    assert measured in alone["metrics"]


def sampled_for_paths(rank: int, count: int) -> tuple[list[int], dict[str, float]]:
    """Return checksums of the examples between which paths may run, and the metrics of the paths."""
    kept: list[int] = []

    class Walk(Paths):
        def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            kept.extend(checksums(torch.stack([x for x, _ in self._sample._kept])))
            super().on_test_epoch_end(trainer, pl_module)

    torch.manual_seed(0)
    run = trainer(devices=2, strategy="ddp", callbacks=[Walk(steps=3, num_pairs=1000)])
    [metrics] = run.test(vib(), Rows(count, 4), verbose=False)
    return kept, metrics


def test_each_example_is_sampled_for_paths_once(pool: Pool) -> None:
    (first, metrics), (second, others) = pool(sampled_for_paths, 11)
    x, _ = Rows(11, 4).dataset("test").__getitems__(range(11))
    assert sorted(first + second) == sorted(checksums(x))
    assert metrics == others
    assert "test/path_linear_end_classes" in metrics


def fitted(rank: int, count: int) -> dict[str, Any]:
    """Train and validate with batch norm, whose buffers DDP broadcasts in the forward pass."""
    torch.manual_seed(0)
    model, seen = vib(), Seen()
    run = trainer(devices=2, strategy="ddp", callbacks=[seen], max_epochs=2, num_sanity_val_steps=2)
    run.fit(model, Rows(count, 4))
    [norm] = [part for part in model.modules() if isinstance(part, nn.BatchNorm1d)]
    return {"loss": run.callback_metrics["val/loss"].item(), "batches": seen.batches, "mean": norm.running_mean}


@pytest.mark.parametrize("count", [1, 8, 9, 11])
def test_training_with_batch_norm_continues_after_validation(count: int, pool: Pool) -> None:
    first, second = pool(fitted, count)
    assert first["loss"] == second["loss"]
    assert len(first["batches"]) == len(second["batches"]) == 2 * -(-count // 8)
    assert len(seen_rows(first)) + len(seen_rows(second)) == 2 * (count if count > 1 else 2)


def test_overfit_batches_keeps_its_batch_size(pool: Pool) -> None:
    assert pool(overfitted) == [2, 2]


def overfitted(rank: int) -> int:
    run = trainer(devices=2, strategy="ddp", overfit_batches=1)
    run.fit(vib(), Rows(9, 2))
    return run.fit_loop.epoch_loop.val_loop._combined_loader.flattened[0].batch_size
