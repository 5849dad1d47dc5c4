"""Settings out of their ranges are refused after parsing, with key and value."""

import inspect
import math
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import torch
from jsonargparse import Namespace
from lightning import Trainer
from lightning.pytorch import callbacks

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli.ranges import _RANGES, check_settings
from lit_bottleneck.cli.recipes import recipe_paths
from tests.cli.commands import refusal

VIB = ["--config", str(recipe_paths()["vib_digits"])]
LIGHTNING, SCHEDULE = "lightning.pytorch.callbacks.", "torch.optim.lr_scheduler."
HUGE, NAN, INF = 10**9, math.nan, math.inf


def settings(class_path: str = "", **values: Any) -> Namespace:
    """Return parsed arguments with settings of the trainer, or of a class in its callbacks."""
    if not class_path:
        return Namespace(seed_everything=0, trainer=Namespace(**values))
    section = Namespace(class_path=class_path, init_args=Namespace(**values))
    return Namespace(seed_everything=0, trainer=Namespace(callbacks=[section]))


# key: values that are refused, values that are not
OF_THE_TRAINER: dict[str, tuple[list[Any], list[Any]]] = {
    "accumulate_grad_batches": ([-1, 0, 1.5, NAN, True], [1, HUGE]),
    "check_val_every_n_epoch": ([0, -2], [1, HUGE, None]),
    "devices": (
        [0, -2, "0", "-2", "many", "", [], [0, 0], [-1], [0.5]],
        [1, -1, "auto", "2", "-1", [0, 1], "0,1", "3,"],
    ),
    "fast_dev_run": ([-1, NAN], [True, False, 0, 3]),
    "gradient_clip_val": ([-1, -0.5, NAN, INF], [0, 0.5, 3, None]),
    **dict.fromkeys(
        [f"limit_{part}_batches" for part in ("train", "val", "test", "predict")] + ["overfit_batches"],
        ([-1, -0.1, 1.5, NAN, INF], [0, 0.0, 0.5, 1.0, 1, HUGE]),
    ),
    "log_every_n_steps": ([-3], [0, 1, None]),
    "max_epochs": ([-2], [-1, 0, 1, None]),
    "max_steps": ([-2], [-1, 0, 1]),
    "max_time": (
        ["00:00:00:00", "1:00", {"minutes": -1}, {"minuts": 1}, {"days": 10**12}, {}, timedelta(0), "{'minutes': 1}"],
        ["00:00:00:01", {"minutes": 1}, timedelta(1), None],
    ),
    "min_epochs": ([-5], [0, 1, None]),
    "min_steps": ([-5], [0, 1, None]),
    "num_nodes": ([0, -1], [1, 4]),
    "num_sanity_val_steps": ([-3], [-1, 0, 2, None]),
    "reload_dataloaders_every_n_epochs": ([-1], [0, 1]),
    "val_check_interval": ([0, -1, 0.0, -0.5, 1.5, NAN, "00:00:00:00"], [1, 999, 0.001, 1.0, None, "00:00:05:00"]),
}  # fmt: skip

OF_CLASSES: dict[str, tuple[list[Any], list[Any]]] = {
    f"{LIGHTNING}EarlyStopping.patience": ([-1], [0, 3]),
    f"{LIGHTNING}EarlyStopping.min_delta": ([-0.1, NAN, INF], [0, 0.1]),
    f"{LIGHTNING}EarlyStopping.stopping_threshold": ([NAN], [-1.0, None]),
    f"{LIGHTNING}ModelCheckpoint.every_n_train_steps": ([-1], [0, 5]),
    f"{LIGHTNING}ModelCheckpoint.every_n_epochs": ([-1], [0, 5]),
    f"{LIGHTNING}ModelCheckpoint.save_top_k": ([-2], [-1, 0, 2]),
    f"{LIGHTNING}ModelCheckpoint.train_time_interval": ([timedelta(0), timedelta(-1)], [timedelta(minutes=1)]),
    f"{LIGHTNING}GradientAccumulationScheduler.scheduling": ([{}, {0: 0}, {-1: 2}, {0: -3}, {0: 1.5}], [{0: 8, 4: 1}]),
    f"{LIGHTNING}StochasticWeightAveraging.swa_lrs": ([NAN, 0.0, -1.0, [0.1, NAN], INF], [0.1, [0.1, 0.2]]),
    f"{LIGHTNING}StochasticWeightAveraging.annealing_epochs": ([-1], [0, 5]),
    f"{LIGHTNING}Timer.duration": (["00:00:00:00", "{'minutes': 3}"], ["00:00:03:00", timedelta(1), None]),
    f"{LIGHTNING}BatchSizeFinder.init_val": ([0, -1], [2]),
    "lit_bottleneck.callbacks.ProgressBar.refresh_rate": ([-1], [0, 20]),  # a subclass of Lightning's
    "lightning.pytorch.loggers.CSVLogger.flush_logs_every_n_steps": ([0, -1], [1, 100]),
    "torch.optim.SGD.lr": ([NAN, INF, -1], [0, 0.1]),
    "torch.optim.SGD.momentum": ([NAN], [0.9]),
    "torch.optim.SGD.dampening": ([-5, 1.5, NAN], [0, 0.9]),
    "torch.optim.RMSprop.alpha": ([1.7, -0.1], [0.99]),
    "torch.optim.ASGD.alpha": ([-2], [0.75]),
    "torch.optim.LBFGS.history_size": ([0, -1], [1, 100]),
    "torch.optim.LBFGS.max_iter": ([0, -2], [20]),
    "torch.optim.Adafactor.eps": ([], [(None, 0.001)]),
    f"{SCHEDULE}StepLR.step_size": ([0, -1], [10]),
    f"{SCHEDULE}StepLR.gamma": ([-0.1, NAN], [0.1, 1.5]),
    f"{SCHEDULE}MultiStepLR.milestones": ([[-3, 1], [1.5]], [[3, 1], []]),
    f"{SCHEDULE}CyclicLR.gamma": ([-2.0, 0], [0.99]),
    f"{SCHEDULE}CosineAnnealingLR.T_max": ([0], [10]),
}  # fmt: skip


def cases(which: int, table: dict[str, tuple[list[Any], list[Any]]]) -> list[tuple[str, Any]]:
    return [(key, value) for key, values in table.items() for value in values[which]]


@pytest.mark.parametrize(("key", "value"), cases(0, OF_THE_TRAINER))
def test_a_setting_of_the_trainer_out_of_its_range_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as error:
        check_settings(settings(**{key: value}))
    assert str(error.value).startswith(f"trainer.{key}: must be ")
    assert str(error.value).endswith(f"; got {value}")


@pytest.mark.parametrize(("key", "value"), cases(0, OF_CLASSES))
def test_a_setting_of_a_class_out_of_its_range_is_refused(key: str, value: Any) -> None:
    class_path, _, name = key.rpartition(".")
    kind = class_path.rpartition(".")[2]
    with pytest.raises(ConfigurationError) as error:
        check_settings(settings(class_path, **{name: value}))
    assert str(error.value).startswith(f"trainer.callbacks.init_args.{name} ({kind}): must be ")
    assert str(error.value).endswith(f"; got {value}")


def test_a_setting_within_its_range_is_taken() -> None:
    for key, value in cases(1, OF_THE_TRAINER):
        check_settings(settings(**{key: value}))
    for key, value in cases(1, OF_CLASSES):
        class_path, _, name = key.rpartition(".")
        check_settings(settings(class_path, **{name: value}))


def is_numeric(annotation: Any) -> bool:
    of_union = () if get_origin(annotation) is Callable else get_args(annotation)
    return any(one in (int, float) for one in (annotation, *of_union))


def test_every_numeric_argument_of_the_trainer_has_its_range() -> None:
    numeric = {
        name
        for name, parameter in inspect.signature(Trainer.__init__).parameters.items()
        if is_numeric(parameter.annotation)
    }
    known = {key.partition(".")[2] for key in _RANGES if key.startswith("Trainer.")}
    assert numeric <= known
    assert {"max_time", "accumulate_grad_batches", "val_check_interval"} <= known


def test_every_numeric_argument_of_lightnings_callbacks_has_its_range() -> None:
    missing = [
        f"{kind.__name__}.{name}"
        for kind in (getattr(callbacks, one) for one in callbacks.__all__)
        for name, parameter in inspect.signature(kind.__init__).parameters.items()
        if is_numeric(parameter.annotation) and not any(f"{one.__name__}.{name}" in _RANGES for one in kind.__mro__)
    ]
    # the device of an average, a dimension or a norm of torch's pruning, and how much it says
    known = [
        "EMAWeightAveraging.device",
        "ModelPruning.pruning_dim",
        "ModelPruning.pruning_norm",
        "ModelPruning.verbose",
    ]
    assert sorted(missing) == sorted([*known, "WeightAveraging.device"])


def test_every_key_of_the_table_is_an_argument_that_there_is() -> None:
    places = [callbacks, torch.optim, torch.optim.lr_scheduler]
    for key in _RANGES:
        kind, _, name = key.partition(".")
        found = next((getattr(place, kind) for place in places if hasattr(place, kind)), None)
        if found is not None and kind not in ("Optimizer", "ThroughputMonitor"):
            assert name in inspect.signature(found.__init__).parameters, key


class Timer(callbacks.Callback):
    """A user's own class of a name that Lightning has too."""

    def __init__(self, duration: float) -> None:
        self.duration = duration


def test_a_users_class_of_the_same_name_is_left_alone() -> None:
    check_settings(settings(f"{__name__}.Timer", duration=-3.0))


def overlay(tmp_path: Path) -> list[str]:
    (tmp_path / "overlay.yaml").write_text("trainer: {accumulate_grad_batches: -1}")
    return ["--config", str(tmp_path / "overlay.yaml")]


@pytest.mark.parametrize(
    "arguments",
    [
        lambda folder: ["fit", *VIB, "--trainer.accumulate_grad_batches=-1"],
        lambda folder: ["fit", *VIB, *overlay(folder)],
        lambda folder: ["test", *VIB, "--trainer.accumulate_grad_batches=-1"],
        lambda folder: ["compare", *VIB, "--grid", "trainer.accumulate_grad_batches=1,-1", f"--out={folder}"],
        lambda folder: ["compare", *VIB, "--arm", "up=--trainer.accumulate_grad_batches -1", f"--out={folder}"],
    ],
)
def test_ranges_hold_for_options_overlays_and_arms(
    arguments: Callable[[Path], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(arguments(tmp_path), capsys)
    assert "trainer.accumulate_grad_batches: must be a whole number, at least 1; got -1" in said
