"""Errors of the configuration end a command with exit status 2 and one line that names the key.

Whose fault an error is follows from when it happens and what it is. While arguments are parsed and the objects that
they name are built, the kinds in ``REFUSALS`` are the configuration's. From then on only ``ConfigurationError`` and
Lightning's ``MisconfigurationException`` are, and a ``ValueError`` of an optimizer or scheduler, which is built late.
All other errors keep their traceback.
"""

import argparse
import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any, NoReturn, cast

from jsonargparse import Namespace
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning_utilities.core.rank_zero import rank_zero_only

from lit_bottleneck.callbacks.run import run_folder
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli.home import expand
from lit_bottleneck.cli.library_errors import library_errors
from lit_bottleneck.cli.messages import in_one_line, way_out
from lit_bottleneck.cli.restoring import being_restored
from lit_bottleneck.cli.sections import sections
from lit_bottleneck.cli.yaml_files import MODE, RepeatedKey, read_yaml

PATH_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
REFUSALS = (ValueError, ImportError, *PATH_ERRORS, MisconfigurationException)
_TRACEBACK = "LIT_BOTTLENECK_TRACEBACK"
_HINT = f" ({_TRACEBACK}=1 shows the traceback)"
_STATUS = 2  # the exit status of parsers
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_PATIENCE = 10.0  # seconds that other processes wait for the first one


class _BuildingFailed(BaseException):
    """Carries an error past jsonargparse, which catches each ``Exception`` to try the next type of a union."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class Parser(LightningArgumentParser):
    """Lightning's parser with one-line errors and without abbreviations; errors of building name key and class."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, "parser_mode": MODE, **kwargs})
        self._instantiators_of_lightning: list[tuple[Callable[..., Any], type, bool]] = []
        self._is_building = False

    def add_lightning_class_args(self, *args: Any, **kwargs: Any) -> list[str]:
        """Add the arguments of a class; integers stay integers where floats are allowed too."""
        added = super().add_lightning_class_args(*args, **kwargs)
        _prefer_whole_numbers(self)
        return added

    def parse_object(self, *args: Any, **kwargs: Any) -> Namespace:
        """Parse a configuration in Python; ``~`` is the home folder."""
        return cast(Namespace, expand(super().parse_object(*args, **kwargs)))

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End with exit status 2, the usage and one line.

        Of several processes the first one prints it, and ends those that it started. The others wait for that, and
        print the line themselves if they are still alive: then the error is theirs alone.
        """
        if not self.exit_on_error:
            super().error(message, ex)  # a part of a longer message
        if os.environ.get(_TRACEBACK):
            raise ConfigurationError(message) from ex
        if vars(rank_zero_only).get("rank"):
            time.sleep(_PATIENCE)
        super().error(in_one_line(message) + way_out(message) + _HINT, ex)

    def parse_args(self, *args: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        """Parse the arguments; a key that is given twice in YAML is refused, and ``~`` is the home folder."""
        try:
            return cast(Namespace, expand(super().parse_args(*args, **kwargs)))
        except RepeatedKey as error:
            self.error(
                f"in the YAML of an argument, or of a file that it names, {error}", ConfigurationError(str(error))
            )

    def parse_path(self, cfg_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Read a configuration file, and name the one that cannot be read."""
        path = Path(str(cfg_path))
        if path.is_file():
            try:
                content = read_yaml(path)
            except ConfigurationError as error:
                self.error(f"argument --config: {error}", error)
            if not isinstance(content, dict):
                kind = "nothing" if content is None else f"a {type(content).__name__}"
                self.error(f"argument --config: {path} must hold keys and their values; it holds {kind}")
        parsed = super().parse_path(cfg_path, *args, **kwargs)
        if path.is_file():
            self._refuse_unknown(path, content, parsed)
        return parsed

    def _refuse_unknown(self, path: Path, content: dict[str, Any], parsed: Namespace) -> None:
        """Refuse unknown keys that hold no value, which jsonargparse ignores."""
        known = {action.dest for action in self._actions}
        sections = {dest.partition(".")[0] for dest in known}
        for key in _empty_sections(content) if "subcommand" not in known else ():
            section, _, rest = key.partition(".")
            is_option = section != "trainer" or f"trainer.{rest.partition('.')[0]}" in known or not rest
            is_optional = key.endswith((".init_args", ".dict_kwargs"))
            if section not in sections or not is_option or not (is_optional or key in parsed):
                self.error(f"argument --config: {path} has the key {key}, which is not known")

    def add_instantiator(self, instantiator: Callable[..., Any], class_type: type, subclasses: bool = True) -> None:
        """Keep Lightning's instantiators of models and data for ``instantiate``."""
        self._instantiators_of_lightning.append((instantiator, class_type, subclasses))

    def instantiate(self, namespace: Namespace, *args: Any, **kwargs: Any) -> Any:
        """Build the objects of a configuration; its errors name key and class.

        Raises:
            ConfigurationError: for the kinds of error in ``REFUSALS``; others are raised as they are.
        """
        if not self._instantiators_of_lightning:  # a parser of a part, which the outermost one calls
            return super().instantiate(namespace, *args, **kwargs)
        configuration = namespace[namespace["subcommand"]].as_dict()
        known = [*self._instantiators_of_lightning, (_call, object, True)]
        watched = [(partial(self._build, configuration, build), kind, subclasses) for build, kind, subclasses in known]
        self._is_building, failed = True, None
        try:
            return super().instantiate(namespace, *args, instantiators=watched, **kwargs)
        except _BuildingFailed as failure:
            failed = failure.error
        finally:
            self._is_building = False
        raise failed

    def _build(
        self, configuration: Any, build: Any, kind: type, /, *args: Any, applied_instantiation_links: Any, **kwargs: Any
    ) -> Any:
        """Build an object; errors name key and class. Optimizers are built so too, later than the rest."""
        try:
            kinds = REFUSALS if self._is_building else (ValueError,)  # later: of an optimizer, such as lr=-1
            with refusing(f"{_key_of(kind, kwargs, configuration)} ({kind.__name__}): ", kinds):
                return build(kind, *args, applied_instantiation_links=applied_instantiation_links, **kwargs)
        except Exception as error:
            if self._is_building:
                raise _BuildingFailed(error) from error
            raise


def _call(class_type: type, /, *args: Any, applied_instantiation_links: Any, **kwargs: Any) -> Any:
    return class_type(*args, **kwargs)


def _prefer_whole_numbers(parser: LightningArgumentParser) -> None:
    """Have ``int | float`` try int first: a limit of 1 is one batch, and a limit of 1.0 is all batches.

    Python caches ``int | float`` and ``float | int`` as one type, whose order is that of the first use in the process,
    and jsonargparse tries the types in that order; it has no public way to set the type of an argument that it has read
    from a signature. See https://github.com/Lightning-AI/pytorch-lightning/issues/21259.
    """
    for action in parser._actions:
        if getattr(action, "_typehint", None) == int | float | None:
            vars(action)["_typehint"] = int | float | None


def _key_of(kind: type, arguments: dict[str, Any], configuration: dict[str, Any]) -> str:
    """Return the key of a class in the configuration: of several places the one with most of these arguments."""
    places = []
    for key, section in sections(configuration):
        if section["class_path"].rpartition(".")[2] == kind.__name__:
            given = (section.get("init_args") or {}).items()
            places.append((sum(arguments.get(name) == value for name, value in given), key))
    return max(places, key=lambda place: place[0], default=(0, ""))[1]


def _empty_sections(tree: dict[str, Any], key: str = "") -> Iterator[str]:
    """Yield the keys that hold no key."""
    for name, value in tree.items():
        if isinstance(value, dict):
            place = f"{key}.{name}" if key else str(name)
            yield from _empty_sections(value, place) if value else (place,)


@contextmanager
def refusing(place: str = "", kinds: tuple[type[Exception], ...] = REFUSALS) -> Iterator[None]:
    """Turn errors of these kinds into a ``ConfigurationError`` that begins with their place."""
    try:
        yield
    except kinds as error:
        raise ConfigurationError(f"{place}{error}") from error


@contextmanager
def argument_errors(parser: argparse.ArgumentParser, argument: str, *kinds: type[Exception]) -> Iterator[None]:
    """End a command with its usage and one line that names an argument, at errors of these kinds."""
    try:
        yield
    except kinds as error:
        if os.environ.get(_TRACEBACK):
            raise
        parser.error(f"argument {argument}: {in_one_line(str(error))}{_HINT}")


@contextmanager
def exit_on_configuration_errors(cli: LightningCLI) -> Iterator[None]:
    """End the command with exit status 2 and one line at an error of the configuration; name the folder of a full disk.

    The processes that this one started end with it, and an error of theirs alone is one of the command.
    """
    try:
        with library_errors():
            yield
    except (ConfigurationError, MisconfigurationException) as error:
        _refuse(cli, error)
    except Exception as error:
        trainer = getattr(cli, "trainer", None)
        statuses = [] if trainer is None else _end(take_processes(trainer))
        if isinstance(error, RuntimeError) and _STATUS in statuses:  # it broke the connection, and printed its error
            raise SystemExit(_STATUS) from None
        path = being_restored(trainer)
        if path is not None and not isinstance(error, OSError):
            reason = f"{path} cannot be restored: {type(error).__name__}: {error}"
            refusal = ConfigurationError(f"--ckpt_path: {reason}")
            refusal.__cause__ = error
            _refuse(cli, refusal)
        if (
            isinstance(error, OSError)
            and error.filename is None
            and error.errno in _OF_THE_DISK
            and trainer is not None
        ):
            error.filename = str(run_folder(trainer))  # most of what is written is there
        raise
    trainer = getattr(cli, "trainer", None)
    statuses = [] if trainer is None else _end(take_processes(trainer), patience=60)
    if any(statuses):
        raise SystemExit(max(*statuses, 1))


def _end(processes: Sequence[Popen[bytes]], patience: float = _PATIENCE) -> list[int]:
    """Wait until processes have ended, kill those that do not, and return their exit statuses."""
    until = time.monotonic() + patience
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except TimeoutExpired:
            process.kill()
    return [process.wait() for process in processes]


def _refuse(cli: LightningCLI, error: Exception) -> NoReturn:
    """End the command, and the processes that it started."""
    trainer = getattr(cli, "trainer", None)
    if trainer is not None and trainer.is_global_zero:
        for process in take_processes(trainer):
            process.kill()  # it may wait for this one in a collective
            process.wait()
        _remove_empty_folders(trainer)
    if os.environ.get(_TRACEBACK):
        raise error
    cli.parser.error(str(error), error)


def take_processes(trainer: Trainer) -> list[Popen[bytes]]:
    """Return the processes that this one started, and hide their end from Lightning's observer, which would kill it."""
    processes = getattr(trainer.strategy.launcher, "procs", [])
    taken = [process for process in processes if isinstance(process, Popen)]
    processes.clear()
    return taken


def _remove_empty_folders(trainer: Trainer) -> None:
    """Remove empty folders that the loggers made for a run that did not begin."""
    for logger in trainer.loggers:
        folder, top = (None if place is None else Path(place) for place in (logger.log_dir, logger.save_dir))
        with suppress(OSError):  # not there, or not empty
            while folder is not None and top is not None and folder.is_relative_to(top):
                folder.rmdir()
                folder = folder.parent
