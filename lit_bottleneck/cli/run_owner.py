"""Who may write into a run's folder: one command at a time, and a new run only where no other has left its files."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.loggers import WandbLogger

from lit_bottleneck.callbacks import ResumePoint, run_folder
from lit_bottleneck.callbacks.run_stage import BEGUN, FILENAME, STAGE
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli.logged_rows import DAMAGED, KEPT
from lit_bottleneck.training.checkpoints import read_checkpoint
from lit_bottleneck.training.folder_owner import FolderOwner, make_folder, one_at_a_time, seconds_to_its_end

# What a run writes into its folder; whatever matches the first line makes the folder that of a run.
_OF_A_RUN = ("config.yaml", "metrics.csv", KEPT, FILENAME, f".{FILENAME}", "checkpoints/*.ckpt")
_BESIDE_IT = (
    DAMAGED,
    "hparams.yaml",
    "events.out.tfevents.*",
    "predictions*.npz",
    "pictures/*.png",
    ".part-*",
    "*/.part-*",
)
_OVERWRITTEN = ".overwritten"  # holds the files of the old run until the new one trains


class RunOwner(Callback):
    """Own the folder that a command's loggers and checkpoints write into, from before the first file to the end.

    The first process of all owns it for the others. A command that keeps nothing owns nothing.
    """

    def __init__(self) -> None:
        self._owner: FolderOwner | None = None
        self._keeps = self._begins = self._overwrites = False
        self._ended: bool | None = None  # None: as its last owner noted, since nothing has changed

    def own(self, trainer: Trainer, trains: bool = False, begins: bool = False, overwrites: bool = False) -> None:
        """Own the run's folder, if it is known already: that of a new run of wandb is not.

        Args:
            trainer: the trainer.
            trains: whether checkpoints are written too.
            begins: whether a run begins, in a folder that no other run has.
            overwrites: whether the files of another run are removed, as soon as the new one trains.

        Raises:
            ConfigurationError: if another process owns the folder, or if it holds a run's files.
        """
        keeps = is_kept(trainer) if trains else bool(trainer.loggers)
        self._keeps = keeps and trainer.is_global_zero and not trainer.fast_dev_run  # type: ignore[attr-defined]
        self._begins, self._overwrites = begins, begins and overwrites
        if not self._keeps:
            return
        loggers = [logger for logger in trainer.loggers if _is_local(getattr(logger, "root_dir", None))]
        with ExitStack() as turns:  # runs without a version look for the next number
            for root in sorted({str(logger.root_dir) for logger in loggers}):
                turns.enter_context(one_at_a_time(Path(root)))
            for folder in [logger.log_dir for logger in loggers]:  # known for all before one is made
                make_folder(Path(str(folder)))
            self._own(trainer)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Own the folder of a new run of wandb, whose name is known now."""
        if self._keeps:
            self._own(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Delete the files that are overwritten, now that nothing at the start of the training has refused it."""
        if self._ended is None:
            self._ended = False
        if self._owner is not None and self._overwrites:
            self._overwrites = False
            shutil.rmtree(self._owner.folder / _OVERWRITTEN, ignore_errors=True)

    def note_end(self) -> None:
        """Note that the run is complete; before its resume point is removed, so that one of the two tells it."""
        self._ended = True
        if self._owner is not None:
            self._owner.note(ended=True)

    @contextmanager
    def until_the_end(self) -> Iterator[None]:
        """Give the folder back after a block; restore what a training that did not begin would have overwritten."""
        try:
            yield
        finally:
            if self._owner is not None:
                _restore(self._owner.folder, instead_of_the_new=True)
                self._owner.release(self._ended)

    def _own(self, trainer: Trainer) -> None:
        logger = trainer.logger
        is_known = not isinstance(logger, WandbLogger) or logger.version is not None
        if self._owner is not None or not is_known or not _is_local(run_folder(trainer)):
            return
        folder = run_folder(trainer)
        owner = FolderOwner(folder)
        if (folder / _OF_A_RUN[0]).exists():
            shutil.rmtree(folder / _OVERWRITTEN, ignore_errors=True)  # of a training that has begun
        else:
            _restore(folder)  # if a process was killed before
        if self._overwrites or not self._begins or _is_free(found := _files(folder, _OF_A_RUN)):
            self._owner = owner
            if self._overwrites:
                _set_aside(folder)
        else:
            owner.release()
            option = "--trainer.logger.init_args.version" if logger else "--trainer.default_root_dir"
            raise ConfigurationError(_ways_out(folder, [str(path.relative_to(folder)) for path in found], option))


def is_kept(trainer: Trainer) -> bool:
    """Return whether a training leaves metrics or checkpoints."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return bool(trainer.loggers) or any(isinstance(one, (Checkpoint, ResumePoint)) for one in callbacks)


def _is_local(folder: Any) -> bool:
    return folder is not None and ":/" not in str(folder)  # a Path makes one slash of two


def _is_free(found: list[Path]) -> bool:
    """Return whether a folder holds nothing of a run, or only the mark of one that was killed as it began."""
    if [path.name for path in found] != [FILENAME]:
        return not found
    try:
        return read_checkpoint(found[0]).get(STAGE) == BEGUN
    except ConfigurationError:
        return False


def _ways_out(folder: Path, found: list[str], option: str) -> str:
    can_go_on = FILENAME in found
    has_ended = not can_go_on and seconds_to_its_end(folder) is not None
    resume = f"'lit-bottleneck resume {folder}' goes on with it, " if can_go_on else ""
    listed = ", ".join(found[:3]) + (" ..." if len(found) > 3 else "")
    return (
        f"{folder} holds the files of {'a finished' if has_ended else 'another'} run ({listed}): {resume}another "
        f"{option.rpartition('.')[2]} ({option}) keeps it, --overwrite removes it"
    )


def _files(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]


def _set_aside(folder: Path) -> None:
    for path in _files(folder, (*_OF_A_RUN, *_BESIDE_IT)):
        _move(path, folder / _OVERWRITTEN / path.relative_to(folder))


def _restore(folder: Path, instead_of_the_new: bool = False) -> None:
    aside = folder / _OVERWRITTEN
    if instead_of_the_new and aside.is_dir():
        for path in _files(folder, (*_OF_A_RUN, *_BESIDE_IT)):
            _delete(path)
    for path in reversed(_files(aside, (*_OF_A_RUN, *_BESIDE_IT))):  # config.yaml last: until then it is not whole
        _move(path, folder / path.relative_to(aside))
    shutil.rmtree(aside, ignore_errors=True)


def _move(path: Path, to: Path) -> None:
    """Move a file, or a checkpoint that is a folder; remove the folder that it leaves empty."""
    to.parent.mkdir(parents=True, exist_ok=True)
    _delete(to)
    path.replace(to)
    with suppress(OSError):
        path.parent.rmdir()


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
