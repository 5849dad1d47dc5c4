"""The runs of a comparison: one arm with one seed, its configuration and its folder."""

import copy
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lit_bottleneck.cli.compare.arms import Arm

_INFORMATION = "lit_bottleneck.callbacks.Information"
_CSV_LOGGER = "lightning.pytorch.loggers.CSVLogger"


@dataclass(frozen=True)
class Run:
    """One arm with one seed.

    Attributes:
        arm: which arm.
        seed: its ``seed_everything``.
        folder: of this run alone.
        configuration: of ``lit-bottleneck fit``.
    """

    arm: Arm
    seed: int
    folder: Path
    configuration: dict[str, Any]

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.arm.name}, seed {self.seed}"

    @property
    def configuration_file(self) -> Path:
        """Where its configuration is."""
        return self.folder / "configuration.yaml"

    @property
    def log_file(self) -> Path:
        """What the training has said."""
        return self.folder / "log.txt"

    @property
    def metrics_file(self) -> Path:
        """What the training has logged."""
        return self.folder / "metrics.csv"

    @property
    def seconds(self) -> float | None:
        """Wall time, if it has come to its end."""
        finished = self._finished_file
        return float(json.loads(finished.read_text())["seconds"]) if finished.exists() else None

    @property
    def _finished_file(self) -> Path:
        return self.folder / "finished.json"

    def is_of_another_comparison(self) -> bool:
        """Whether the folder holds a finished run of other settings."""
        if self.seconds is None:
            return False
        return self.configuration_file.read_text() != self._text()

    def prepare(self) -> None:
        """Make an empty folder with the configuration in it: of a run that was cut nothing is kept."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.configuration_file.write_text(self._text())

    def finish(self, seconds: float) -> None:
        """Leave word that it has come to its end: the file is there as a whole or not at all."""
        unfinished = self._finished_file.with_suffix(".part")
        unfinished.write_text(json.dumps({"seconds": seconds, "at": time.strftime("%Y-%m-%d %H:%M:%S")}))
        unfinished.replace(self._finished_file)

    def _text(self) -> str:
        return str(yaml.safe_dump(self.configuration, sort_keys=False))


def run_of(arm: Arm, seed: int, configuration: dict[str, Any], out: Path) -> Run:
    """The run of an arm with a seed: loggers write into its folder, and a price's effect is accounted for.

    Args:
        arm: which arm.
        seed: takes the place of ``seed_everything``.
        configuration: the arm's, of ``lit-bottleneck fit``.
        out: the folder of the comparison.
    """
    folder = out / arm.folder_name / f"seed_{seed}"
    configuration = copy.deepcopy(configuration)
    configuration["seed_everything"] = seed
    trainer = configuration["trainer"]
    trainer["enable_progress_bar"] = trainer["enable_model_summary"] = False
    trainer["logger"] = _loggers(trainer.get("logger"), folder, f"{arm.name}, seed {seed}")
    callbacks = _as_list(trainer.get("callbacks"))
    for callback in callbacks:
        arguments = callback.get("init_args", {})
        if arguments.get("dirpath"):  # of a ModelCheckpoint: all runs would write into one folder
            arguments["dirpath"] = str(folder / Path(arguments["dirpath"]).name)
    accounted = any(callback["class_path"] == _INFORMATION for callback in callbacks)
    if arm.sets_a_price and not accounted:
        trainer["callbacks"] = [*callbacks, {"class_path": _INFORMATION}]
    return Run(arm, seed, folder, configuration)


def _loggers(configured: Any, folder: Path, name: str) -> list[dict[str, Any]]:
    """A CSV logger of ours, which `measured` reads, and the configured ones that are none, in the run's folder."""
    loggers = [{"class_path": _CSV_LOGGER, "init_args": {"save_dir": str(folder), "name": "", "version": ""}}]
    for logger in _as_list(configured):
        if logger["class_path"] == _CSV_LOGGER:
            continue
        arguments = logger.setdefault("init_args", {})
        if "save_dir" in arguments:
            arguments["save_dir"] = str(folder)
        if logger["class_path"].endswith("WandbLogger"):
            arguments["name"] = name
        loggers.append(logger)
    return loggers


def _as_list(configured: Any) -> list[dict[str, Any]]:
    """The objects of a setting that may be one, several, or none (also True or False, of loggers)."""
    if isinstance(configured, dict):
        return [configured]
    return list(configured) if isinstance(configured, list) else []
