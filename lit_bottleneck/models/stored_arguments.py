"""A LightningModule whose checkpoint holds the arguments of its constructor, in a form that loads with weights only."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from lightning import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning_utilities.core.rank_zero import rank_zero_warn

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.hparams import NotPlainError, constructor_arguments, is_old_mark, is_same, plain
from lit_bottleneck.models import disagreements

# keys of a checkpoint
_KEY = "not_stored"  # class paths of the arguments that it does not hold, by name
_FURTHER = "further_hyper_parameters"  # those that are no arguments of the constructor
_DATA = "data_properties"


class StoredArguments(LightningModule):
    """Base of modules that keep their constructor's arguments as hyperparameters, without a call for it.

    Numbers, strings and collections are stored as they are, controllers, likelihoods and objectives by class path and
    arguments. Networks and functions are not: pass them to ``load_from_checkpoint`` again. The checkpoint names them,
    and loading without one of them is refused. Arguments needed only for training fall back to their default, with a
    warning if training continues. A module that a LightningCLI built needs nothing passed.

    What is passed to ``load_from_checkpoint`` overrides what is stored, silently: it was asked for. A trainer that
    loads a checkpoint into a module (``ckpt_path``) warns of plain arguments and data that the checkpoint was not
    trained with, and refuses to go on with another optimizer.

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
        self._stored_optimizers: list[str | set[str]] = []
        self._argument_names = {*arguments, "_instantiator", "_class_path"}
        try:  # a LightningCLI gives its parsed configuration, plain already, to save_hyperparameters
            self.save_hyperparameters("_instantiator", *arguments)
            self.save_hyperparameters()
            self._not_stored = {}
        except KeyError:
            self.save_hyperparameters(stored)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name the arguments that are not stored, the optimizers, and what the data are like."""
        super().on_save_checkpoint(checkpoint)
        if self._not_stored:
            checkpoint[_KEY] = dict(self._not_stored)
        stored = checkpoint.get("hyper_parameters", {})
        further = {name: stored.pop(name) for name in list(stored) if name not in self._argument_names}
        if further:
            checkpoint[_FURTHER] = further  # load_from_checkpoint passes the others to the constructor
        if self._trainer is not None:
            checkpoint[_DATA] = disagreements.data_properties(getattr(self._trainer, "datamodule", None))
            if "optimizer_states" in checkpoint:
                checkpoint[disagreements.OPTIMIZERS] = disagreements.optimizer_kinds(self._trainer.optimizers)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of networks or functions that were not given again; warn of what differs from it.

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
        self.hparams.update({**checkpoint.get(_FURTHER, {}), **self.hparams})
        if self._trainer is not None:
            self._compare(checkpoint, trains=self._trainer.state.fn == TrainerFn.FITTING)

    def _compare(self, checkpoint: dict[str, Any], trains: bool) -> None:
        disagreements.warn_of_arguments(checkpoint.get("hyper_parameters", {}), self.hparams, trains)
        disagreements.warn_of_data(checkpoint.get(_DATA, {}), getattr(self.trainer, "datamodule", None))
        self._stored_optimizers = disagreements.stored_optimizers(checkpoint) if trains else []

    def on_fit_start(self) -> None:
        """Refuse another optimizer than that of the checkpoint; warn if it was not given again."""
        super().on_fit_start()
        disagreements.check_optimizers(self._stored_optimizers, self.trainer.optimizers)
        self._stored_optimizers = []
        if self._at_default:
            others = f"the checkpoint was trained with another {' and '.join(self._at_default)}, which it does not hold"
            again = f"pass {self._at_default[0]}=... to load_from_checkpoint"
            rank_zero_warn(f"{others}: training goes on with the default, or {again}")


def _refuse_missing(module: type, missing: Mapping[str, str]) -> None:
    if missing:
        names, kinds, again = ", ".join(missing), ", ".join(missing.values()), "=..., ".join(missing)
        lacks = f"the checkpoint of a {module.__name__} does not hold its {names} ({kinds})"
        raise ConfigurationError(f"{lacks}: load_from_checkpoint(path, weights_only=True, {again}=...)")
