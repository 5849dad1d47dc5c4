"""Which errors are those of a configuration: they end a command with one message, all others with their traceback."""

import dis
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import TimeoutExpired
from types import FrameType
from typing import Any, NoReturn

import yaml
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning_utilities.core.rank_zero import rank_zero_only

from lit_bottleneck.cli.reasons import chain_of, frames_of, in_one_line, reason_of

_KINDS = (
    ValueError, TypeError, RuntimeError, OSError, ImportError, AssertionError, ArithmeticError, MemoryError,
    MisconfigurationException,
)  # fmt: skip
_LIBRARY = Path(__file__).parents[1]
_STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))
_INSTALLED = {"site-packages", "dist-packages"}
_RAISE = dis.opmap["RAISE_VARARGS"]
_STATUS = 2  # of parsers
_PATIENCE = 10.0  # seconds that other processes leave to the first one


class Parser(LightningArgumentParser):
    """Lightning's parser, whose errors are one line each, and whose options are written in full."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def add_lightning_class_args(self, *args: Any, **kwargs: Any) -> list[str]:
        """Have whole numbers stay whole where fractions may come too: a limit of 1 is one batch, of 1.0 all batches."""
        added = super().add_lightning_class_args(*args, **kwargs)
        for action in self._actions:
            if getattr(action, "_typehint", None) == int | float | None:  # in an order that depends on typing's cache
                vars(action)["_typehint"] = int | float | None
        return added

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End with the exit status 2, the usage and one line.

        Of several processes the first one speaks, and ends those that it has started. The others leave it some time for
        that, and speak themselves if they are still there: then only they have met the error.
        """
        if self.exit_on_error and vars(rank_zero_only).get("rank"):
            time.sleep(_PATIENCE)
        super().error(in_one_line(message) if self.exit_on_error else message, ex)  # else: a part of a longer one

    def parse_path(self, cfg_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Read a configuration file; say which one it is that cannot be read."""
        path = Path(str(cfg_path))
        if path.is_file():
            try:
                content = yaml.safe_load(path.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
                self.error(f"argument --config: {path} is no YAML file: {error}")
            if not isinstance(content, dict):
                kind = "nothing" if content is None else f"a {type(content).__name__}"
                self.error(f"argument --config: {path} must hold keys and their values; it holds {kind}")
        return super().parse_path(cfg_path, *args, **kwargs)


class FirstBatch(Callback):
    """Note how far a run has come.

    Attributes:
        reached: whether a batch was handed to the model.
        passed: whether training (or evaluation, where nothing is trained) has gone through a batch.
    """

    def __init__(self) -> None:
        self.reached = self.passed = False

    def _reach(self, *args: Any, **kwargs: Any) -> None:
        self.reached = True

    def _pass(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self.passed = self.passed or not trainer.sanity_checking

    on_train_batch_start = on_validation_batch_start = on_test_batch_start = on_predict_batch_start = _reach
    on_train_batch_end = on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _pass


def is_of_configuration(error: BaseException, first_batch: FirstBatch) -> bool:
    """Whether an error is one of the configuration, and neither of the training nor a bug in the user's code.

    A user's own code is what is neither in this library, nor in the standard library, nor in an installed package. With
    none of it at work, what the configuration has given was refused

    - before the first batch, by any kind of error that a refusal may be;
    - in the first batch, with which come data that may not fit, by an error that this library has raised itself;
    - at any time, by Lightning's ``MisconfigurationException``.

    In the user's own code, and in what that calls, an error before the first batch is a refusal if it is an ``OSError``
    (such as a file that is not there), or a ``ValueError`` or ``MisconfigurationException`` that comes from a
    ``raise``: somebody has looked at a value, and found words. Every other error there is a bug. (One that was met in a
    process of a data loader tells its traceback in words, and keeps it.)
    """
    if "Original Traceback" in str(error):
        return False
    of_user = _of_users_code(error)
    if of_user is not None:
        in_words = isinstance(of_user, (ValueError, MisconfigurationException)) and _was_raised(of_user)
        return not first_batch.reached and (in_words or isinstance(of_user, OSError))
    if isinstance(error, MisconfigurationException) or not first_batch.reached:
        return isinstance(error, _KINDS) or (isinstance(error, KeyError) and _was_raised(error))
    refused_by_us = isinstance(error, (ValueError, TypeError)) and _was_raised(error) and _is_ours(frames_of(error)[-1])
    return refused_by_us and not first_batch.passed


@contextmanager
def told_in_one_line(cli: LightningCLI, first_batch: FirstBatch) -> Iterator[None]:
    """End the command with the exit status 2 and one message, if what is done meets an error of the configuration."""
    try:
        yield
    except Exception as error:  # of all kinds; most are handed on
        if not is_of_configuration(error, first_batch):
            bug, place = _of_users_code(error), frames_of(error)[-1].f_globals.get("__name__", "")
            if bug is None or not place.startswith("jsonargparse."):
                raise
            raise bug from bug.__cause__  # itself, and not what jsonargparse has made of it
        trainer = getattr(cli, "trainer", None)
        if trainer is not None and trainer.is_global_zero:
            _end_other_processes(trainer, error)
            if not first_batch.reached:
                _remove_empty_folders(trainer)
        cli.parser.error(reason_of(error))


def _end_other_processes(trainer: Trainer, error: BaseException) -> None:
    """End the processes that this one has started; leave with them, if one of them has spoken."""
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        children = launcher.procs.copy()
        launcher.procs.clear()  # Lightning's observer would end this process if it saw them end
        if any(frame.f_globals.get("__name__", "").startswith("torch.distributed.") for frame in frames_of(error)):
            with suppress(TimeoutExpired):  # a connection is broken: by one that has been refused something?
                if any([child.wait(_PATIENCE) == _STATUS for child in children]):
                    raise SystemExit(_STATUS)
        for child in children:
            child.kill()  # they may wait for this process, where they hear nothing else
            child.wait()


def _remove_empty_folders(trainer: Trainer) -> None:
    """Remove what the loggers have made for a run that did not begin."""
    for logger in trainer.loggers:
        folder, top = (None if place is None else Path(place) for place in (logger.log_dir, logger.save_dir))
        with suppress(OSError):  # not there, or not empty
            while folder is not None and top is not None and folder.is_relative_to(top):
                folder.rmdir()
                folder = folder.parent


def _of_users_code(error: BaseException) -> BaseException | None:
    """The error that the user's own code was at work in: this one, or one that it was made of."""
    return next((link for link in chain_of(error) if any(map(_is_users, frames_of(link)))), None)


def _is_ours(frame: FrameType) -> bool:
    return Path(frame.f_code.co_filename).is_relative_to(_LIBRARY)


def _is_users(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    if file.startswith("<") or _is_ours(frame):  # "<": part of the interpreter, or made by a program
        return False
    path = Path(file)
    return not path.is_relative_to(_STANDARD_LIBRARY) and _INSTALLED.isdisjoint(path.parts)


def _was_raised(error: BaseException) -> bool:
    """Whether an error comes from a ``raise``, and did not happen in what a line calls."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last is not None and last.tb_frame.f_code.co_code[last.tb_lasti] == _RAISE
