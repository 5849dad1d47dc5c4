"""A run that was stopped anywhere, and went on from any of its checkpoints, ends as the one that was not."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import ReduceLROnPlateau
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lit_bottleneck import VAE, VDBGAN, VIBClassifier
from lit_bottleneck.beta import DualBeta
from lit_bottleneck.callbacks import RandomStates, WeightEMA
from lit_bottleneck.data import Digits
from lit_bottleneck.data.nuisance import Translation
from lit_bottleneck.networks import MLP, MLPDecoder

ROWS, FEATURES, CLASSES = 44, 6, 3  # eleven batches of four


class Rows(Dataset[tuple[Tensor, Tensor]]):
    """Each row is read with noise from every generator there is."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(FEATURES, generator=torch.Generator().manual_seed(row))
        noise = 0.1 * (torch.randn(FEATURES) + float(np.random.randn()) + random.gauss(0, 1))
        return (x + noise).sigmoid(), torch.tensor(row % CLASSES)


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """Does not tell its length, so that one batch is read ahead."""

    def __iter__(self) -> Any:
        x = torch.rand(ROWS, FEATURES, generator=torch.Generator().manual_seed(0))
        return ((x[row], torch.tensor(row % CLASSES)) for row in torch.randperm(ROWS).tolist())


class Data(LightningDataModule):
    def __init__(self, workers: int = 0, stream: bool = False, own_generator: bool = False) -> None:
        super().__init__()
        self.workers, self.stream, self.own_generator = workers, stream, own_generator

    def train_dataloader(self) -> DataLoader[Any]:
        if self.stream:
            return DataLoader(Stream(), batch_size=4)
        generator = torch.Generator().manual_seed(3) if self.own_generator else None
        return DataLoader(Rows(), 4, shuffle=True, num_workers=self.workers, generator=generator)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Rows(), 22)


def vib(**kwargs: Any) -> VIBClassifier:
    return VIBClassifier(
        MLP(FEATURES, [8], 8), latent_dim=4, num_classes=CLASSES, beta=DualBeta(capacity=0.5, ema=0.5), **kwargs
    )


def vae() -> VAE:
    networks = nn.Sequential(MLP(FEATURES, [8], 8), nn.Dropout(0.0)), MLP(4, [8], FEATURES)
    return VAE(*networks, latent_dim=4, likelihood="gaussian", beta=DualBeta(capacity=0.5, ema=0.5))


def gan(**kwargs: Any) -> VDBGAN:
    return VDBGAN(
        MLPDecoder(4, [8], [FEATURES]),
        MLP(FEATURES, [8], 8),
        latent_dim=4,
        noise_dim=4,
        beta=DualBeta(capacity=0.05, ema=0.5),
        **{"gradient_penalty": 0.5, "discriminator_steps": 2} | kwargs,
    )


class Keep(Callback):
    """Write a checkpoint after every batch, and note what was trained on and logged."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.seen: list[float] = []
        self.logged: list[dict[str, float]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        self.seen.append(float(batch[0].sum()))
        if self.folder is not None:
            trainer.save_checkpoint(self.folder / f"batch-{trainer.current_epoch}-{i}.ckpt")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            measured = trainer.callback_metrics.items()
            self.logged.append({name: float(value) for name, value in measured if name.startswith("val/")})


def train(
    model: Callable[[], LightningModule], data: LightningDataModule, callbacks: list[Callback], **kwargs: Any
) -> tuple[LightningModule, Trainer]:
    seed_everything(kwargs.pop("seed", 0), verbose=False)
    path = kwargs.pop("ckpt_path", None)
    trainer = Trainer(
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **{"max_epochs": 3, "logger": False, "deterministic": True, "enable_checkpointing": False} | kwargs,
    )
    trainer.callbacks.extend(callbacks)
    module = model()
    trainer.fit(module, data, ckpt_path=path, weights_only=True)
    return module, trainer


def assert_same(found: Any, expected: Any) -> None:
    """To the last bit."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            assert_same(found[name], expected[name])
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, Tensor):
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    else:
        assert found == expected or (found != found and expected != expected)


def state(model: LightningModule, trainer: Trainer) -> dict[str, Any]:
    return {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "step": trainer.global_step,
        "random": torch.get_rng_state(),
    }


SCHEDULED: dict[str, Any] = {"lr_scheduler": lambda it: CosineAnnealingLR(it, 33), "lr_scheduler_interval": "step"}
CASES: dict[str, tuple[Callable[[], LightningModule], dict[str, Any], dict[str, Any]]] = {
    "vib": (vib, {}, {}),
    "vib-workers": (vib, {"workers": 2}, {}),
    "vib-stream": (vib, {"stream": True}, {}),
    "vib-generator": (vib, {"own_generator": True}, {}),
    "vib-accumulated": (vib, {}, {"accumulate_grad_batches": 4}),
    "vib-val-within": (vib, {}, {"val_check_interval": 3}),
    "vae": (vae, {}, {}),
    "gan": (gan, {}, {}),
    "vib-averaged": (lambda: vib(**SCHEDULED), {}, {}),
}


STOPS = {
    "vib-val-within": [(0, 3), (1, 0), (1, 6)],
    "vib-accumulated": [(0, 3), (1, 7)],
}  # within no step, before no test


def callbacks(case: str, *more: Callback) -> list[Callback]:
    """Those of a run, made anew."""
    return [RandomStates(), *([WeightEMA(0.9)] if case == "vib-averaged" else []), *more]


@pytest.mark.parametrize(
    ("case", "under_way"),
    [
        ("vib", [10]),
        ("vib-val-within", [2, 5, 8, 10]),
        ("vib-accumulated", [0, 1, 2, 4, 5, 6, 8, 9, 10]),
        ("gan", [10]),
    ],
)
def test_a_checkpoint_tells_that_something_is_under_way(case: str, under_way: list[int], tmp_path: Path) -> None:
    model, data, kwargs = CASES[case]
    train(model, Data(**data), callbacks(case, Keep(tmp_path)), **kwargs | {"max_epochs": 1})
    marks = [torch.load(tmp_path / f"batch-0-{batch}.ckpt", weights_only=True)["under_way"] for batch in range(11)]
    assert [batch for batch, mark in enumerate(marks) if mark] == under_way


def test_the_end_of_an_epoch_is_under_way_until_a_plateau_was_looked_for(tmp_path: Path) -> None:
    def model() -> VIBClassifier:
        return vib(lr_scheduler=lambda optimizer: ReduceLROnPlateau(optimizer, monitor="val/loss"))

    points = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    train(model, Data(), [RandomStates(), points], enable_checkpointing=True)
    marks = [torch.load(path, weights_only=True)["under_way"] for path in tmp_path.glob("*.ckpt")]
    assert marks == [True] * 3


def test_a_validation_within_a_step_is_under_way(tmp_path: Path) -> None:
    points = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, save_on_train_epoch_end=False)
    kwargs = {"accumulate_grad_batches": 2, "val_check_interval": 3, "enable_checkpointing": True, "max_epochs": 1}
    train(vib, Data(), [RandomStates(), points], **kwargs)
    marks = {path.stem: torch.load(path, weights_only=True)["under_way"] for path in tmp_path.glob("*.ckpt")}
    assert marks == {"step=1": True, "step=3": False, "step=4": True}  # after 3, 6 and 9 of eleven batches


class End(Callback):
    """Ends the training in its second epoch."""

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        trainer.should_stop = trainer.global_step == 15


def test_the_end_of_an_epoch_that_is_cut_is_under_way(tmp_path: Path) -> None:
    points = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    train(vib, Data(), [RandomStates(), End(), points], enable_checkpointing=True)
    marks = {path.stem: torch.load(path, weights_only=True)["under_way"] for path in tmp_path.glob("*.ckpt")}
    assert marks == {"epoch=0": False, "epoch=1": True}


@pytest.mark.parametrize("case", CASES)
def test_from_the_end_of_a_batch(case: str, tmp_path: Path) -> None:
    model, data, kwargs = CASES[case]
    whole = Keep(tmp_path)
    expected = state(*train(model, Data(**data), callbacks(case, whole), **kwargs))
    assert len(whole.seen) == 33
    for epoch, batch in STOPS.get(case, [(0, 0), (0, 3), (1, 7), (2, 3)]):
        rest = Keep()
        path = tmp_path / f"batch-{epoch}-{batch}.ckpt"
        found = state(*train(model, Data(**data), callbacks(case, rest), **kwargs, ckpt_path=path, seed=9))
        assert rest.seen == whole.seen[11 * epoch + batch + 1 :]
        assert_same(found, expected)
        assert rest.logged == whole.logged[len(whole.logged) - len(rest.logged) :]


def test_from_within_an_epoch_whose_images_loader_processes_move(tmp_path: Path) -> None:
    def model() -> VIBClassifier:
        return VIBClassifier(MLP(64, [8], 8), latent_dim=4, num_classes=10)

    def data() -> Digits:
        return Digits(batch_size=200, num_workers=2, nuisance=Translation(max_pixels=1))

    whole, rest = Keep(tmp_path), Keep()
    expected = state(*train(model, data(), [RandomStates(), whole], max_epochs=2))
    path = tmp_path / "batch-1-2.ckpt"
    assert_same(state(*train(model, data(), [RandomStates(), rest], max_epochs=2, ckpt_path=path, seed=9)), expected)
    assert rest.seen == whole.seen[-len(rest.seen) :]
    assert 0 < len(rest.seen) < len(whole.seen) / 2


@pytest.mark.parametrize(
    ("case", "at"), [*((case, "val") for case in CASES), ("vib", "train"), ("vib-workers", "train"), ("gan", "train")]
)
def test_from_a_checkpoint_of_lightning(case: str, at: str, tmp_path: Path) -> None:
    model, data, kwargs = CASES[case]
    whole = Keep()
    points = ModelCheckpoint(tmp_path, "{epoch}-{step}", save_top_k=-1, save_on_train_epoch_end=at == "train")
    checkpointing = {"enable_checkpointing": True}
    expected = state(*train(model, Data(**data), callbacks(case, whole, points), **kwargs, **checkpointing))
    del expected["random"]  # after the last epoch it is of no use, and is not set again
    paths = sorted(tmp_path.glob("*.ckpt"))
    assert len(paths) == (9 if case == "vib-val-within" and at == "val" else 3)
    for path in paths:
        rest = Keep()
        found = state(*train(model, Data(**data), callbacks(case, rest), **kwargs, ckpt_path=path, seed=9))
        assert rest.seen == whole.seen[len(whole.seen) - len(rest.seen) :]
        assert_same({name: found[name] for name in expected}, expected)
