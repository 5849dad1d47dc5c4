"""The command ``resume``: continue an interrupted run in its own folder and under its own name."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from lightning import Trainer
from lightning_utilities.core.rank_zero import rank_zero_info

from lit_bottleneck.callbacks import run_folder
from lit_bottleneck.callbacks.logged import LOGGED
from lit_bottleneck.callbacks.resume_point import FILENAME, LOGGER_VERSIONS
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli import home
from lit_bottleneck.cli.logged_rows import logged_until
from lit_bottleneck.cli.newest_checkpoint import newest_checkpoint
from lit_bottleneck.cli.recipes import as_list

_CONFIGURATION = "config.yaml"


class StoppedRun(NamedTuple):
    """A run to continue.

    Attributes:
        folder: the run's folder.
        logged_until: the last step whose logged rows are kept.
        logged: for each logger, its rows as the checkpoint holds them.
    """

    folder: Path
    logged_until: int
    logged: Sequence[str | None] = ()


def main(args: Sequence[str], fit: Callable[[list[str], StoppedRun], object]) -> None:
    """Find a run's newest checkpoint, and continue training from it.

    Args:
        args: the command's arguments.
        fit: trains; takes the arguments of ``fit`` and the run.
    """
    parser = argparse.ArgumentParser(
        "lit-bottleneck resume",
        description="Continue an interrupted run from the newest checkpoint in its folder, as if it had not been "
        "interrupted. Options of fit after the folder override the run's configuration, this time only. Call it from "
        "the folder in which the run was started.",
    )
    parser.add_argument("folder", metavar="FOLDER", type=home.path, help="the run's folder, as fit prints it")
    arguments, settings = parser.parse_known_args(args)
    try:
        configuration = _configuration_of(arguments.folder)
        path, checkpoint = newest_checkpoint(arguments.folder)
    except ConfigurationError as error:
        parser.error(f"argument FOLDER: {error}")
    _continue_loggers(configuration["trainer"], checkpoint.get(LOGGER_VERSIONS, []))
    rank_zero_info(f"resuming from {path}, step {checkpoint['global_step']}")
    arguments_of_fit = ["fit", "--config", yaml.safe_dump(configuration), "--ckpt_path", str(path), *settings]
    fit(
        arguments_of_fit,
        StoppedRun(arguments.folder, logged_until(checkpoint["loops"]["fit_loop"]), checkpoint.get(LOGGED, ())),
    )


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


def _configuration_of(folder: Path) -> dict[str, Any]:
    file = folder / _CONFIGURATION
    if not file.exists():
        raise ConfigurationError(f"{folder} holds no {_CONFIGURATION}: it is no run of 'lit-bottleneck fit'")
    try:
        configuration: dict[str, Any] = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{file} is no YAML file: {error}") from error
    if not isinstance(configuration, dict) or not isinstance(configuration.get("trainer"), dict):
        raise ConfigurationError(f"{file} is no configuration of fit: it has no section trainer")
    return configuration


def _continue_loggers(trainer: dict[str, Any], versions: Sequence[Any]) -> None:
    """Set each logger to continue its own run."""
    for logger, version in zip(as_list(trainer.get("logger")), versions, strict=False):
        arguments = logger.setdefault("init_args", {})
        if logger["class_path"].endswith("WandbLogger"):
            arguments |= {"id": version, "resume": "allow"}
        elif "version" in arguments:  # a TensorBoardLogger or CSVLogger
            arguments["version"] = version
