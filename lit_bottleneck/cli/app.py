"""The command line: Lightning's commands from YAML recipes, with our defaults and one-line errors."""

import sys
import time
from argparse import SUPPRESS
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning_utilities.core.rank_zero import rank_zero_info

from lit_bottleneck.callbacks import PredictionWriter, ResumePoint
from lit_bottleneck.callbacks.last_checkpoint import chosen_checkpoints
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli import resume
from lit_bottleneck.cli.added_callbacks import added_callbacks
from lit_bottleneck.cli.after_fit import continue_to_test, run_tests
from lit_bottleneck.cli.configuration import SaveConfig, written
from lit_bottleneck.cli.errors import REFUSALS, Parser, exit_on_configuration_errors, refusing, take_processes
from lit_bottleneck.cli.later_files import remove_later_files
from lit_bottleneck.cli.logged_rows import keep_logged
from lit_bottleneck.cli.parent import ranks_end_too
from lit_bottleneck.cli.ranges import check_settings
from lit_bottleneck.cli.restoring import Restoring
from lit_bottleneck.cli.run_owner import RunOwner
from lit_bottleneck.cli.stopping import KeepSignals, know_trainer
from lit_bottleneck.cli.terminal import closing_lines, leave_out_what_tells_nothing, print_results
from lit_bottleneck.cli.trainer_checks import check_callbacks, check_processors, check_trainer
from lit_bottleneck.cli.yaml_files import load_yaml
from lit_bottleneck.models.disagreements import check_weights, warn_of_arguments
from lit_bottleneck.models.stored_arguments import StoredArguments
from lit_bottleneck.training.checkpoints import WholeCheckpointIO, check_checkpoint
from lit_bottleneck.training.gpu_probe import stop_probing_without_gpu
from lit_bottleneck.training.memory import keep_freed_memory

_OVERWRITE_HELP = "replace the run whose files are in the folder, from the start of the training on"


class BottleneckCLI(LightningCLI):
    """LightningCLI for any LightningModule and LightningDataModule by class path; ``fit`` ends with a test."""

    def __init__(self, args: ArgsType = None, stopped_run: resume.StoppedRun | None = None) -> None:
        keep_freed_memory()
        stop_probing_without_gpu()
        self._stopped_run = stopped_run
        self._stored_arguments: dict[str, Any] = {}
        self._seconds: float | None = None
        leave_out_what_tells_nothing()
        words = sys.argv[1:] if args is None else args
        self._first_word = words[0] if isinstance(words, list) and words else None
        self._owner, self._overwrites = RunOwner(), False
        with exit_on_configuration_errors(self), self._owner.until_the_end(), ranks_end_too():
            super().__init__(
                save_config_callback=SaveConfig if stopped_run is None else None,
                save_config_kwargs={"save_to_log_dir": False},
                trainer_defaults={"callbacks": [PredictionWriter(), self._owner]},
                parser_kwargs={"prog": "lit-bottleneck"},
                parser_class=Parser,
                auto_configure_optimizers=False,
                args=args,
            )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the command that was asked for, or all: collecting the options of each takes a second."""
        known = super().subcommands()
        return {name: skip for name, skip in known.items() if name == self._first_word} or known

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of ``fit`` that Lightning's has not."""
        if self._first_word == "fit":
            parser.add_argument("--overwrite", action="store_true", default=SUPPRESS, help=_OVERWRITE_HELP)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the arguments; refuse settings out of their ranges."""
        with refusing(kinds=(*REFUSALS, TypeError)):
            super().parse_arguments(parser, args)
        command = self.config[self.config["subcommand"]]
        self._overwrites = command.pop("overwrite", False)  # for once, and no part of the run's configuration
        check_settings(command)

    def _parse_ckpt_path(self) -> None:
        """Keep the model that the arguments name, which Lightning would silently replace by the checkpoint's.

        LightningCLI does so in this method alone, and has no argument that turns it off.
        """

    def before_instantiate_classes(self) -> None:
        """Refuse a checkpoint that cannot be read, or that a training cannot continue from."""
        command = self.config[self.subcommand]
        path = command.ckpt_path
        if path == "best":
            raise ConfigurationError("--ckpt_path: must be a file; got 'best', which is known within a training only")
        if path:
            with refusing("--ckpt_path: "):
                checkpoint = check_checkpoint(path, weights_only=command.weights_only is not False) or {}
            if self.subcommand == "fit" and checkpoint and "optimizer_states" not in checkpoint:
                raise ConfigurationError(f"--ckpt_path: {path} holds weights alone: no training continues from it")
            self._stored_arguments = checkpoint.get("hyper_parameters", {})

    def instantiate_classes(self) -> None:
        """Build model, data and trainer."""
        super().instantiate_classes()
        command = self.config_init[self.subcommand]
        path = command.get("ckpt_path")
        if path:
            self.model.register_load_state_dict_pre_hook(_check_weights)
            if not isinstance(self.model, StoredArguments):  # which compares them itself
                warn_of_arguments(self._stored_arguments, self.model.hparams, trains=self.subcommand == "fit")
            reads_files = type(self.trainer.strategy).load_checkpoint is Strategy.load_checkpoint
            if reads_files and Path(path).is_dir():
                raise ConfigurationError(f"--ckpt_path: {path} is no checkpoint: it is a folder")
        if command.get("weights_only") is None:
            command["weights_only"] = True  # nothing in a checkpoint of ours needs more

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer, with further callbacks."""
        configured = self._get(self.config_init, "trainer")
        callbacks = configured.get("callbacks") or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        check_callbacks(callbacks)
        check_processors(configured)
        added = added_callbacks(configured, callbacks, self.datamodule)
        with refusing("trainer: "):
            trainer = super().instantiate_trainer(**kwargs, callbacks=[*callbacks, *added, KeepSignals(), Restoring()])
        know_trainer(trainer, take_processes)
        for point in _resume_points(trainer):
            point.is_kept_for_test = True
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeCheckpointIO()
        check_trainer(trainer)
        return trainer

    def before_fit(self) -> None:
        """Refuse to train without data; keep what a resumed run has logged."""
        if self.datamodule is None and not is_overridden("train_dataloader", self.model):
            raise ConfigurationError("data: must be given to train on; there are those of lit_bottleneck.data (--data)")
        if hasattr(self.model, "check_trainer"):
            self.model.check_trainer(self.trainer)
        if self._stopped_run is not None:
            resume.check_folder(self.trainer, self._stopped_run)
        self._owner.own(self.trainer, trains=True, begins=self._stopped_run is None, overwrites=self._overwrites)
        if self._stopped_run is None:
            keep_logged(self.trainer)
        else:
            resume.check_start(self._stopped_run)
            if self._stopped_run.trained is None:
                remove_later_files(self.trainer, self._stopped_run.start)
            keep_logged(self.trainer, self._stopped_run.logged_until, self._stopped_run.logged)
            if self._stopped_run.trained is not None:
                continue_to_test(self.trainer, self._stopped_run.trained)

    def fit(self, **arguments: Any) -> None:
        """Train, unless a resumed run is trained."""
        if self._stopped_run is None or self._stopped_run.trained is None:
            began = time.monotonic()
            self.trainer.fit(**arguments)
            self._seconds = time.monotonic() - began

    def validate(self, verbose: bool = True, **arguments: Any) -> None:
        """Evaluate on the validation set, and print the results."""
        results = self.trainer.validate(verbose=False, **arguments)
        print_results("val", results if verbose else ())

    def test(self, verbose: bool = True, **arguments: Any) -> None:
        """Evaluate on the test set, and print the results."""
        results = self.trainer.test(verbose=False, **arguments)
        print_results("test", results if verbose else ())

    def before_validate(self) -> None:
        """Refuse to validate without data; keep what was logged."""
        if self.datamodule is not None and not is_overridden("val_dataloader", self.datamodule):
            raise ConfigurationError(
                f"{type(self.datamodule).__name__} has nothing to validate on (lit-bottleneck test)"
            )
        if getattr(self.datamodule, "val_size", None) == 0:
            raise ConfigurationError("val_size=0 holds out nothing to validate on (--data.init_args.val_size)")
        self.before_test()

    def before_test(self) -> None:
        """Own the run's folder, and keep what the training logged into it."""
        self._owner.own(self.trainer)
        keep_logged(self.trainer)

    before_predict = before_test

    def after_fit(self) -> None:
        """Test the chosen checkpoint, then that of every further ``ModelCheckpoint``; print the path of the first."""
        trained = self._stopped_run and self._stopped_run.trained
        checkpoints = trained["checkpoints"] if trained else chosen_checkpoints(self.trainer)
        if checkpoints:
            run_tests(self.trainer, self.model, self.datamodule, checkpoints, self.config_init["fit"]["weights_only"])
        else:
            rank_zero_info("no checkpoint was written, and nothing tested")
        self._owner.note_end()
        for point in _resume_points(self.trainer):
            point.complete(self.trainer)
        if checkpoints and self.trainer.is_global_zero:
            print(closing_lines(self, self._seconds, checkpoints[0]))


def _resume_points(trainer: Trainer) -> list[ResumePoint]:
    return [one for one in trainer.callbacks if isinstance(one, ResumePoint)]  # type: ignore[attr-defined]


def _check_weights(model: LightningModule, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
    if not prefix and model.strict_loading:  # a prefix: of the copy that a weight-averaging callback has made
        check_weights(model, state_dict)


class _Parsed(BaseException):
    """Carries the configuration, or the parser, out of a command, before anything is built."""


class _Configuring(BottleneckCLI):
    """Read arguments, and build nothing of them."""

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """End the command with the configuration, without Lightning's warning of other arguments of the process."""
        config = parser.parse_args(args)  # type: ignore[arg-type]
        check_settings(config["fit"])
        raise _Parsed(written(self._parser("fit"), config["fit"]))


def fit_configuration(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the configuration that ``lit-bottleneck fit`` makes of its arguments, as plain collections.

    Raises:
        SystemExit: with status 2 and a message where they are wrong.
    """
    try:
        _Configuring(["fit", *arguments])
    except _Parsed as parsed:
        configuration: dict[str, Any] = load_yaml(str(parsed))
        return configuration
    raise AssertionError("unreachable")


class _Listing(BottleneckCLI):
    """Collect options, and parse nothing."""

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """End the command with the parser."""
        raise _Parsed(self._parser(self._first_word))


def command_parser(command: str) -> LightningArgumentParser:
    """Return the parser of ``fit``, ``validate``, ``test`` or ``predict``."""
    try:
        _Listing([command])
    except _Parsed as parsed:
        parser: LightningArgumentParser = parsed.args[0]
        return parser
    raise AssertionError("unreachable")
