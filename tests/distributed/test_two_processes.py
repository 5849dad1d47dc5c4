"""What two processes compute together is what one computes with all rows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed
from lightning import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_bottleneck import GaussianBottleneck, VIBClassifier
from lit_bottleneck.beta import GECO, BetaController, DualBeta
from lit_bottleneck.callbacks import PredictionWriter
from lit_bottleneck.data import Digits
from lit_bottleneck.networks import MLP
from tests.distributed.pool import Pool


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    pool = Pool(tmp_path_factory.mktemp("pool"))
    yield pool
    pool.close()


class Priced(GaussianBottleneck, nn.Module):
    """Nothing but a price."""


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
    """Rates in 64ths of a nat: their sums are exact in every order, so that equal means equal to the last bit."""
    generator = torch.Generator().manual_seed(0)
    return [
        tuple(
            [torch.randint(1, 400 * (rank + 1), (n,), generator=generator) / 64 for n in sizes]
            for rank, sizes in enumerate(step)
        )
        for step in SIZES
    ]


def prices(controller: BetaController, steps: list[list[Tensor]]) -> list[float]:
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


def prices_of_rank(rank: int, kind: str, steps: list[tuple[list[Tensor], list[Tensor]]]) -> list[float]:
    return prices(CONTROLLERS[kind](), [step[rank] for step in steps])


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_beta_is_the_same_on_both_and_that_of_one_process_with_all_rows(kind: str, pool: Pool) -> None:
    first, second = pool(prices_of_rank, kind, rates())
    assert first == second
    assert first == prices(CONTROLLERS[kind](), [[*here, *there] for here, there in rates()])
    assert len(set(first[:-1])) == len(SIZES) - 1  # it has moved in every step but the empty one
    assert first[-1] == 1


def one_side_steps(rank: int) -> float:
    """The first process ends a step, the second does not; then both sum, which an unanswered sum would disturb."""
    module = Priced(beta=0.5)
    if rank == 0:
        for _ in range(3):
            module.rate_penalty(torch.ones(4))
            module.step_beta()
    total = torch.tensor([10.0 + rank])
    torch.distributed.all_reduce(total)
    return total.item()


def test_a_constant_price_needs_no_other_process(pool: Pool) -> None:
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
        strategy="ddp" if devices > 1 else "auto",
        use_distributed_sampler=False,
        **{"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        | kwargs,
    )


def measured_by_rank(rank: int, parts: list[list[int]]) -> dict[str, float]:
    data = DataLoader(torch.utils.data.Subset(rows(11), parts[rank]), batch_size=3)
    [metrics] = trainer(2).validate(classifier(), data, verbose=False)
    return metrics


def test_metrics_are_those_of_all_rows_whatever_each_process_has(pool: Pool) -> None:
    first, second = pool(measured_by_rank, [[*range(5)], [*range(5, 11)]])  # in batches of 3 + 2 and 3 + 3
    assert first == second
    [alone] = trainer(1).validate(classifier(), DataLoader(rows(11), batch_size=11), verbose=False)
    assert first == pytest.approx(alone, rel=1e-6)


def trained_by_rank(rank: int | None, controlled: bool) -> dict[str, Any]:
    """Six steps of twelve rows, or of five and seven in two processes. The code has no noise that could differ."""
    model = classifier(beta=DualBeta(capacity=0.05, ema=0.5) if controlled else 0.25)
    model.bottleneck_noise = None
    order = torch.arange(72).reshape(6, 12)
    batches = order if rank is None else (order[:, :6], order[:, 6:])[rank]
    data = DataLoader(rows(72), batch_sampler=[batch.tolist() for batch in batches])
    run = trainer(1 if rank is None else 2, max_epochs=1)
    run.fit(Noiseless.of(model), data)
    state = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    return {"beta": model.beta, "skipped": model.beta_controller.skipped_updates, "state": state, "steps": run.global_step}


class Noiseless(VIBClassifier):
    """Trains on the mean code, at the price of its rate."""

    @classmethod
    def of(cls, model: VIBClassifier) -> VIBClassifier:
        model.__class__ = cls
        return model

    def encode(self, x: Tensor, sample: bool | None = None) -> Any:
        return super().encode(x, sample=False)


@pytest.mark.parametrize("controlled", [False, True])
def test_training_in_two_processes_is_training_on_both_halves_at_once(controlled: bool, pool: Pool) -> None:
    first, second = pool(trained_by_rank, controlled)
    alone = trained_by_rank(None, controlled)
    assert first["beta"] == second["beta"]
    assert first["beta"] == pytest.approx(alone["beta"], rel=1e-6)
    assert (alone["beta"] != 1e-3) == (alone["beta"] != 0.25) or not controlled
    assert first["steps"] == second["steps"] == alone["steps"] == 6
    torch.testing.assert_close(first["state"], second["state"], rtol=0, atol=0)
    torch.testing.assert_close(first["state"], alone["state"], rtol=1e-4, atol=1e-5)


def predict(rank: int, folder: Path) -> int:
    torch.manual_seed(0)
    model = VIBClassifier(MLP(64, [8], 8), latent_dim=4, num_classes=10)
    run = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        callbacks=[PredictionWriter()],
    )
    run.predict(model, datamodule=Digits(), return_predictions=False)
    return run.world_size


def test_each_process_writes_its_predictions_and_together_they_cover_the_test_set(pool: Pool, tmp_path: Path) -> None:
    assert pool(predict, tmp_path) == [2, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions-0.npz", "predictions-1.npz"]
    files = [dict(np.load(tmp_path / f"predictions-{rank}.npz")) for rank in range(2)]
    assert {*files[0]["index"], *files[1]["index"]} == set(range(359))
    labels = Digits().dataset("test").__getitems__(range(359))[1].numpy()
    for file in files:
        assert len(file["index"]) == 180  # 359 rows on two processes: one of them twice
        assert (file["label"] == labels[file["index"].astype(int)]).all()
