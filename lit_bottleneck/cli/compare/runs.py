"""The runs of a comparison: one arm with one seed, its configuration and its folder."""

import copy
import json
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lit_bottleneck.callbacks.run_stage import FILENAME as RESUME_POINT
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli.compare.arms import Arm
from lit_bottleneck.cli.recipes import as_list
from lit_bottleneck.cli.yaml_files import dump_yaml
from lit_bottleneck.training.folder_owner import FILENAME as OWNER
from lit_bottleneck.training.folder_owner import FolderInUseError, FolderOwner, seconds_to_its_end
from lit_bottleneck.training.whole_file import whole_file

FINISHED = "finished.json"  # in the folder of a finished run
_FAILED = "failed.json"  # in that of one that ended by an error, which would come again
_INFORMATION = "lit_bottleneck.callbacks.Information"
_CSV_LOGGER = "lightning.pytorch.loggers.CSVLogger"


@dataclass(frozen=True)
class Run:
    """One arm with one seed.

    Attributes:
        arm: the arm.
        seed: its ``seed_everything``.
        folder: the folder of this run alone.
        configuration: its configuration of ``lit-bottleneck fit``.
    """

    arm: Arm
    seed: int
    folder: Path
    configuration: dict[str, Any]

    @property
    def name(self) -> str:
        """The run's name in messages."""
        return f"{self.arm.name}, seed {self.seed}"

    @property
    def configuration_file(self) -> Path:
        """Path of the configuration."""
        return self.folder / "configuration.yaml"

    @property
    def log_file(self) -> Path:
        """Path of what the training prints."""
        return self.folder / "log.txt"

    @property
    def seconds(self) -> float | None:
        """Wall time in seconds, or None if the run is not finished."""
        finished = self.folder / FINISHED
        if not finished.exists():
            return None
        try:
            return float(json.loads(finished.read_bytes())["seconds"])
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"{finished} is damaged: delete it, and the run begins anew") from error

    def belongs_to_another_comparison(self) -> bool:
        """Return whether the folder holds a run with other settings that is finished, or could go on."""
        return (self.seconds is not None or self._was_cut) and not self._has_these_settings

    def begin(self) -> list[str] | None:
        """Make the folder ready for the run, or for the rest of one that was cut.

        Returns:
            The arguments of the command that trains; None if it has come to its end already.

        Raises:
            FolderInUseError: if another process, such as one of a killed comparison, still writes there.
        """
        seconds = seconds_to_its_end(self.folder)
        owner = FolderOwner(self.folder)
        try:
            if self._was_cut and self._has_these_settings:
                return ["resume", str(self.folder)]
            if seconds is not None and not (self.folder / _FAILED).exists() and self._has_these_settings:
                self.finish(seconds)
                return None
            self.prepare()
            return ["fit", "--config", str(self.configuration_file)]
        finally:
            owner.release()

    def prepare(self) -> None:
        """Create an empty folder with the configuration in it; delete what an unfinished run left there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != OWNER:
                path.unlink()
        with whole_file(self.configuration_file) as file:
            file.write_text(dump_yaml(self.configuration), encoding="utf-8")

    def finish(self, seconds: float) -> None:
        """Mark the run as finished, by a file that appears whole or not at all."""
        with whole_file(self.folder / FINISHED) as file:
            file.write_text(json.dumps({"seconds": seconds, "at": time.strftime("%Y-%m-%d %H:%M:%S")}))

    def fail(self, status: int) -> None:
        """Mark the run as failed, so that it is not resumed; not if another process writes there."""
        with suppress(FolderInUseError):
            owner = FolderOwner(self.folder)
            with whole_file(self.folder / _FAILED) as file:
                file.write_text(json.dumps({"status": status}))
            owner.release()

    @property
    def has_come_to_its_end(self) -> bool:
        """Whether the command that trained has noted so in the folder; one that keeps nothing notes nothing."""
        return seconds_to_its_end(self.folder) is not None or bool(self.configuration["trainer"].get("fast_dev_run"))

    @property
    def _was_cut(self) -> bool:
        """Whether training can go on."""
        has_begun = (self.folder / RESUME_POINT).exists() and (self.folder / "config.yaml").exists()
        return has_begun and not (self.folder / _FAILED).exists()

    @property
    def _has_these_settings(self) -> bool:
        try:
            return bool(yaml.safe_load(self.configuration_file.read_bytes()) == self.configuration)
        except (OSError, yaml.YAMLError):
            return False


def make_run(arm: Arm, seed: int, configuration: dict[str, Any], out: Path) -> Run:
    """Make the run of an arm with a seed.

    Its loggers and checkpoints write into its own folder. If the grid is over beta or the capacity, the run also
    estimates the information in the code.

    Args:
        arm: the arm.
        seed: replaces ``seed_everything``.
        configuration: the arm's configuration of ``lit-bottleneck fit``.
        out: the folder of the comparison.
    """
    folder = out / arm.folder_name / f"seed_{seed}"
    configuration = copy.deepcopy(configuration)
    configuration["seed_everything"] = seed
    trainer = configuration["trainer"]
    trainer["enable_progress_bar"] = trainer["enable_model_summary"] = False
    trainer["logger"] = _loggers(trainer.get("logger"), folder, f"{arm.name}, seed {seed}")
    callbacks = as_list(trainer.get("callbacks"))
    for callback in callbacks:
        arguments = callback.get("init_args", {})
        if arguments.get("dirpath"):  # of a ModelCheckpoint, which all runs would share
            arguments["dirpath"] = str(folder / Path(arguments["dirpath"]).name)
    if arm.varies_rate and not any(callback["class_path"] == _INFORMATION for callback in callbacks):
        trainer["callbacks"] = [*callbacks, {"class_path": _INFORMATION}]
    return Run(arm, seed, folder, configuration)


def _loggers(configured: Any, folder: Path, name: str) -> list[dict[str, Any]]:
    """A CSVLogger, whose file ``metrics`` reads, and the configured loggers of other kinds, in the run's folder."""
    loggers = [{"class_path": _CSV_LOGGER, "init_args": {"save_dir": str(folder), "name": "", "version": ""}}]
    for logger in as_list(configured):
        if logger["class_path"] == _CSV_LOGGER:
            continue
        arguments = logger.setdefault("init_args", {})
        if "save_dir" in arguments:
            arguments["save_dir"] = str(folder)
        if logger["class_path"].endswith("WandbLogger"):
            arguments["name"] = name
        loggers.append(logger)
    return loggers
