"""A LightningModule whose checkpoint holds the arguments of its constructor, in a form that loads with weights only."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from lightning import LightningModule
from lightning_utilities.core.rank_zero import rank_zero_warn

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.hparams import NotPlainError, constructor_arguments, is_old_mark, is_same, plain

_KEY = "not_stored"  # of a checkpoint: class paths of the arguments that it does not hold, by name


class StoredArguments(LightningModule):
    """Base of modules that keep their constructor's arguments as hyperparameters, without a call for it.

    Numbers, strings and collections are stored as they are, controllers, likelihoods and objectives by class path and
    arguments. Networks and functions are not: pass them to ``load_from_checkpoint`` again. The checkpoint names them,
    and loading without one of them is refused. Arguments needed only for training fall back to their default, with a
    warning if training continues. A module that a LightningCLI built needs nothing passed.

    Attributes:
        only_for_training: names of the arguments that a loaded module can do without.
    """

    only_for_training: ClassVar[tuple[str, ...]] = ("optimizer", "lr_scheduler")

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Record the arguments for the constructor; refuse what an old checkpoint holds in the place of a network."""
        marks = {name: mark for name, mark in kwargs.items() if is_old_mark(mark)}
        _refuse_missing(cls, {name: mark for name, mark in marks.items() if name not in cls.only_for_training})
        module = super().__new__(cls)
        if args or kwargs:  # not for a copy
            vars(module)["_constructor_call"] = args, kwargs
        return module

    def __init__(self) -> None:
        super().__init__()
        args, kwargs = vars(self).pop("_constructor_call", ((), {}))
        arguments, defaults = constructor_arguments(type(self), args, kwargs), constructor_arguments(type(self))
        self._given = {name for name in arguments if not is_same(arguments[name], defaults.get(name))}
        stored: dict[str, Any] = {}
        self._not_stored: dict[str, str] = {}
        for name, value in arguments.items():
            try:
                stored[name] = plain(value)
            except NotPlainError as error:
                if name in self._given:
                    self._not_stored[name] = str(error)
        self._at_default: list[str] = []
        try:  # a LightningCLI gives its parsed configuration, plain already, to save_hyperparameters
            self.save_hyperparameters("_instantiator", *arguments)
            self.save_hyperparameters()
            self._not_stored = {}
        except KeyError:
            self.save_hyperparameters(stored)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name the arguments that are not stored."""
        super().on_save_checkpoint(checkpoint)
        if self._not_stored:
            checkpoint[_KEY] = dict(self._not_stored)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of networks or functions that were not given again.

        Raises:
            ConfigurationError: with the names of the arguments.
        """
        super().on_load_checkpoint(checkpoint)
        missing = {name: path for name, path in checkpoint.get(_KEY, {}).items() if name not in self._given}
        for name in self.only_for_training:
            if is_old_mark(getattr(self, name)):
                missing[name] = getattr(self, name)
                setattr(self, name, None)
                self.hparams.pop(name)
        self._at_default = [name for name in missing if name in self.only_for_training]
        _refuse_missing(type(self), {name: path for name, path in missing.items() if name not in self._at_default})

    def on_fit_start(self) -> None:
        """Warn if training continues without the optimizer or scheduler of the checkpoint."""
        super().on_fit_start()
        if self._at_default:
            others = f"the checkpoint was trained with another {' and '.join(self._at_default)}, which it does not hold"
            again = f"pass {self._at_default[0]}=... to load_from_checkpoint"
            rank_zero_warn(f"{others}: training goes on with the default, or {again}")


def _refuse_missing(module: type, missing: Mapping[str, str]) -> None:
    if missing:
        names, kinds, again = ", ".join(missing), ", ".join(missing.values()), "=..., ".join(missing)
        lacks = f"the checkpoint of a {module.__name__} does not hold its {names} ({kinds})"
        raise ConfigurationError(f"{lacks}: load_from_checkpoint(path, weights_only=True, {again}=...)")
