"""The file ``config.yaml`` in a run's folder, from which the run is repeated, resumed and tested."""

import warnings
from collections.abc import Iterator
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, Namespace
from jsonargparse.typing import register_type
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger
from lightning_utilities.core.enums import StrEnum

from lit_bottleneck.callbacks import ResumePoint, run_folder
from lit_bottleneck.callbacks.run_stage import mark_begun
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli.messages import in_one_line
from lit_bottleneck.cli.run_owner import is_kept
from lit_bottleneck.cli.yaml_files import dump_yaml, load_yaml
from lit_bottleneck.training.whole_file import whole_file

_UNWRITTEN = "Unable to serialize instance"  # what jsonargparse writes in the place of an object

register_type(torch.device, str, torch.device, fail_already_registered=False)
yaml.SafeDumper.add_multi_representer(StrEnum, lambda dumper, value: dumper.represent_str(value.value))


class SaveConfig(SaveConfigCallback):
    """Write the configuration to ``config.yaml`` in the run's folder, and under the key ``cli`` of a wandb run."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot be written; write nothing yet: a run that is refused later would leave its folder behind.

        Raises:
            ConfigurationError: with the key.
        """
        if stage == "fit":
            self._text = written(self.parser, self.config)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that the run begins, and write the configuration, on the first process, if it leaves anything."""
        if not is_kept(trainer):
            return
        if any(isinstance(callback, ResumePoint) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            mark_begun(trainer)
        super().setup(trainer, pl_module, "fit")

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the configuration to the run's folder, and to wandb."""
        with whole_file(run_folder(trainer) / self.config_filename) as file:
            file.write_text(self._text, encoding="utf-8")
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.config.update({"cli": load_yaml(self._text)}, allow_val_change=True)


def written(parser: LightningArgumentParser, config: Namespace) -> str:
    """Return a configuration as YAML that gives the same configuration when it is read.

    Objects that are defaults of arguments cannot be written; they are left out.

    Raises:
        ConfigurationError: for another thing that cannot be written, with its key.
    """
    exits, parser.exit_on_error = parser.exit_on_error, False
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=f"(?s).*{_UNWRITTEN}")
            dumped = load_yaml(parser.dump(config, skip_none=False, skip_validation=True))
        text = dump_yaml(_without_objects(dumped, config))
        again = parser.parse_string(text)
    except (ArgumentError, ValueError, TypeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"config.yaml cannot hold this configuration: {in_one_line(str(error))}") from error
    finally:
        parser.exit_on_error = exits
    for key, given in _differences(config, again):
        if key.partition(".")[0] != "config":  # the files that were read
            raise ConfigurationError(f"{key}: config.yaml cannot hold {given!r}, so that the run could not be repeated")
    return text


def _without_objects(tree: Any, given: Any) -> Any:
    """Return plain collections without the objects of which jsonargparse says that it cannot write them.

    It says so of words too, for an argument that may be a function or the name of one: they are kept.
    """
    if isinstance(tree, list) and isinstance(given, (list, tuple)) and len(tree) == len(given):
        return [_without_objects(item, one) for item, one in zip(tree, given, strict=True)]
    if not isinstance(tree, dict):
        return given if type(given) is str else tree
    kept = {}
    for key, value in tree.items():
        one = given.get(key) if isinstance(given, (Namespace, dict)) else None
        if type(one) is str or not (isinstance(value, str) and value.startswith(_UNWRITTEN)):
            kept[key] = _without_objects(value, one)
    return kept


def _differences(given: Any, again: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield keys and given values where a configuration is not what it is when it is read again."""
    if isinstance(given, (Namespace, dict)) and isinstance(again, (Namespace, dict)):
        ours, theirs = (dict(vars(one) if isinstance(one, Namespace) else one) for one in (given, again))
        for name in {**ours, **theirs}:
            place = f"{key}.{name}" if key else str(name)
            yield from _differences(ours.get(name), theirs.get(name), place)
    elif isinstance(given, (list, tuple)) and isinstance(again, (list, tuple)) and len(given) == len(again):
        for one, other in zip(given, again, strict=True):
            yield from _differences(one, other, key)
    elif given is not again and repr(given) != repr(again) and not _are_equal(given, again):
        yield key, given


def _are_equal(given: Any, again: Any) -> bool:
    try:
        return bool(given == again)
    except (TypeError, ValueError, RuntimeError):  # of arrays
        return False
