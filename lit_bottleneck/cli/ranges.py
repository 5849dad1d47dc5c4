"""Ranges of the settings of Lightning's and torch's classes, of which the libraries check only some.

The table is keyed by class and argument; what is said of a class holds for its subclasses too.
"""

import math
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from importlib import import_module
from typing import Any, NamedTuple

from jsonargparse import Namespace

from lit_bottleneck.checks import ConfigurationError, is_number
from lit_bottleneck.cli.sections import sections


class Range(NamedTuple):
    """The values that a setting may have.

    Attributes:
        holds: whether a value is one of them.
        words: what they are, after "must be".
    """

    holds: Callable[[Any], bool]
    words: str


def _whole(least: int, note: str = "") -> Range:
    return Range(lambda value: _is_whole(value) and value >= least, f"a whole number, at least {least}{note}")


def _number(low: float, high: float = math.inf, *, above: bool = False, words: str = "") -> Range:
    """Range of the finite numbers from ``low`` (or ``above`` it) to ``high``."""

    def holds(value: Any) -> bool:
        return is_number(value) and math.isfinite(value) and low <= value <= high and not (above and value == low)

    lower = f"above {low:g}" if above else f"at least {low:g}"
    bounds = lower if high == math.inf else f"{lower} and at most {high:g}"
    return Range(holds, words or f"a finite number, {bounds}")


def _each(one: Range, several: str) -> Range:
    """Range of a value, or of a list of them."""

    def holds(value: Any) -> bool:
        return all(map(one.holds, value)) if isinstance(value, (list, tuple)) else one.holds(value)

    return Range(holds, f"{one.words}{several}")


def _if_number(one: Range) -> Range:
    """Range of numbers, for an argument that some classes also take as something else."""
    return Range(lambda value: not is_number(value) or one.holds(value), one.words)


def _either(*ranges: Range) -> Range:
    return Range(lambda value: any(one.holds(value) for one in ranges), ", or ".join(one.words for one in ranges))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_duration(value: Any) -> bool:
    """Whether a value is a time above zero as Lightning reads it."""
    try:
        if isinstance(value, str):
            found = re.fullmatch(r"(\d+):(\d\d):(\d\d):(\d\d)", value.strip())
            return found is not None and any(int(part) for part in found.groups())
        return (value if isinstance(value, timedelta) else timedelta(**value)) > timedelta(0)
    except (TypeError, ValueError, OverflowError):
        return False


def _is_devices(value: Any) -> bool:
    """Whether a value names processors: how many, which ones, all (-1), or as many as there are ("auto")."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(_is_whole(one) and one >= 0 for one in value) and len(set(value)) == len(value)
    if isinstance(value, str):
        return re.fullmatch(r"auto|-1|0*[1-9]\d*|\d+(\s*,\s*\d+)+|\d+\s*,", value.strip()) is not None
    return _is_whole(value) and (value >= 1 or value == -1)


def _is_schedule(value: Any) -> bool:
    """Whether a value has a whole number of batches, above 0, for each epoch that it names."""
    if not isinstance(value, Mapping) or not value:
        return False
    return all(_is_whole(epoch) and epoch >= 0 and _is_whole(n) and n >= 1 for epoch, n in value.items())


_SHARE = Range(lambda value: isinstance(value, float) and 0 <= value <= 1, "a share from 0.0 to 1.0")
_BATCHES = _either(_whole(0), _SHARE)
_DURATION = Range(_is_duration, "a time above zero, DD:HH:MM:SS (one hour: 00:01:00:00)")
_INTERVAL = _either(
    _whole(1, " (batches)"),
    Range(lambda value: isinstance(value, float) and 0 < value <= 1, "a share above 0.0"),
    _DURATION,
)
_FLAG = Range(lambda value: isinstance(value, bool), "true or false")
_ENDLESS = _whole(-1, " (-1: without end)")
_NOT_NEGATIVE, _POSITIVE = _number(0), _number(0, above=True)
_FINITE = _number(-math.inf, words="a finite number")
_RATES = _each(_POSITIVE, ", or a list of such numbers")

_RANGES: dict[str, Range] = {
    "Trainer.accumulate_grad_batches": _whole(1),
    "Trainer.check_val_every_n_epoch": _whole(1, " (limit_val_batches=0 leaves validation out)"),
    "Trainer.devices": Range(_is_devices, "a number of processes above 0, a list of different devices, -1 or auto"),
    "Trainer.fast_dev_run": _either(_FLAG, _whole(0)),
    "Trainer.gradient_clip_val": _number(0, words="a finite number, at least 0 (null: no clipping)"),
    "Trainer.limit_predict_batches": _BATCHES,
    "Trainer.limit_test_batches": _BATCHES,
    "Trainer.limit_train_batches": _BATCHES,
    "Trainer.limit_val_batches": _BATCHES,
    "Trainer.log_every_n_steps": _whole(0, " (0: never)"),
    "Trainer.max_epochs": _ENDLESS,
    "Trainer.max_steps": _ENDLESS,
    "Trainer.max_time": _DURATION,
    "Trainer.min_epochs": _whole(0),
    "Trainer.min_steps": _whole(0),
    "Trainer.num_nodes": _whole(1),
    "Trainer.num_sanity_val_steps": _whole(-1, " (-1: all batches)"),
    "Trainer.overfit_batches": _BATCHES,
    "Trainer.reload_dataloaders_every_n_epochs": _whole(0, " (0: never)"),
    "Trainer.val_check_interval": _INTERVAL,
    # callbacks
    "BackboneFinetuning.backbone_initial_lr": _POSITIVE,
    "BackboneFinetuning.backbone_initial_ratio_lr": _POSITIVE,
    "BackboneFinetuning.initial_denom_lr": _POSITIVE,
    "BackboneFinetuning.rounding": _whole(0),
    "BackboneFinetuning.unfreeze_backbone_at_epoch": _whole(0),
    "BatchSizeFinder.init_val": _whole(1),
    "BatchSizeFinder.margin": _number(0, 1),
    "BatchSizeFinder.max_trials": _whole(1),
    "BatchSizeFinder.max_val": _whole(1),
    "BatchSizeFinder.steps_per_trial": _whole(1),
    "EarlyStopping.divergence_threshold": _FINITE,
    "EarlyStopping.min_delta": _NOT_NEGATIVE,
    "EarlyStopping.patience": _whole(0),
    "EarlyStopping.stopping_threshold": _FINITE,
    "EMAWeightAveraging.decay": _number(0, 1),
    "EMAWeightAveraging.update_every_n_steps": _whole(1),
    "EMAWeightAveraging.update_starting_at_epoch": _whole(0),
    "EMAWeightAveraging.update_starting_at_step": _whole(0),
    "GradientAccumulationScheduler.scheduling": Range(
        _is_schedule,
        "epochs and batches, whole numbers, the epochs at least 0 and the batches at least 1, as {0: 8, 4: 1}",
    ),
    "LearningRateFinder.early_stop_threshold": _POSITIVE,
    "LearningRateFinder.max_lr": _POSITIVE,
    "LearningRateFinder.min_lr": _POSITIVE,
    "LearningRateFinder.num_training_steps": _whole(1),
    "ModelCheckpoint.every_n_epochs": _whole(0),
    "ModelCheckpoint.every_n_train_steps": _whole(0),
    "ModelCheckpoint.save_top_k": _whole(-1, " (-1: all)"),
    "ModelCheckpoint.train_time_interval": Range(_is_duration, "a time above zero, H:MM:SS (one hour: 1:00:00)"),
    "ModelPruning.amount": _either(_whole(0), _SHARE),
    "ModelSummary.max_depth": _whole(-1, " (-1: all)"),
    "RichProgressBar.refresh_rate": _whole(0),
    "SpikeDetection.atol": _NOT_NEGATIVE,
    "SpikeDetection.rtol": _NOT_NEGATIVE,
    "SpikeDetection.warmup": _whole(0),
    "SpikeDetection.window": _whole(1),
    "StochasticWeightAveraging.annealing_epochs": _whole(0),
    "StochasticWeightAveraging.swa_epoch_start": _either(_whole(1), _SHARE),
    "StochasticWeightAveraging.swa_lrs": _RATES,
    "ThroughputMonitor.window_size": _whole(1),
    "Timer.duration": _DURATION,
    "TQDMProgressBar.process_position": _whole(0),
    "TQDMProgressBar.refresh_rate": _whole(0),
    # loggers and strategies
    "CSVLogger.flush_logs_every_n_steps": _whole(1),
    "DDPStrategy.timeout": _DURATION,
    # optimizers and schedules
    "ASGD.alpha": _NOT_NEGATIVE,
    "ASGD.lambd": _NOT_NEGATIVE,
    "ASGD.t0": _NOT_NEGATIVE,
    "LBFGS.history_size": _whole(1),
    "LBFGS.max_eval": _whole(1),
    "LBFGS.max_iter": _whole(1),
    "RMSprop.alpha": _number(0, 1),
    "SGD.dampening": _number(0, 1),
    "Optimizer.eps": _if_number(_NOT_NEGATIVE),
    "Optimizer.lr": _if_number(_NOT_NEGATIVE),
    "Optimizer.momentum": _if_number(_NOT_NEGATIVE),
    "Optimizer.weight_decay": _if_number(_NOT_NEGATIVE),
    "ConstantLR.factor": _NOT_NEGATIVE,
    "CosineAnnealingLR.eta_min": _NOT_NEGATIVE,
    "CosineAnnealingLR.T_max": _whole(1),
    "CosineAnnealingWarmRestarts.eta_min": _NOT_NEGATIVE,
    "CyclicLR.base_lr": _each(_NOT_NEGATIVE, ", or a list of such numbers"),
    "CyclicLR.gamma": _POSITIVE,
    "CyclicLR.max_lr": _RATES,
    "CyclicLR.step_size_down": _POSITIVE,
    "CyclicLR.step_size_up": _POSITIVE,
    "ExponentialLR.gamma": _POSITIVE,
    "LinearLR.total_iters": _whole(1),
    "MultiStepLR.gamma": _POSITIVE,
    "MultiStepLR.milestones": Range(
        lambda value: isinstance(value, (list, tuple)) and all(_is_whole(one) and one >= 0 for one in value),
        "a list of whole numbers, at least 0",
    ),
    "OneCycleLR.div_factor": _POSITIVE,
    "OneCycleLR.final_div_factor": _POSITIVE,
    "OneCycleLR.max_lr": _RATES,
    "PolynomialLR.power": _NOT_NEGATIVE,
    "PolynomialLR.total_iters": _whole(1),
    "ReduceLROnPlateau.factor": _POSITIVE,
    "ReduceLROnPlateau.min_lr": _each(_NOT_NEGATIVE, ", or a list of such numbers"),
    "ReduceLROnPlateau.patience": _whole(0),
    "ReduceLROnPlateau.threshold": _NOT_NEGATIVE,
    "StepLR.gamma": _POSITIVE,
    "StepLR.step_size": _whole(1),
}

_LIBRARIES = ("lightning", "pytorch_lightning", "torch")


def check_settings(command: Namespace) -> None:
    """Check the parsed arguments of a command of Lightning's.

    Raises:
        ConfigurationError: for a setting out of its range, with key and value; for a trainer section without keys.
    """
    if not isinstance(command.trainer, Namespace):
        raise ConfigurationError(f"trainer: must hold keys and their values; got {command.trainer!r}")
    seed = command.get("seed_everything")
    if seed is not None and not isinstance(seed, bool) and not 0 <= seed < 2**32:
        raise ConfigurationError(f"seed_everything: must be at least 0 and below 2**32; got {seed}")
    tree = command.as_dict()
    _check("trainer", "Trainer", ["Trainer"], tree["trainer"])
    for key, section in sections(tree):
        path = section["class_path"]
        _check(f"{key}.init_args", path.rpartition(".")[2], _class_names(path), section.get("init_args") or {})


def _check(place: str, kind: str, classes: list[str], values: Mapping[str, Any]) -> None:
    """Check the arguments of a class that is, or derives from, these classes of the libraries."""
    for name, value in values.items():
        allowed = next((_RANGES[f"{one}.{name}"] for one in classes if f"{one}.{name}" in _RANGES), None)
        if value is not None and allowed is not None and not allowed.holds(value):
            of_class = "" if place == "trainer" else f" ({kind})"
            raise ConfigurationError(f"{place}.{name}{of_class}: must be {allowed.words}; got {value}")


def _class_names(path: str) -> list[str]:
    """Return the names of those classes of the libraries that a class is, or derives from."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):  # a class within a class
        return []
    classes = found.__mro__ if isinstance(found, type) else ()
    return [one.__name__ for one in classes if one.__module__.partition(".")[0] in _LIBRARIES]
