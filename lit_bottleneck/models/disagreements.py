"""Where a checkpoint and what it is loaded into disagree: arguments, weights, optimizers and data."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from lightning import LightningModule
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.hparams import NotPlainError, class_path, is_old_mark, plain
from lit_bottleneck.training.checkpoint_contents import different_kinds

OPTIMIZERS = "optimizers"  # key of a checkpoint: class paths

_DATA = ("dims", "num_classes", "value_range", "vocabulary_size")  # see ``data.properties``
_STATEFUL = ("optimizer", "lr_scheduler", "discriminator_optimizer")
_FOR_TRAINING = (
    *_STATEFUL, "lr_scheduler_interval", "gradient_penalty", "gradient_clip_val",
    "gradient_clip_algorithm", "accumulate_grad_batches", "discriminator_steps", "generator_ema",
)  # fmt: skip
_OF_THE_COMMAND = ("_instantiator", "_class_path")
_STATE_OF_BETA = re.compile(r"(.*\.)?beta_controller\.([^.]+\.)?_extra_state")
_LONGEST = 100  # characters of a value


def warn_of_arguments(stored: Mapping[str, Any], given: Mapping[str, Any], trains: bool) -> None:
    """Warn of plain arguments that differ from those in a checkpoint, each with both values; nothing is imported.

    Args:
        stored: the hyperparameters in the checkpoint.
        given: those of the module that the checkpoint is loaded into.
        trains: whether training goes on; if not, arguments that only training needs are left out. (Beta is none: the
            loss of a test depends on it.)
    """
    stored, given = _plain(stored), _plain(given)
    changed: list[str] = []
    kept: list[str] = []
    for name in stored.keys() & given.keys():
        if trains or name not in _FOR_TRAINING:
            for one in _differences(stored[name], given[name], name):
                (kept if name in _STATEFUL and one.startswith(f"{name}.") else changed).append(one)
    if changed:
        rank_zero_warn(
            f"the checkpoint was trained with other arguments, and those given here hold: {_joined(changed)}"
        )
    if kept:
        rank_zero_warn(f"training goes on with the settings in the checkpoint: {_joined(kept)}")


def data_properties(data: Any) -> dict[str, Any]:
    """Return the properties of its data that a datamodule defines and a model depends on, as plain values."""
    return _plain({name: getattr(data, name) for name in _DATA if getattr(data, name, None) is not None})


def warn_of_data(stored: Mapping[str, Any], data: Any) -> None:
    """Warn of properties of a datamodule that differ from those of the data that a checkpoint was trained on."""
    found = list(_differences(stored, data_properties(data)))
    if found:
        rank_zero_warn(f"the checkpoint was trained on other data than this {type(data).__name__}: {_joined(found)}")


def optimizer_kinds(optimizers: Iterable[Optimizer]) -> list[str]:
    """Return the class paths of optimizers, for a checkpoint."""
    return [class_path(type(optimizer)) for optimizer in optimizers]


def stored_optimizers(checkpoint: Mapping[str, Any]) -> list[str | set[str]]:
    """Return the class paths of a checkpoint's optimizers; before version 0.2.0, the names of their settings."""
    states = checkpoint.get("optimizer_states", [])
    return checkpoint.get(OPTIMIZERS) or [set(state["param_groups"][0]) for state in states if "param_groups" in state]


def check_optimizers(stored: list[str | set[str]], optimizers: Iterable[Optimizer]) -> None:
    """Refuse the state of another optimizer, which torch takes, or fails on with a ``KeyError``.

    Args:
        stored: as ``stored_optimizers`` returns them.
        optimizers: which the states are for.

    Raises:
        ConfigurationError: with both.
    """
    for one, optimizer in zip(stored, optimizers, strict=False):
        name, settings = type(optimizer).__name__, set(optimizer.param_groups[0])
        if isinstance(one, str):
            same, named = one.rpartition(".")[2] == name, one.rpartition(".")[2]
        else:  # another version of torch may have a further setting
            same, named = one <= settings or settings <= one, f"another one, with {', '.join(sorted(one - settings))}"
        if not same:
            raise ConfigurationError(
                f"optimizer={name} cannot go on from this checkpoint, which holds the state of {named}: set that one, "
                "or begin a new training from the weights (load_from_checkpoint)"
            )


def check_weights(model: LightningModule, state_dict: Mapping[str, Any]) -> None:
    """Refuse the weights of another model in one line; the controllers of beta settle their states themselves.

    Raises:
        ConfigurationError: with the names of the weights, and their shapes.
    """
    own = {name: value for name, value in model.state_dict().items() if not _STATE_OF_BETA.fullmatch(name)}
    stored = {name: value for name, value in state_dict.items() if not _STATE_OF_BETA.fullmatch(name)}
    wrong = [f"it lacks {name}" for name in own if name not in stored]
    wrong += [f"it has {name}" for name in stored if name not in own]
    wrong += [
        f"{name} is of the shape {tuple(value.shape)}, not {tuple(own[name].shape)}"
        for name, value in stored.items()
        if isinstance(value, Tensor) and isinstance(own.get(name), Tensor) and value.shape != own[name].shape
        if not name.endswith("_extra_state")  # whose shape its module settles
    ]
    wrong += different_kinds(own, stored)
    if wrong:
        raise ConfigurationError(f"--ckpt_path: of another model than this {type(model).__name__}: {'; '.join(wrong)}")


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that are plain; networks and functions are not compared."""
    found = {}
    for name, value in arguments.items():
        with suppress(NotPlainError):
            if name not in _OF_THE_COMMAND and not is_old_mark(value):
                found[name] = plain(value)
    return found


def _differences(stored: Any, given: Any, place: str = "") -> Iterator[str]:
    """Yield each place where plain values differ, with both.

    Arguments that one of them lacks are left out: another version of their class has them.
    """
    if isinstance(stored, dict) and isinstance(given, dict) and _is_one_class(stored, given):
        for name in stored:
            if name in given and name != "class_path":
                yield from _differences(stored[name], given[name], f"{place}.{name}" if place else name)
    elif isinstance(stored, list) and isinstance(given, list) and len(stored) == len(given) and _has_classes(stored):
        for index, pair in enumerate(zip(stored, given, strict=True)):
            yield from _differences(*pair, f"{place}[{index}]")
    elif stored != given:
        yield f"{place}: {_shown(stored)} in the checkpoint, {_shown(given)} here"


def _is_one_class(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two sections name the same class, perhaps by two of the paths of one of ours, or none."""
    paths = [str(section.get("class_path")) for section in (one, other)]
    ours = all(path.startswith("lit_bottleneck.") for path in paths)
    first, second = (path.rpartition(".")[2] if ours else path for path in paths)
    return first == second


def _has_classes(values: list[Any]) -> bool:
    return any(isinstance(value, dict) for value in values)


def _shown(value: Any) -> str:
    text = repr(value)
    if isinstance(value, dict) and "class_path" in value:
        arguments = value.get("init_args") or {}
        text = f"{value['class_path']}({', '.join(f'{name}={_shown(one)}' for name, one in arguments.items())})"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def _joined(found: list[str]) -> str:
    return "; ".join(sorted(found))
