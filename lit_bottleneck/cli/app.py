"""The command line: Lightning's commands from YAML recipes, with `recipes`, `resume`, `sample`, `export`, `compare`."""

import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning import LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning_utilities.core.rank_zero import rank_zero_info

from lit_bottleneck.callbacks import PredictionWriter, ProgressBar, RandomStates, ResumePoint, run_folder
from lit_bottleneck.cli import compare, recipes, resume, sample
from lit_bottleneck.cli.export import main as export_command
from lit_bottleneck.cli.refusals import FirstBatch, Parser, told_in_one_line
from lit_bottleneck.models.gan_checks import check_trainer
from lit_bottleneck.models.vdb import VDBGAN
from lit_bottleneck.training.checkpoints import WholeCheckpointIO
from lit_bottleneck.training.loading import check_checkpoint
from lit_bottleneck.training.memory import keep_freed_memory

_NOT_FOR_USERS = (
    ".*does not have many workers.*",  # data in memory is loaded fastest by the process itself
    "Total length of `list` across ranks is zero",  # val_size=0 is what the user asked for
    ".*isinstance\\(treespec, LeafSpec\\).*",  # Lightning's own business
)
_EPILOG = (
    "Further commands: 'lit-bottleneck recipes' lists the recipes that come with the package, and copies one to edit; "
    "'lit-bottleneck resume' goes on with a run that was stopped; 'lit-bottleneck sample' draws images from a trained "
    "model; 'lit-bottleneck export' writes one to an ONNX file; 'lit-bottleneck compare' trains several arms with "
    "several seeds, and says how they differ."
)


class SaveConfig(SaveConfigCallback):
    """Write the configuration to ``config.yaml`` in the run's folder, and under the key ``cli`` of a wandb run."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "save_to_log_dir": False})

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wait: what is set up now may still be refused, and would leave its folder behind."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it on the first process."""
        super().setup(trainer, pl_module, "fit")

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called once, on the first process."""
        text = self.parser.dump(self.config, skip_none=False)
        folder = run_folder(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / self.config_filename).write_text(text)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.config.update({"cli": yaml.safe_load(text)}, allow_val_change=True)


class BottleneckCLI(LightningCLI):
    """LightningCLI for any LightningModule and LightningDataModule by class path, which tests what it has trained."""

    def __init__(self, args: ArgsType = None, stopped_run: resume.StoppedRun | None = None) -> None:
        keep_freed_memory()
        self._stopped_run = stopped_run
        words = sys.argv[1:] if args is None else args
        self._asked_for = words[0] if isinstance(words, list) and words and words[0] in self.subcommands() else None
        self._first_batch = FirstBatch()
        with told_in_one_line(self, self._first_batch):
            super().__init__(
                save_config_callback=SaveConfig if stopped_run is None else None,
                trainer_defaults={"callbacks": [PredictionWriter(), self._first_batch]},
                parser_kwargs={"prog": "lit-bottleneck", "epilog": _EPILOG},
                parser_class=Parser,
                auto_configure_optimizers=False,
                args=args,
            )

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Leave out the options of the commands that are not asked for, which take their time."""
        if self._asked_for in (None, subcommand):
            return super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        return self.init_parser(**kwargs)

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise ValueError(f"seed_everything: {error}") from error

    def before_instantiate_classes(self) -> None:
        """Refuse a section of the trainer that is none, and a checkpoint that cannot be read."""
        command = self.config[self.subcommand]
        if not isinstance(command.trainer, Namespace):
            raise ValueError(f"trainer: must hold keys and their values; got {command.trainer!r}")
        if command.ckpt_path:
            try:
                check_checkpoint(command.ckpt_path, weights_only=command.weights_only is not False)
            except (FileNotFoundError, ValueError) as error:
                raise ValueError(f"--ckpt_path: {error}") from error

    def instantiate_classes(self) -> None:
        """Build model, data and trainer."""
        super().instantiate_classes()
        if getattr(self.datamodule, "val_size", None) == 0:
            for callback in self.trainer.checkpoint_callbacks:
                if isinstance(callback, ModelCheckpoint) and (callback.monitor or "").startswith("val/"):
                    callback.monitor, callback.filename = None, "last"  # nothing to choose by
            _drop_repeated_and_idle(self.trainer)
        command = self.config_init[self.subcommand]
        if command.get("weights_only") is None:
            command["weights_only"] = True  # nothing in a checkpoint of ours needs more

    def _parse_ckpt_path(self) -> None:
        """Keep the model that the command gives, which Lightning would silently overwrite by the checkpoint's."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer, with our progress bar and what an exact resume needs, unless configured otherwise."""
        configured = self._get(self.config_init, "trainer")
        callbacks = configured.get("callbacks") or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        wanted: list[tuple[type[Callback], type[Callback]]] = [(RandomStates, RandomStates)]
        if configured.get("enable_progress_bar") is not False:
            wanted.append((LightningProgressBar, ProgressBar))
        if configured.get("enable_checkpointing") is not False and not configured.get("fast_dev_run"):
            wanted.append((ResumePoint, ResumePoint))
        missing = [ours() for kind, ours in wanted if not any(isinstance(callback, kind) for callback in callbacks)]
        trainer = super().instantiate_trainer(**kwargs, callbacks=[*callbacks, *missing])
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeCheckpointIO()
        return trainer

    def before_fit(self) -> None:
        """Refuse to train on nothing, or a GAN by a trainer that cannot; keep what a resumed run has logged."""
        if self.datamodule is None and not is_overridden("train_dataloader", self.model):
            raise ValueError("data: must be given to train on; there are those of lit_bottleneck.data (--data)")
        if isinstance(self.model, VDBGAN):
            check_trainer(self.trainer)
        if self._stopped_run is not None:
            resume.check_folder(self.trainer, self._stopped_run)
            resume.keep_logged(self.trainer, self._stopped_run.logged_until)

    def before_validate(self) -> None:
        """Refuse to validate on nothing; keep what was logged."""
        if getattr(self.datamodule, "val_size", None) == 0:
            raise ValueError("val_size=0 holds out nothing to validate on (--data.init_args.val_size)")
        resume.keep_logged(self.trainer)

    def before_test(self) -> None:
        """Keep what was logged into the folder of the same version, the training's."""
        resume.keep_logged(self.trainer)

    before_predict = before_test

    def after_fit(self) -> None:
        """Test the chosen checkpoint, then that of every further ModelCheckpoint, and say where the first is.

        What is logged of a further one begins with the name of its file in place of ``test``: ``last/accuracy``.
        """
        trainer = self.trainer
        checkpoints = [getattr(callback, "best_model_path", "") for callback in trainer.checkpoint_callbacks]
        checkpoint, others = next(iter(checkpoints), ""), checkpoints[1:]
        if not checkpoint:
            rank_zero_info("no checkpoint was written, and nothing tested")
            return
        data = self.datamodule or self.model
        if is_overridden("test_dataloader", data) and is_overridden("test_step", self.model):
            self._test(checkpoint)
            for other in filter(None, others):
                self._test_beside(other)
        if trainer.is_global_zero:
            print(f"run folder: {run_folder(trainer)}\ncheckpoint: {checkpoint}")

    def _test(self, checkpoint: str) -> dict[str, float]:
        weights_only = self.config_init["fit"]["weights_only"]
        results = self.trainer.test(
            self.model, datamodule=self.datamodule, ckpt_path=checkpoint, weights_only=weights_only
        )
        return {name: value for of_a_loader in results for name, value in of_a_loader.items()}

    def _test_beside(self, checkpoint: str) -> None:
        """Test a further checkpoint, and log what was found under the name of its file."""
        trainer = self.trainer
        loggers, trainer.loggers = trainer.loggers, []
        try:
            measured = self._test(checkpoint)
        finally:
            trainer.loggers = loggers
        values = {f"{Path(checkpoint).stem}/{name.removeprefix('test/')}": value for name, value in measured.items()}
        for logger in loggers:
            logger.log_metrics({"epoch": trainer.current_epoch, **values}, trainer.global_step)
            logger.save()


def _drop_repeated_and_idle(trainer: Any) -> None:
    """Without validation, leave out what waits for it, and all but the first of checkpoints that are now the same."""
    kept: list[Callback] = []
    places: set[tuple[Any, ...]] = set()
    for callback in trainer.callbacks:
        if isinstance(callback, EarlyStopping) and callback.monitor.startswith("val/"):
            continue
        if isinstance(callback, ModelCheckpoint):
            place = (callback.dirpath, callback.filename, callback.monitor)
            if place in places:
                continue
            places.add(place)
        kept.append(callback)
    trainer.callbacks = kept


class _Configuring(BottleneckCLI):
    """Reads arguments, and builds nothing of them."""

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Without the warning that there are others on the command line."""
        self.config = parser.parse_args(args)  # type: ignore[arg-type]

    def _set_seed(self) -> None:
        """Do not."""

    def instantiate_classes(self) -> None:
        """Do not."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Do not."""


def fit_configuration(arguments: Sequence[str]) -> dict[str, Any]:
    """The configuration that ``lit-bottleneck fit`` makes of its arguments, as plain collections.

    Raises:
        SystemExit: with status 2 where they are wrong, which is said.
    """
    command = _Configuring(["fit", *arguments])
    configuration: dict[str, Any] = yaml.safe_load(command.parser.dump(command.config, skip_none=False))["fit"]
    return configuration


_COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "recipes": recipes.main,
    "sample": sample.main,
    "export": export_command,
    "resume": partial(resume.main, fit=BottleneckCLI),
    "compare": partial(compare.main, configure=fit_configuration),
}


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: the arguments. Default: those of the process.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    for message in _NOT_FOR_USERS:
        warnings.filterwarnings("ignore", message=message)
    if arguments[:1] and arguments[0] in _COMMANDS:
        _COMMANDS[arguments[0]](arguments[1:])
        return
    BottleneckCLI(args if args is None else arguments)
