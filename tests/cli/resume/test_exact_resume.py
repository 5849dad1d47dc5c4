"""A run that is resumed from any of its checkpoints ends bit by bit as the uninterrupted run."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import ReduceLROnPlateau
from torch.optim.lr_scheduler import CosineAnnealingLR

from lit_bottleneck import VIBClassifier
from lit_bottleneck.callbacks import RandomStates, WeightEMA
from lit_bottleneck.data import Digits
from lit_bottleneck.data.nuisance import Translation
from lit_bottleneck.networks import MLP
from tests.cli.resume.trainings import Data, Keep, assert_same, gan, state, train, vae, vib

SCHEDULED: dict[str, Any] = {"lr_scheduler": lambda it: CosineAnnealingLR(it, 33), "lr_scheduler_interval": "step"}
CASES: dict[str, tuple[Callable[[], LightningModule], dict[str, Any], dict[str, Any]]] = {
    "vib": (vib, {}, {}),
    "vib-workers": (vib, {"workers": 2}, {}),
    "vib-stream": (vib, {"stream": True}, {}),
    "vib-generator": (vib, {"own_generator": True}, {}),
    "vib-accumulated": (vib, {}, {"accumulate_grad_batches": 4}),
    "vib-val-within": (vib, {}, {"val_check_interval": 3}),
    "vib-max-steps": (vib, {}, {"max_epochs": -1, "max_steps": 33}),
    "vae": (vae, {}, {}),
    "gan": (gan, {}, {}),
    "vib-averaged": (lambda: vib(**SCHEDULED), {}, {}),
}
QUICK = ("vib", "vib-val-within", "vib-accumulated", "vib-workers", "vae", "gan")
STOPS = {  # epoch and batch; not within an accumulated step, nor before a validation
    "vib": [(0, 0), (0, 3), (1, 7), (2, 3)],
    "vib-workers": [(1, 7)],
    "vib-val-within": [(0, 3), (1, 0), (1, 6)],
}


class Whole(NamedTuple):
    """An uninterrupted run: the folder of its checkpoints, its state at the end, and its batches and metrics."""

    folder: Path
    state: dict[str, Any]
    keep: Keep


def with_marks(case: str, *more: str) -> Any:
    return pytest.param(case, *more, marks=[] if case in QUICK else pytest.mark.slow)


def callbacks(case: str, *more: Callback) -> list[Callback]:
    return [RandomStates(), *([WeightEMA(0.9)] if case == "vib-averaged" else []), *more]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Whole]:
    """Train a case once; checkpoints after every batch, every validation and every epoch."""

    @cache
    def trained(case: str) -> Whole:
        model, data, kwargs = CASES[case]
        folder = tmp_path_factory.mktemp(case)
        keep = Keep(folder)
        points = [  # another mode, of no effect without a monitor, only tells the two apart
            ModelCheckpoint(folder / at, "{epoch}-{step}", save_top_k=-1, mode=mode, save_on_train_epoch_end=end)
            for at, mode, end in (("val", "min", False), ("train", "max", True))
        ]
        kwargs = {"enable_checkpointing": True, **kwargs}
        return Whole(folder, state(*train(model, Data(**data), callbacks(case, keep, *points), **kwargs)), keep)

    return trained


def assert_resumes(case: str, path: Path, whole: Whole, without: str = "") -> Keep:
    """Resume a run from a checkpoint, and compare it with the uninterrupted one."""
    model, data, kwargs = CASES[case]
    rest = Keep()
    found = state(*train(model, Data(**data), callbacks(case, rest), **kwargs, ckpt_path=path, seed=9))
    assert_same(*({name: end[name] for name in end if name != without} for end in (found, whole.state)))
    assert rest.seen == whole.keep.seen[len(whole.keep.seen) - len(rest.seen) :]
    assert rest.logged == whole.keep.logged[len(whole.keep.logged) - len(rest.logged) :]
    return rest


@pytest.mark.parametrize("case", [with_marks(case) for case in CASES])
def test_from_the_end_of_a_batch(case: str, whole: Callable[[str], Whole]) -> None:
    expected = whole(case)
    assert len(expected.keep.seen) == 33
    for epoch, batch in STOPS.get(case, [(0, 3), (1, 7)]):
        rest = assert_resumes(case, expected.folder / f"batch-{epoch}-{batch}.ckpt", expected)
        assert len(rest.seen) == 33 - (11 * epoch + batch + 1)


@pytest.mark.parametrize(
    ("case", "at"),
    [
        *(with_marks(case, "val") for case in CASES),
        *(with_marks(case, "train") for case in ("vib", "vib-max-steps", "vib-workers", "gan")),
    ],
)
def test_from_a_checkpoint_of_lightning(case: str, at: str, whole: Callable[[str], Whole]) -> None:
    expected = whole(case)
    paths = sorted((expected.folder / at).glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    assert len(paths) == (9 if (case, at) == ("vib-val-within", "val") else 3)
    chosen = {"vib": paths, "vib-max-steps": paths, "vib-val-within": [*paths[:3], paths[-1]]}.get(case, paths[1:2])
    for path in chosen:
        # after the last epoch the random state is of no use, and is not restored
        rest = assert_resumes(case, path, expected, without="random")
        assert (len(rest.seen) == 0) == (path == paths[-1] and case != "vib-val-within")


@pytest.mark.parametrize(
    ("case", "under_way"),
    [
        ("vib", [10]),
        ("vib-val-within", [2, 5, 8, 10]),
        ("vib-accumulated", [0, 1, 2, 4, 5, 6, 8, 9, 10]),
        ("gan", [10]),
    ],
)
def test_a_checkpoint_marks_unfinished_work(case: str, under_way: list[int], whole: Callable[[str], Whole]) -> None:
    folder = whole(case).folder
    marks = [torch.load(folder / f"batch-0-{batch}.ckpt", weights_only=True)["under_way"] for batch in range(11)]
    assert [batch for batch, mark in enumerate(marks) if mark] == under_way


class End(Callback):
    """End the training in its second epoch."""

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        trainer.should_stop = trainer.global_step == 15


def plateau() -> VIBClassifier:
    return vib(lr_scheduler=lambda optimizer: ReduceLROnPlateau(optimizer, monitor="val/loss"))


@pytest.mark.parametrize(
    ("model", "more", "kwargs", "marks"),
    [
        # until the scheduler has compared the metric
        (plateau, [], {"max_epochs": 2}, {"step=11": True, "step=22": True}),
        # validations after 3, 6 and 9 of eleven batches
        (vib, [], {"accumulate_grad_batches": 2, "val_check_interval": 3, "max_epochs": 1},
         {"step=1": True, "step=3": False, "step=4": True}),
        # the end of an epoch that was ended early
        (vib, [End()], {}, {"step=11": False, "step=15": True}),
    ],
    ids=["plateau", "validation within a step", "ended epoch"],
)  # fmt: skip
def test_a_checkpoint_of_lightning_marks_unfinished_work(
    model: Callable[[], LightningModule], more: list[Callback], kwargs: Any, marks: dict[str, bool], tmp_path: Path
) -> None:
    at_epoch_end = False if "val_check_interval" in kwargs else None
    points = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, save_on_train_epoch_end=at_epoch_end)
    train(model, Data(), [RandomStates(), *more, points], enable_checkpointing=True, **kwargs)
    found = {path.stem: torch.load(path, weights_only=True)["under_way"] for path in tmp_path.glob("*.ckpt")}
    assert found == marks


def test_from_within_an_epoch_with_random_transforms_in_loader_processes(tmp_path: Path) -> None:
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
