"""The stage of a run before its first resume point, and once only its test is left: a mark in its place."""

from pathlib import Path
from typing import Any

from lightning import Trainer

from lit_bottleneck.callbacks.generator_states import states_of_processes
from lit_bottleneck.callbacks.last_checkpoint import chosen_checkpoints
from lit_bottleneck.callbacks.logged import LOGGED, logged
from lit_bottleneck.callbacks.run import run_folder

FILENAME = "resume.ckpt"
LOGGER_VERSIONS = "logger_versions"  # key in a checkpoint: the version (run) of each logger
STAGE = "stage"  # key of the file: how far the run has come
BEGUN, TRAINED = "begun", "trained"


def mark_begun(trainer: Trainer) -> None:
    """Note that the run begins, on the first process: until its first resume point, it is begun anew."""
    path = run_folder(trainer) / FILENAME
    if trainer.is_global_zero and not path.exists():
        _write(trainer, path, {STAGE: BEGUN})


def mark_trained(trainer: Trainer, path: Path) -> None:
    """Note, on all processes, that only the test is left, with what it and its rows depend on."""
    fit_loop = trainer.fit_loop.state_dict()
    fit_loop.pop("combined_loader", None)  # states of loaders, which may be anything
    content = {
        STAGE: TRAINED,
        "checkpoints": chosen_checkpoints(trainer),
        "global_step": trainer.global_step,
        "fit_loop": fit_loop,
        LOGGED: logged(trainer),
        "random_states": states_of_processes(trainer),
    }
    if trainer.is_global_zero:
        _write(trainer, path, content)


def _write(trainer: Trainer, path: Path, content: dict[str, Any]) -> None:
    versions = [logger.version for logger in trainer.loggers]
    checkpoint = {"state_dict": {}, LOGGER_VERSIONS: versions, **content}
    trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, path)
