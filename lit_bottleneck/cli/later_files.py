"""Files that a stopped run wrote after its resume point, and that belong to a future that will be run again."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_utilities.core.rank_zero import rank_zero_info

from lit_bottleneck.callbacks import run_folder
from lit_bottleneck.callbacks.run_stage import LOGGER_VERSIONS
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.training.checkpoints import read_checkpoint

_SUFFIX = ModelCheckpoint.FILE_EXTENSION


def remove_later_files(trainer: Trainer, start: Path) -> None:
    """Remove the checkpoints that a run wrote after the one from which it continues, and the files it left partial.

    Else the best of the run would become ``best-v1.ckpt``, beside a ``best.ckpt`` of a future that never was. A
    checkpoint is removed if this run's ``ModelCheckpoint`` wrote it, as it says itself, later than that from which the
    run continues, which does not name it.

    Args:
        trainer: a trainer that has not begun.
        start: the checkpoint from which the run continues, or what stands for it if the run begins anew.
    """
    if not trainer.is_global_zero:
        return
    first = read_checkpoint(start)
    named = {name for state in first.get("callbacks", {}).values() for name in _named(state)}
    writers = [one for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint)]
    folders = {Path(one.dirpath or run_folder(trainer) / "checkpoints") for one in writers}
    folders.add(run_folder(trainer) / "checkpoints")
    removed = []
    for folder in sorted(folders):
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            is_later = path.is_file() and not path.is_symlink() and path.stat().st_mtime >= start.stat().st_mtime
            if is_later and _identity(path) not in named and _wrote(path, first, writers):
                path.unlink()
                removed.append(path)
        for link in folder.glob(f"{ModelCheckpoint.CHECKPOINT_NAME_LAST}*{_SUFFIX}"):  # of save_last="link"
            if link.is_symlink() and not link.exists() and _identity(link) not in named:
                link.unlink()
    for folder in (run_folder(trainer), *folders):
        _remove_partial_files(folder)
    if removed:
        again = "removed, since the run goes back to before they were written (and will write them again)"
        rank_zero_info(f"{again}: {', '.join(map(str, removed))}")


def _wrote(path: Path, first: dict[str, Any], writers: list[ModelCheckpoint]) -> bool:
    """Whether this run's ``ModelCheckpoint`` wrote a file, after it wrote the ``first``."""
    try:
        checkpoint = read_checkpoint(path)
    except ConfigurationError:
        return False
    if _progress(checkpoint) <= _progress(first):
        return False
    if "callbacks" not in checkpoint:  # of weights alone; it names nothing
        return any(one.save_weights_only and _may_write(one, path.stem) for one in writers)
    is_of_run = checkpoint.get(LOGGER_VERSIONS) == first.get(LOGGER_VERSIONS)
    return is_of_run and any(_identity(path) in _named(state) for state in checkpoint["callbacks"].values())


def _progress(checkpoint: dict[str, Any]) -> tuple[int, ...]:
    """Return how far training had come: in steps, and within one in batches and epochs that are complete."""
    loop = checkpoint.get("loops", {}).get("fit_loop")
    if loop is None:
        return (-1,)
    done = [loop[name]["total"]["completed"] for name in ("epoch_loop.batch_progress", "epoch_progress")]
    return (checkpoint["global_step"], *done)


def _named(state: Any) -> set[str]:
    """Return the files that the state of a ``ModelCheckpoint`` names; none for that of another callback."""
    if not isinstance(state, dict) or "best_model_path" not in state:
        return set()
    names = {state["best_model_path"], state.get("last_model_path", ""), *state.get("best_k_models", {})}
    return {_identity(Path(name)) for name in names if name}


def _identity(path: Path) -> str:
    """Return the absolute path of a file; if it is a link, that of the link."""
    return str(path.parent.resolve() / path.name)


def _may_write(writer: ModelCheckpoint, stem: str) -> bool:
    """Whether a ``ModelCheckpoint`` may give a file this name."""
    join = ModelCheckpoint.CHECKPOINT_JOIN_CHAR
    template = writer.filename or f"{{epoch}}{join}{{step}}"
    pattern = ".+".join(map(re.escape, re.split(r"\{[^}]*\}", template)))
    return re.fullmatch(rf"({pattern}|{writer.CHECKPOINT_NAME_LAST})({join}v\d+)?", stem) is not None


def _partial_files(folder: Path) -> Iterator[Path]:
    yield from folder.glob(".part-*")  # folders of ``whole_file``
    yield from folder.glob(f".*{_SUFFIX}.part")
    yield from folder.glob(f".resume{_SUFFIX}")


def _remove_partial_files(folder: Path) -> None:
    for path in _partial_files(folder):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
