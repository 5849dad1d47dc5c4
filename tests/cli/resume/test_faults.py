"""Whatever stops a training, its resume point is there, and it goes on from there as if nothing had happened."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from lit_bottleneck.callbacks import RandomStates, ResumePoint, SampleQuality, WeightEMA
from lit_bottleneck.metrics import RawFeatures
from lit_bottleneck.training.checkpoints import WholeCheckpointIO
from tests.cli.resume.test_exact_resume import Data, Keep, Rows, assert_same, gan, state, train, vae, vib

MODELS = {"vib": vib, "vae": vae, "gan": gan}


class At(Callback):
    """Does something at a batch of an epoch, or in its validation."""

    def __init__(self, epoch: int, batch: int | None, fault: Any) -> None:
        self.epoch, self.batch, self.fault = epoch, batch, fault

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        if (trainer.current_epoch, i) == (self.epoch, self.batch):
            self.fault(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if (trainer.current_epoch, self.batch) == (self.epoch, None) and not trainer.sanity_checking:
            self.fault(trainer)


def is_told_to_end(trainer: Trainer) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def run(kind: str, folder: Path, *more: Callback, data: Any = None, **kwargs: Any) -> tuple[Any, Keep]:
    """A run with resume points; its state at the end, and what it has trained on and logged."""
    keep = Keep()
    callbacks = [RandomStates(), ResumePoint(every_n_steps=2), keep, *more]
    kwargs = {"default_root_dir": folder, "plugins": [WholeCheckpointIO()]} | kwargs
    return state(*train(MODELS[kind], data or Data(), callbacks, **kwargs)), keep


def assert_goes_on(kind: str, folder: Path, alone: Path, data: Any = None, **kwargs: Any) -> None:
    """From the resume point in a folder to what a run without a fault ends with."""
    expected, whole = run(kind, alone, **kwargs)
    found, rest = run(kind, folder, data=data, ckpt_path=folder / "resume.ckpt", seed=9, **kwargs)
    assert_same(found, expected)
    assert 0 < len(rest.seen) < len(whole.seen)
    assert rest.seen == whole.seen[-len(rest.seen) :]
    assert rest.logged == whole.logged[-len(rest.logged) :]
    assert not (folder / "resume.ckpt").exists()


# The last batch of an epoch, before a validation; within one; within a step of four batches; no batch but last ones.
SIGNALS: dict[str, tuple[int, int | None, dict[str, Any]]] = {
    "first batch": (0, 0, {}),
    "some batch": (1, 4, {}),
    "last batch": (0, 10, {}),
    "validation": (1, None, {}),
    "within a step": (0, 4, {"accumulate_grad_batches": 4}),
    "before a validation": (1, 2, {"val_check_interval": 3}),
    "epochs of a batch": (1, 0, {"limit_train_batches": 1, "max_epochs": 5}),
    "validation after every batch": (1, 2, {"val_check_interval": 1}),
}


@pytest.mark.parametrize("moment", SIGNALS)
def test_sigterm_writes_a_checkpoint_before_it_leaves(moment: str, tmp_path: Path) -> None:
    epoch, batch, kwargs = SIGNALS[moment]
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SIGTERMException) as left:
        run("vib", tmp_path / "stopped", At(epoch, batch, is_told_to_end), **kwargs)
    assert left.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    assert_goes_on("vib", tmp_path / "stopped", tmp_path / "alone", **kwargs)


@pytest.mark.parametrize("kind", ["vae", "gan"])
def test_sigterm_in_training(kind: str, tmp_path: Path) -> None:
    with pytest.raises(SIGTERMException):
        run(kind, tmp_path / "stopped", At(1, 4, is_told_to_end))
    assert_goes_on(kind, tmp_path / "stopped", tmp_path / "alone")


def test_an_error_in_a_callback(tmp_path: Path) -> None:
    def fails(trainer: Trainer) -> None:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        run("vib", tmp_path / "stopped", At(1, 5, fails))
    assert_goes_on("vib", tmp_path / "stopped", tmp_path / "alone")


@pytest.mark.parametrize(
    ("at", "kwargs"),
    [
        ((1, 4), {}),
        ((0, 10), {}),  # seen at the first batch of the next epoch
        ((1, 4), {"val_check_interval": 1}),
    ],
)
def test_a_time_limit(at: tuple[int, int], kwargs: dict[str, Any], tmp_path: Path) -> None:
    def is_over(trainer: Trainer) -> None:
        timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
        timers[0].load_state_dict({"time_elapsed": {"train": 86400.0}})

    run("vib", tmp_path / "stopped", At(*at, is_over), max_time="01:00:00:00", **kwargs)
    assert_goes_on("vib", tmp_path / "stopped", tmp_path / "alone", max_time="09:00:00:00", **kwargs)


def test_an_average_of_the_weights_is_that_of_the_step(tmp_path: Path) -> None:
    """Wherever the callback stands that takes it; here after the resume point."""

    def fails(trainer: Trainer) -> None:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        run("vib", tmp_path / "stopped", WeightEMA(0.9), At(1, 5, fails))
    expected, whole = run("vib", tmp_path / "alone", WeightEMA(0.9))
    path = tmp_path / "stopped" / "resume.ckpt"
    found, rest = run("vib", tmp_path / "stopped", WeightEMA(0.9), ckpt_path=path, seed=9)
    assert_same(found, expected)
    assert rest.logged == whole.logged[-len(rest.logged) :]


class Distances(CSVLogger):
    """Notes which distances were logged, with their epoch."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.found: list[tuple[float, float]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:  # type: ignore[override]
        self.found += [(metrics["epoch"], value) for name, value in metrics.items() if "frechet_distance" in name]
        super().log_metrics(metrics, step)


@pytest.mark.parametrize("at", [(3, 5), (5, 5), (6, 2)])
@pytest.mark.parametrize("validated", [False, True])
def test_samples_are_measured_in_the_same_epochs(validated: bool, at: tuple[int, int], tmp_path: Path) -> None:
    """Of eight, in the third, the sixth and the last."""

    def fails(trainer: Trainer) -> None:
        raise RuntimeError("mine")

    def measured_run(folder: Path, *more: Callback, **kwargs: Any) -> tuple[Any, list[tuple[float, float]]]:
        quality, logger = SampleQuality(RawFeatures(), num_samples=40, every_n_epochs=3), Distances(folder)
        kwargs |= {} if validated else {"limit_val_batches": 0}
        end, _ = run("gan", folder, quality, *more, max_epochs=8, logger=logger, **kwargs)
        return end, logger.found

    with pytest.raises(RuntimeError, match="mine"):
        measured_run(tmp_path / "stopped", At(*at, fails))
    expected, whole = measured_run(tmp_path / "alone")
    assert [epoch for epoch, _ in whole] == [2, 5, 7]
    [point] = (tmp_path / "stopped").rglob("resume.ckpt")
    found, rest = measured_run(tmp_path / "stopped", ckpt_path=point, seed=9)
    assert_same(found, expected)
    assert rest == whole[-len(rest) :]
    assert len(rest) == (1 if at[0] > 5 else 2)


class DyingRows(Rows):
    """The loader process that reads the fifth row in the second epoch dies, if there is a file."""

    def __init__(self, fuse: Path) -> None:
        self.fuse = fuse

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        if row == 5 and self.fuse.exists() and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(row)


class DyingData(Data):
    def __init__(self, fuse: Path) -> None:
        super().__init__()
        self.fuse = fuse

    def train_dataloader(self) -> DataLoader[Any]:
        # One batch at a time: when it dies, none is on its way, whose connection would break before torch looks.
        return DataLoader(DyingRows(self.fuse), 4, shuffle=True, num_workers=1, prefetch_factor=1)


def test_a_loader_process_that_dies(tmp_path: Path) -> None:
    fuse = tmp_path / "fuse"
    # An OSError where torch tells it, by a signal, just while a checkpoint is written.
    with pytest.raises((RuntimeError, OSError), match=r"worker \(pid.* (is killed by signal|exited unexpectedly)"):
        run("vib", tmp_path / "stopped", At(0, 9, lambda trainer: fuse.touch()), data=DyingData(fuse))
    fuse.unlink()
    expected, whole = run("vib", tmp_path / "alone", data=DyingData(fuse))
    path = tmp_path / "stopped" / "resume.ckpt"
    found, rest = run("vib", tmp_path / "stopped", data=DyingData(fuse), ckpt_path=path, seed=9)
    assert_same(found, expected)
    assert rest.seen == whole.seen[-len(rest.seen) :]


class FailingLogger(CSVLogger):
    """Fails when it has logged so many rows."""

    def __init__(self, folder: Path, after: int) -> None:
        super().__init__(folder, name="", version="")
        self.left = after

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.left -= 1
        if self.left < 0:
            raise ConnectionError("the server of the logger is gone")
        super().log_metrics(metrics, step)


def test_a_logger_that_fails(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match="the server of the logger is gone"):
        run("vib", tmp_path / "stopped", logger=FailingLogger(tmp_path / "stopped", after=17))
    assert_goes_on("vib", tmp_path / "stopped", tmp_path / "alone")


def test_a_disk_that_fills(tmp_path: Path) -> None:
    def fill(trainer: Trainer) -> None:
        (tmp_path / "stopped" / "..resume.ckpt.part").symlink_to("/dev/full")

    with pytest.raises(OSError, match=r"resume\.ckpt could not be written.*"):
        run("vib", tmp_path / "stopped", At(1, 5, fill))
    assert_goes_on("vib", tmp_path / "stopped", tmp_path / "alone")


def test_only_what_it_needs_is_in_a_resume_point_and_it_is_plain(tmp_path: Path) -> None:
    with pytest.raises(SIGTERMException):
        run("gan", tmp_path, At(0, 3, is_told_to_end))
    checkpoint = torch.load(tmp_path / "resume.ckpt", weights_only=True)
    assert checkpoint["global_step"] > 0
    assert list(tmp_path.iterdir()) == [tmp_path / "resume.ckpt"]
