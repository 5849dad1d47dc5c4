"""Two processes compute together what one computes with all rows."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed
import wandb
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lit_bottleneck import VDBGAN, GaussianBottleneck, VIBClassifier
from lit_bottleneck.beta import GECO, BetaController, DualBeta
from lit_bottleneck.callbacks import PredictionWriter, SampleQuality
from lit_bottleneck.cli import main
from lit_bottleneck.cli.recipes import recipe_paths
from lit_bottleneck.code import Code
from lit_bottleneck.data import Digits, Ring
from lit_bottleneck.metrics import RawFeatures
from lit_bottleneck.networks import MLP, MLPDecoder
from tests.distributed.pool import Pool


class Priced(GaussianBottleneck, nn.Module):
    """A module with nothing but beta."""


# By optimizer step, by process, by micro-batch: the numbers of examples. Ragged, empty, more batches here than there.
SIZES = [
    ([5], [5]),
    ([7], [2]),
    ([4], [0]),
    ([0], [3]),
    ([3, 3, 1], [6]),
    ([0, 2], [1, 0]),
    ([0], [0]),
    ([1], [9, 9]),
]


def rates() -> list[tuple[list[Tensor], list[Tensor]]]:
    """Return rates in 64ths of a nat: their sums are exact in every order, so that results are bit-identical."""
    generator = torch.Generator().manual_seed(0)
    return [
        tuple(
            [torch.randint(1, 400 * (rank + 1), (n,), generator=generator) / 64 for n in sizes]
            for rank, sizes in enumerate(step)
        )
        for step in SIZES
    ]


def betas(controller: BetaController, steps: list[list[Tensor]]) -> list[float]:
    module = Priced(beta=controller)
    found = []
    for batches in steps:
        for rate in batches:
            module.rate_penalty(rate, distortion=2 * rate - 1)
        module.step_beta()
        found.append(module.beta)
    return [*found, module.beta_controller.skipped_updates]


CONTROLLERS = {
    "log": lambda: DualBeta(capacity=3.0, ema=0.5, gain=0.2, max_error=10.0),
    "linear": lambda: DualBeta.paper(capacity=3.0, gain=1e-2),
    "geco": lambda: GECO(target_distortion=5.0),
}


def betas_of_rank(rank: int, kind: str, steps: list[tuple[list[Tensor], list[Tensor]]]) -> list[float]:
    return betas(CONTROLLERS[kind](), [step[rank] for step in steps])


@pytest.mark.filterwarnings("ignore:.*beta has not moved")
@pytest.mark.parametrize("kind", CONTROLLERS)
def test_beta_equals_that_of_one_process_with_all_rows(kind: str, pool: Pool) -> None:
    first, second = pool(betas_of_rank, kind, rates())
    assert first == second
    assert first == betas(CONTROLLERS[kind](), [[*here, *there] for here, there in rates()])
    assert len(set(first[:-1])) == len(SIZES) - 1  # it has moved in every step but the empty one
    assert first[-1] == 1


def one_side_steps(rank: int) -> float:
    """End steps on the first process only, then reduce on both: a pending reduction would change the sum."""
    module = Priced(beta=0.5)
    if rank == 0:
        for _ in range(3):
            module.rate_penalty(torch.ones(4))
            module.step_beta()
    total = torch.tensor([10.0 + rank])
    torch.distributed.all_reduce(total)
    return total.item()


def test_a_constant_beta_reduces_over_no_processes(pool: Pool) -> None:
    assert pool(one_side_steps) == [21.0, 21.0]


def classifier(**kwargs: Any) -> VIBClassifier:
    torch.manual_seed(0)
    return VIBClassifier(MLP(6, [8], 8), **{"latent_dim": 4, "num_classes": 3, "beta": 0.25} | kwargs)


def rows(count: int) -> TensorDataset:
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(1))
    return TensorDataset(x, torch.arange(count) % 3)


def trainer(devices: int, **kwargs: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=devices,
        use_distributed_sampler=False,
        **{
            "strategy": "ddp" if devices > 1 else "auto",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        | kwargs,
    )


def measured_by_rank(rank: int, parts: list[list[int]]) -> dict[str, float]:
    data = DataLoader(torch.utils.data.Subset(rows(11), parts[rank]), batch_size=3)
    [metrics] = trainer(2).validate(classifier(), data, verbose=False)
    return metrics


def test_metrics_of_uneven_processes_are_those_of_all_rows(pool: Pool) -> None:
    first, second = pool(measured_by_rank, [[*range(5)], [*range(5, 11)]])  # in batches of 3 + 2 and 3 + 3
    assert first == second
    [alone] = trainer(1).validate(classifier(), DataLoader(rows(11), batch_size=11), verbose=False)
    assert first == pytest.approx(alone, rel=1e-6)


class Noiseless(VIBClassifier):
    """Train on the mean code: two processes draw other noise than one."""

    def encode(self, x: Tensor, sample: bool | None = None) -> Code:
        return super().encode(x, sample=False)


def trained(parts: int, part: int, controlled: bool) -> dict[str, Any]:
    """Train six steps of twelve rows, of which this process sees one part."""
    torch.manual_seed(0)
    beta = DualBeta(capacity=0.05, ema=0.5) if controlled else 0.25
    model = Noiseless(MLP(6, [8], 8), latent_dim=4, num_classes=3, beta=beta)
    batches = torch.arange(72).reshape(6, 12).chunk(parts, dim=1)[part]
    run = trainer(parts, max_epochs=1)
    run.fit(model, DataLoader(rows(72), batch_sampler=batches.tolist()))
    weights = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    return {"beta": model.beta, "weights": weights, "steps": run.global_step}


def trained_by_rank(rank: int, controlled: bool) -> dict[str, Any]:
    return trained(2, rank, controlled)


@pytest.mark.parametrize("controlled", [False, True])
def test_two_processes_train_like_one_on_both_halves(controlled: bool, pool: Pool) -> None:
    first, second = pool(trained_by_rank, controlled)
    alone = trained(1, 0, controlled)
    assert first["steps"] == second["steps"] == alone["steps"] == 6
    assert first["beta"] == second["beta"] == pytest.approx(alone["beta"], rel=1e-6)
    if controlled:
        assert first["beta"] > 1.1e-3  # the rate was above the capacity
    torch.testing.assert_close(first["weights"], second["weights"], rtol=0, atol=0)
    torch.testing.assert_close(first["weights"], alone["weights"], rtol=1e-4, atol=1e-5)


def predict_from_the_command_line(rank: int, folder: Path) -> None:
    paths = recipe_paths()
    overlays = ["--config", str(paths["vib_digits"]), "--config", str(paths["trainer/ddp"])]
    settings = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.enable_progress_bar=false"]
    sys.argv = ["lit-bottleneck"]
    main(["predict", *overlays, *settings, f"--trainer.logger.init_args.save_dir={folder}"])


def test_predictions_of_both_are_the_test_set_in_one_new_folder_a_run(pool: Pool, tmp_path: Path) -> None:
    for run in range(2):
        pool(predict_from_the_command_line, tmp_path)
        files = sorted(tmp_path.rglob("predictions*"))
        assert [path.parent.name for path in files] == sorted([f"version_{earlier}" for earlier in range(run + 1)] * 2)
    assert [path.name for path in files] == ["predictions-0.npz", "predictions-1.npz"] * 2
    written = [dict(np.load(path)) for path in files[:2]]
    indices = np.concatenate([file["index"] for file in written])
    assert sorted(indices.tolist()) == list(range(359))
    labels = Digits().dataset("test").__getitems__(range(359))[1].numpy()
    assert (np.concatenate([file["label"] for file in written]) == labels[indices]).all()


def predict_with_weights_and_biases(rank: int, folder: Path) -> None:
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    logger = WandbLogger(project="mine", save_dir=folder, offline=True)
    kwargs = {"logger": logger, "callbacks": [PredictionWriter()]}
    trainer(2, **kwargs).predict(classifier(), DataLoader(rows(11), batch_size=3), return_predictions=False)
    wandb.finish()


def test_predictions_share_a_folder_that_only_the_first_process_knows(pool: Pool, tmp_path: Path) -> None:
    pool(predict_with_weights_and_biases, tmp_path)
    [first, second] = sorted(tmp_path.rglob("predictions*"), key=lambda path: path.name)
    assert second.parent == first.parent


class NoiselessGAN(VDBGAN):
    """Train on the mean code; the generator's noise follows from the step and the row's place among all rows."""

    rows_before = 0

    def draw_noise(self, n: int) -> Tensor:
        generator = torch.Generator().manual_seed(sum(self.steps_taken.values()))
        return torch.randn(12, self.noise_dim, generator=generator)[self.rows_before : self.rows_before + n]

    def encode(self, x: Tensor, sample: bool | None = None) -> Code:
        return super().encode(x, sample=False)


def trained_gan(parts: int, part: int, accumulate: int = 1) -> dict[str, Any]:
    """Train six steps of twelve rows, of which this process sees one part."""
    torch.manual_seed(0)
    networks = MLPDecoder(4, [8], [6]), MLP(6, [8], 8)
    model = NoiselessGAN(
        *networks,
        latent_dim=4,
        noise_dim=4,
        beta=DualBeta(capacity=0.05, ema=0.5),
        gradient_penalty=0.5,
        accumulate_grad_batches=accumulate,
        discriminator_steps=2,
    )
    model.rows_before = 12 // parts * part
    batches = torch.arange(72).reshape(6, 12).chunk(parts, dim=1)[part]
    strategy = "ddp_find_unused_parameters_true" if parts > 1 else "auto"
    run = trainer(parts, max_epochs=1, strategy=strategy)
    run.fit(model, DataLoader(rows(72), batch_sampler=batches.tolist()))
    weights = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    return {"beta": model.beta, "weights": weights, "steps": model.steps_taken}


def trained_gan_by_rank(rank: int, accumulate: int) -> dict[str, Any]:
    return trained_gan(2, rank, accumulate)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_gan_on_two_processes_trains_like_one_on_both_halves(accumulate: int, pool: Pool) -> None:
    first, second = pool(trained_gan_by_rank, accumulate)
    alone = trained_gan(1, 0, accumulate)
    assert first["steps"] == second["steps"] == alone["steps"]
    assert alone["steps"] == {"discriminator": 6 // accumulate, "generator": 6 // accumulate // 2}
    assert first["beta"] == second["beta"] == pytest.approx(alone["beta"], rel=1e-6)
    assert first["beta"] > 1.05e-3  # the rate was above the capacity
    torch.testing.assert_close(first["weights"], second["weights"], rtol=0, atol=0)
    torch.testing.assert_close(first["weights"], alone["weights"], rtol=1e-4, atol=1e-5)


def noise_of_rank(rank: int) -> Tensor:
    torch.manual_seed(7)
    return VDBGAN(MLPDecoder(4, [8], [6]), MLP(6, [8], 8), latent_dim=4, noise_dim=4).draw_noise(5)


def test_processes_with_the_same_seed_draw_different_noise(pool: Pool) -> None:
    first, second = pool(noise_of_rank)
    torch.manual_seed(7)
    model = VDBGAN(MLPDecoder(4, [8], [6]), MLP(6, [8], 8), latent_dim=4, noise_dim=4)
    torch.testing.assert_close(torch.cat([first, second]), model.draw_noise(10), rtol=0, atol=0)


class Line(LightningModule):
    """Sample from a linear layer of noise, and keep the samples."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 2)
        self.drawn: list[Tensor] = []

    def sample(self, n: int) -> Tensor:
        self.drawn.append(self.layer(torch.randn(n, 3)))
        return self.drawn[-1]

    def test_step(self, batch: Any, batch_idx: int) -> None:
        pass


class Stream(IterableDataset[Tensor]):
    """A data set without a length, which may be empty."""

    def __init__(self, data: Tensor) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.data)


class PartOfRing(Ring):
    """Some of the test points."""

    def __init__(self, part: list[int], batch_size: int) -> None:
        super().__init__(test_size=80, num_examples=10, batch_size=batch_size)
        self.part = part

    def test_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(Stream(self.dataset("test").__getitems__(self.part)[0]), batch_size=self.batch_size)


def quality_by_rank(rank: int, parts: list[list[int]], num_samples: int) -> dict[str, Any]:
    model, data = Line(), PartOfRing(parts[rank], batch_size=16)
    run = trainer(2, callbacks=[SampleQuality(RawFeatures(), num_samples=num_samples)])
    [scores] = run.test(model, data, verbose=False)
    return {"scores": scores, "samples": torch.cat([torch.zeros(0, 2), *model.drawn]).numpy()}


class Drawn(Line):
    """Return samples that were drawn before."""

    def __init__(self, samples: Tensor) -> None:
        super().__init__()
        self.samples = samples

    def sample(self, n: int) -> Tensor:
        return self.samples


@pytest.mark.parametrize(
    ("sizes", "num_samples", "counts"),
    [
        ((40, 40), 10_000, (40, 40)),
        ((50, 30), 10_000, (50, 30)),
        ((80, 0), 10_000, (80, 0)),
        ((0, 80), 10_000, (0, 80)),
        ((40, 40), 51, (26, 25)),
    ],
)
def test_samples_of_two_processes_are_distinct_and_scored_as_on_one(
    sizes: tuple[int, int], num_samples: int, counts: tuple[int, int], pool: Pool
) -> None:
    parts = [list(range(sizes[0])), list(range(sizes[0], sum(sizes)))]
    first, second = pool(quality_by_rank, parts, num_samples)
    assert first["scores"] == second["scores"]
    assert (len(first["samples"]), len(second["samples"])) == counts
    samples = torch.from_numpy(np.concatenate([first["samples"], second["samples"]]))
    assert len(samples.unique(dim=0)) == sum(counts)

    seen = [*parts[0][: counts[0]], *parts[1][: counts[1]]]
    run = trainer(1, callbacks=[SampleQuality(RawFeatures())])
    [alone] = run.test(Drawn(samples), PartOfRing(seen, batch_size=80), verbose=False)
    assert f"test/frechet_distance_raw_{sum(counts)}" in alone
    assert len(alone) == 9  # four scores, and five of the modes
    assert first["scores"] == pytest.approx(alone, rel=1e-5)
