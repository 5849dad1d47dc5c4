"""The command ``resume``: continue an interrupted run in its own folder and under its own name."""

import argparse
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from lightning import Trainer
from lightning_utilities.core.rank_zero import rank_zero_info

from lit_bottleneck.callbacks import run_folder
from lit_bottleneck.callbacks.logged import LOGGED
from lit_bottleneck.callbacks.run_stage import BEGUN, FILENAME, LOGGER_VERSIONS, STAGE, TRAINED
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli import home
from lit_bottleneck.cli.logged_rows import logged_until
from lit_bottleneck.cli.newest_checkpoint import newest_checkpoint
from lit_bottleneck.cli.recipes import as_list
from lit_bottleneck.cli.yaml_files import dump_yaml, read_yaml
from lit_bottleneck.training.checkpoints import read_checkpoint
from lit_bottleneck.training.folder_owner import seconds_to_its_end

_CONFIGURATION = "config.yaml"


class StoppedRun(NamedTuple):
    """A run to continue.

    Attributes:
        folder: the run's folder.
        start: the file that says where it was stopped.
        logged_until: the last step whose logged rows are kept.
        logged: for each logger, its rows as the file that it continues from holds them.
        trained: if only its test is left, what that depends on (``mark_trained``).
        written_at: when ``start`` was written, in nanoseconds.
    """

    folder: Path
    start: Path
    logged_until: int
    logged: Sequence[str | None] = ()
    trained: dict[str, Any] | None = None
    written_at: int = 0


def main(args: Sequence[str], fit: Callable[[list[str], StoppedRun], object]) -> None:
    """Continue a run from its resume point, or from its beginning if there is none yet; or only test it.

    Args:
        args: the command's arguments.
        fit: trains; takes the arguments of ``fit`` and the run.
    """
    parser = make_parser()
    arguments, settings = parser.parse_known_args(args)
    try:
        configuration = _configuration_of(arguments.folder)
        if not settings and _is_finished(arguments.folder):
            rank_zero_info(f"{arguments.folder} is finished: nothing is left to do")
            return
        run, content = _stopped_run(arguments.folder)
        _continue_loggers(configuration["trainer"], content.get(LOGGER_VERSIONS, []))
    except ConfigurationError as error:
        parser.error(f"argument FOLDER: {error}")
    except (KeyError, TypeError, AttributeError) as error:
        found = f"{type(error).__name__}: {error}"
        parser.error(f"argument FOLDER: {arguments.folder} holds no {FILENAME} of a training ({found})")
    run = run._replace(written_at=run.start.stat().st_mtime_ns)
    from_checkpoint = [] if STAGE in content else ["--ckpt_path", str(run.start)]
    fit(["fit", "--config", dump_yaml(configuration), *from_checkpoint, *settings], run)


def make_parser() -> argparse.ArgumentParser:
    """Return the command's parser; it leaves the options of ``fit`` over."""
    parser = argparse.ArgumentParser(
        "lit-bottleneck resume",
        description="Continue an interrupted run from the resume point in its folder, as if it had not been "
        "interrupted; where the training has come to its end, only test it; where the test has, too, do nothing. "
        "Options of fit after the folder override the run's configuration, this time only. Call it from the "
        "folder in which the run was started.",
    )
    parser.add_argument("folder", metavar="FOLDER", type=home.path, help="the run's folder, as fit prints it")
    return parser


def _is_finished(folder: Path) -> bool:
    """Return whether a run has noted its end, and so removed its resume point."""
    return not (folder / FILENAME).exists() and seconds_to_its_end(folder) is not None


def _stopped_run(folder: Path) -> tuple[StoppedRun, dict[str, Any]]:
    """Return a run, with the content of the file that says where it was stopped."""
    start, mark = folder / FILENAME, {}
    if start.exists():
        with suppress(ConfigurationError):  # it is damaged; there may be others
            mark = read_checkpoint(start)
    if mark.get(STAGE) == BEGUN:
        rank_zero_info(f"{folder} was stopped before its first resume point, and begins anew")
        return StoppedRun(folder, start, logged_until=-1), mark
    if mark.get(STAGE) == TRAINED:
        rank_zero_info(f"{folder} is trained, and only its test is left")
        lost = [path for path in mark["checkpoints"] if not Path(path).exists()]
        if lost:
            raise ConfigurationError(f"{lost[0]} is to be tested, and does not exist: call resume from where fit was")
        return StoppedRun(folder, start, -1, mark[LOGGED], trained=mark), mark
    start, checkpoint = newest_checkpoint(folder)
    rank_zero_info(f"resuming from {start}, step {checkpoint['global_step']}")
    until = logged_until(checkpoint["loops"]["fit_loop"])
    return StoppedRun(folder, start, until, checkpoint.get(LOGGED, ())), checkpoint


def check_folder(trainer: Trainer, run: StoppedRun) -> None:
    """Check that the run continues in its own folder.

    Raises:
        ConfigurationError: if it would continue in another one, with its path.
    """
    folder = run_folder(trainer).resolve()
    if folder != run.folder.resolve():
        raise ConfigurationError(
            f"{run.folder} would continue in {folder}: call resume from where the run was started, and give "
            "trainer.logger by its class_path (with true or false every run has a new folder: "
            f"'fit --config {run.folder}/{_CONFIGURATION} --ckpt_path {run.folder}/{FILENAME}' goes on in a new one)"
        )


def check_start(run: StoppedRun) -> None:
    """Check that no other process has gone on with the run since it was looked at; now this one owns the folder.

    Raises:
        ConfigurationError: if one has.
    """
    if not run.start.exists() or run.start.stat().st_mtime_ns != run.written_at:
        raise ConfigurationError(f"{run.folder} was just resumed by another process: call resume again")


def _configuration_of(folder: Path) -> dict[str, Any]:
    file = folder / _CONFIGURATION
    if not os.path.exists(file):  # which also answers where a name is too long
        raise ConfigurationError(f"{folder} holds no {_CONFIGURATION}: it is no run of 'lit-bottleneck fit'")
    configuration: dict[str, Any] = read_yaml(file)
    if not isinstance(configuration, dict) or not isinstance(configuration.get("trainer"), dict):
        raise ConfigurationError(f"{file} is no configuration of fit: it has no section trainer")
    return configuration


def _continue_loggers(trainer: dict[str, Any], versions: Sequence[Any]) -> None:
    """Set each logger to continue its own run."""
    for logger, version in zip(as_list(trainer.get("logger")), versions, strict=False):
        class_path = logger.get("class_path") if isinstance(logger, dict) else None
        arguments = logger.setdefault("init_args", {}) if isinstance(class_path, str) else None
        if not isinstance(arguments, dict):
            continue  # fit refuses it
        if str(class_path).endswith("WandbLogger"):
            arguments |= {"id": version, "resume": "allow"}
        elif "version" in arguments:  # a TensorBoardLogger or CSVLogger
            arguments["version"] = version
