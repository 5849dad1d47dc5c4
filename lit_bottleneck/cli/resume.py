"""The command ``resume``: continue an interrupted run in its own folder and under its own name."""

import argparse
import csv
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_only

from lit_bottleneck.callbacks import run_folder
from lit_bottleneck.callbacks.random_states import UNDER_WAY
from lit_bottleneck.callbacks.resume_point import FILENAME, LOGGER_VERSIONS
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli import home
from lit_bottleneck.cli.recipes import as_list
from lit_bottleneck.training.checkpoints import read_checkpoint

_CONFIGURATION = "config.yaml"


class StoppedRun(NamedTuple):
    """A run to continue.

    Attributes:
        folder: the run's folder.
        logged_until: the last step whose logged rows are kept.
    """

    folder: Path
    logged_until: int


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
        path, checkpoint = _newest_checkpoint(arguments.folder)
    except ConfigurationError as error:
        parser.error(f"argument FOLDER: {error}")
    _continue_loggers(configuration["trainer"], checkpoint.get(LOGGER_VERSIONS, []))
    rank_zero_info(f"resuming from {path}, step {checkpoint['global_step']}")
    arguments_of_fit = ["fit", "--config", yaml.safe_dump(configuration), "--ckpt_path", str(path), *settings]
    fit(arguments_of_fit, StoppedRun(arguments.folder, _logged_until(checkpoint["loops"]["fit_loop"])))


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


@rank_zero_only
def keep_logged(trainer: Trainer, until: int | None = None) -> None:
    """Keep the rows that a run has logged, which Lightning's CSVLogger would delete when it reopens the folder.

    Args:
        trainer: a trainer whose loggers have not written yet.
        until: the last step to keep, if later steps will be logged again.
    """
    for logger in trainer.loggers:
        if not isinstance(logger, CSVLogger):
            continue
        file = Path(logger.log_dir, "metrics.csv")
        kept = file.with_name("metrics.kept.csv")  # left over if the process was killed within this function
        if file.exists() and not kept.exists():
            file.replace(kept)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Experiment logs directory")
            writer = logger.experiment  # would delete the file
        if kept.exists():
            writer.metrics = _rows(kept, until)
            writer.save()
            kept.unlink()


def _rows(file: Path, until: int | None) -> list[dict[str, Any]]:
    """Read all rows, or those before the first one that is later than a step or was cut off."""
    rows: list[dict[str, Any]] = []
    step = 0
    with file.open(newline="") as lines:
        for row in csv.DictReader(lines):
            of_row = int(float(row["step"] or -1))  # a fraction, if the model logs a "step" of its own
            if until is not None and not step <= of_row <= until:
                break
            step = of_row
            rows.append({name: value for name, value in row.items() if value})
    return rows


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


def _newest_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the newest checkpoint that training can continue from, with its path."""
    if not (folder / FILENAME).exists():
        raise ConfigurationError(f"{folder} holds no {FILENAME}: finished, or stopped before its first step")
    paths = [folder / FILENAME, *folder.glob("checkpoints/*.ckpt")]
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            checkpoint = read_checkpoint(path)
        except ValueError as error:
            warnings.warn(f"{error}; it is ignored", stacklevel=2)
            continue
        if "optimizer_states" in checkpoint and (path.name == FILENAME or not checkpoint.get(UNDER_WAY)):
            return path, checkpoint
    raise ConfigurationError(f"{folder} holds no checkpoint that can be read")


def _logged_until(loop: dict[str, Any]) -> int:
    """Return the last step, as loggers count, that precedes a checkpoint."""
    epochs = loop["epoch_progress"]["current"]
    is_at_epoch_end: int = epochs["processed"] - epochs["completed"]  # there the count is one ahead
    steps: int = loop["epoch_loop.state_dict"]["_batches_that_stepped"]
    return steps - is_at_epoch_end


def _continue_loggers(trainer: dict[str, Any], versions: Sequence[Any]) -> None:
    """Set each logger to continue its own run."""
    for logger, version in zip(as_list(trainer.get("logger")), versions, strict=False):
        arguments = logger.setdefault("init_args", {})
        if logger["class_path"].endswith("WandbLogger"):
            arguments |= {"id": version, "resume": "allow"}
        elif "version" in arguments:  # a TensorBoardLogger or CSVLogger
            arguments["version"] = version
