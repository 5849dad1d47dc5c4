"""Whatever interrupts a training, its resume point is there, and a resumed run ends as the uninterrupted one."""

import contextlib
import os
import shutil
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from lit_bottleneck.callbacks import RandomStates, ResumePoint, SampleQuality, WeightEMA
from lit_bottleneck.metrics import RawFeatures
from lit_bottleneck.training.checkpoints import WholeCheckpointIO
from tests.cli.resume.trainings import Data, Keep, Rows, assert_same, gan, state, train, vae, vib
from tests.full_disk import no_file_longer_than

MODELS = {"vib": vib, "vae": vae, "gan": gan}
End = tuple[Any, Keep]  # the state at the end of a run; its batches and metrics


class At(Callback):
    """Call a function at a batch of an epoch, or (without a batch) in the epoch's validation."""

    def __init__(self, epoch: int, batch: int | None, fault: Callable[[Trainer], None]) -> None:
        self.epoch, self.batch, self.fault = epoch, batch, fault

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, i: int) -> None:
        if (trainer.current_epoch, i) == (self.epoch, self.batch):
            self.fault(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if (trainer.current_epoch, self.batch) == (self.epoch, None) and not trainer.sanity_checking:
            self.fault(trainer)


def terminate(trainer: Trainer) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def fail(trainer: Trainer) -> None:
    raise RuntimeError("mine")


def run(kind: str, folder: Path, *more: Callback, data: Any = None, **kwargs: Any) -> End:
    """Train with resume points."""
    keep = Keep()
    callbacks = [RandomStates(), ResumePoint(every_n_steps=2), keep, *more]
    kwargs = {"default_root_dir": folder, "plugins": [WholeCheckpointIO()]} | kwargs
    return state(*train(MODELS[kind], data or Data(), callbacks, **kwargs)), keep


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., End]:
    """Train without a fault, once for each kind and settings."""

    @cache
    def trained(kind: str, **kwargs: Any) -> End:
        return run(kind, tmp_path_factory.mktemp("alone"), **kwargs)

    return trained


def assert_resumes(kind: str, folder: Path, alone: End, *more: Callback, **kwargs: Any) -> None:
    """Resume from the folder's resume point, and compare with the uninterrupted run."""
    expected, whole = alone
    found, rest = run(kind, folder, *more, ckpt_path=folder / "resume.ckpt", seed=9, **kwargs)
    assert_same(found, expected)
    assert 0 < len(rest.seen) < len(whole.seen)
    assert rest.seen == whole.seen[-len(rest.seen) :]
    assert rest.logged == whole.logged[-len(rest.logged) :]
    assert not (folder / "resume.ckpt").exists()


# The last batch of an epoch, before a validation; within one; within a step of four batches; no batch but last ones.
SIGNALS: dict[str, tuple[str, int, int | None, dict[str, Any]]] = {
    "first batch": ("vib", 0, 0, {}),
    "some batch": ("vib", 1, 4, {}),
    "last batch": ("vib", 0, 10, {}),
    "validation": ("vib", 1, None, {}),
    "within a step": ("vib", 0, 4, {"accumulate_grad_batches": 4}),
    "before a validation": ("vib", 1, 2, {"val_check_interval": 3}),
    "epochs of a batch": ("vib", 1, 0, {"limit_train_batches": 1, "max_epochs": 5}),
    "validation after every batch": ("vib", 1, 2, {"val_check_interval": 1, "limit_train_batches": 4}),
    "vae": ("vae", 1, 4, {}),
    "gan": ("gan", 1, 4, {}),
}
QUICK = ["first batch", "validation", "within a step", "last batch", "gan"]


@pytest.mark.parametrize(
    "moment", [moment if moment in QUICK else pytest.param(moment, marks=pytest.mark.slow) for moment in SIGNALS]
)
def test_sigterm_writes_a_checkpoint_before_it_leaves(moment: str, alone: Callable[..., End], tmp_path: Path) -> None:
    kind, epoch, batch, kwargs = SIGNALS[moment]
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SIGTERMException) as left:
        run(kind, tmp_path, At(epoch, batch, terminate), **kwargs)
    assert left.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    checkpoint = torch.load(tmp_path / "resume.ckpt", weights_only=True)
    assert checkpoint["global_step"] > 0
    assert list(tmp_path.iterdir()) == [tmp_path / "resume.ckpt"]
    assert_resumes(kind, tmp_path, alone(kind, **kwargs), **kwargs)


def test_an_error_in_a_callback(alone: Callable[..., End], tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mine"):
        run("vib", tmp_path, At(1, 5, fail))
    assert_resumes("vib", tmp_path, alone("vib"))


@pytest.mark.parametrize(
    ("at", "kwargs"),
    [
        ((1, 4), {}),
        ((0, 10), {}),  # seen at the first batch of the next epoch
        ((1, 2), {"val_check_interval": 1, "limit_train_batches": 4}),
    ],
)
def test_a_time_limit(at: tuple[int, int], kwargs: dict[str, Any], alone: Callable[..., End], tmp_path: Path) -> None:
    def is_over(trainer: Trainer) -> None:
        timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
        timers[0].load_state_dict({"time_elapsed": {"train": 86400.0}})

    run("vib", tmp_path, At(*at, is_over), max_time="01:00:00:00", **kwargs)
    assert_resumes("vib", tmp_path, alone("vib", **kwargs), max_time="09:00:00:00", **kwargs)


def test_an_average_of_the_weights_is_that_of_the_step(tmp_path: Path) -> None:
    """Wherever the averaging callback stands; here after the resume point."""
    with pytest.raises(RuntimeError, match="mine"):
        run("vib", tmp_path / "stopped", WeightEMA(0.9), At(1, 5, fail))
    assert_resumes("vib", tmp_path / "stopped", run("vib", tmp_path / "alone", WeightEMA(0.9)), WeightEMA(0.9))


class Distances(CSVLogger):
    """Record the logged distances with their epochs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.found: list[tuple[float, float]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:  # type: ignore[override]
        self.found += [(metrics["epoch"], value) for name, value in metrics.items() if "frechet_distance" in name]
        super().log_metrics(metrics, step)


@pytest.mark.parametrize("validated", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_samples_are_measured_in_the_same_epochs(validated: bool, tmp_path: Path) -> None:
    """Of five epochs, in the second, the fourth and the last."""
    points = {(2, 5): [3, 4], (3, 5): [3, 4], (4, 2): [4]}  # where the run stops, and what is still to be measured

    def measured_run(folder: Path, *more: Callback, **kwargs: Any) -> tuple[Any, list[tuple[float, float]]]:
        quality, logger = SampleQuality(RawFeatures(), num_samples=40, every_n_epochs=2), Distances(folder)
        kwargs |= {"limit_train_batches": 7} | ({} if validated else {"limit_val_batches": 0})
        end, _ = run("gan", folder, quality, *more, max_epochs=5, logger=logger, **kwargs)
        return end, logger.found

    def copy(trainer: Trainer) -> None:
        [point] = (tmp_path / "alone").rglob("resume.ckpt")
        shutil.copy(point, tmp_path / f"{trainer.current_epoch}.ckpt")

    expected, whole = measured_run(tmp_path / "alone", *(At(*at, copy) for at in points))
    assert [epoch for epoch, _ in whole] == [1, 3, 4]
    for (epoch, _), left in points.items():
        found, rest = measured_run(tmp_path / f"from {epoch}", ckpt_path=tmp_path / f"{epoch}.ckpt", seed=9)
        assert_same(found, expected)
        assert rest == whole[-len(left) :]


class DyingRows(Rows):
    """Rows whose loader process dies at the fifth row, if there is a file."""

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


@pytest.mark.slow
def test_a_loader_process_that_dies(tmp_path: Path) -> None:
    fuse = tmp_path / "fuse"
    # An OSError where torch tells it, by a signal, just while a checkpoint is written.
    with pytest.raises((RuntimeError, OSError), match=r"worker \(pid.* (is killed by signal|exited unexpectedly)"):
        run("vib", tmp_path / "stopped", At(0, 9, lambda trainer: fuse.touch()), data=DyingData(fuse))
    fuse.unlink()
    whole = run("vib", tmp_path / "alone", data=DyingData(fuse))
    assert_resumes("vib", tmp_path / "stopped", whole, data=DyingData(fuse))


class FailingLogger(CSVLogger):
    """Raise after a number of logged rows."""

    def __init__(self, folder: Path, after: int) -> None:
        super().__init__(folder, name="", version="")
        self.left = after

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.left -= 1
        if self.left < 0:
            raise ConnectionError("the server of the logger is gone")
        super().log_metrics(metrics, step)


def test_a_logger_that_fails(alone: Callable[..., End], tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match="the server of the logger is gone"):
        run("vib", tmp_path, logger=FailingLogger(tmp_path, after=17))
    assert_resumes("vib", tmp_path, alone("vib"))


def test_a_disk_that_fills(alone: Callable[..., End], tmp_path: Path) -> None:
    with contextlib.ExitStack() as disk:

        def fill(trainer: Trainer) -> None:
            disk.enter_context(no_file_longer_than(10_000))

        with pytest.raises(OSError, match=r"checkpoint could not be written.*resume\.ckpt"):
            run("vib", tmp_path, At(1, 5, fill))
    assert_resumes("vib", tmp_path, alone("vib"))
