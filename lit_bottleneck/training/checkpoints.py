"""Checkpoints: written whole or not at all, read with what is wrong with them, and loaded as a model."""

import errno
import re
import zipfile
from argparse import ArgumentError
from pathlib import Path
from typing import Any, cast

import torch
from lightning import LightningModule
from lightning.fabric.plugins import TorchCheckpointIO

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.training.checkpoint_contents import check_archive, check_contents, different_kinds
from lit_bottleneck.training.whole_file import whole_file

_OF_TORCH = re.compile(r"(?:WeightsUnpickler error:\s*|(?=Trying to load unsupported GLOBAL))(.+)")


class WholeCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its final path, flush it to the disk, and rename it.

    Lightning writes to the folder for temporary files and copies from there if that is another file system: a process
    that is killed, or a full disk, then leaves half a checkpoint in the place of the last whole one. Pass it as
    ``Trainer(plugins=[WholeCheckpointIO()])``; the command line does so by itself.

    Attributes:
        restored_from: the checkpoint that was read last; to be set to None by what restores it, at its end.
    """

    restored_from: str | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; the previous file stays until the new one is complete.

        Raises:
            OSError: if it cannot be written, with the path.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        try:
            with whole_file(path) as file, file.open("wb") as stream:
                torch.save(checkpoint, stream)
        except OSError as error:
            kept = "; the previous one is complete" if Path(path).is_file() else ""
            raise OSError(
                error.errno, f"the checkpoint could not be written{kept}: {error.strerror}", str(path)
            ) from error

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        """Read a checkpoint; one that is damaged is refused.

        Raises:
            ConfigurationError: see ``read_checkpoint``.
        """
        if map_location is not None or "://" in str(path):
            return super().load_checkpoint(path, map_location, weights_only)
        weights_only = weights_only or False  # as Lightning has it
        checkpoint = read_checkpoint(path, weights_only, mapped=False)
        self.restored_from = str(path)
        return checkpoint


def read_checkpoint(path: str | Path, weights_only: bool = True, mapped: bool = True) -> dict[str, Any]:
    """Read a checkpoint, and check that it is complete, undamaged, and a trainer's. All that reads one does so here.

    Args:
        path: the file.
        weights_only: whether it may hold tensors and plain values only.
        mapped: whether tensors are mapped into memory, and read on first use.

    Raises:
        ConfigurationError: if there is no such file, or it is no complete checkpoint of a trainer.
    """
    path = Path(path)
    if not path.is_file():
        reason = "it is no file" if path.exists() else "it does not exist"
        raise ConfigurationError(f"{path} is no checkpoint: {reason}")
    try:
        is_zip = zipfile.is_zipfile(path)
        if is_zip:
            check_archive(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=weights_only, mmap=mapped and is_zip)
    except OSError as error:
        if error.errno != errno.EINVAL:  # which torch raises where it looks before the start of a short file
            raise  # of the machine
        raise ConfigurationError(f"{path} is no complete checkpoint: it is cut short") from error
    except Exception as error:  # torch's unpickler may raise anything at bytes that are no checkpoint
        reason = _reason(error)
        raise ConfigurationError(f"{path} is no complete checkpoint of tensors and plain values: {reason}") from error
    try:
        check_contents(checkpoint)
    except ValueError as error:
        raise ConfigurationError(f"{path} is no checkpoint of a trainer: {error}") from error
    return cast(dict[str, Any], checkpoint)


def _reason(error: Exception) -> str:
    """Return the line that matters of torch's many, or a line of our own checks."""
    found = _OF_TORCH.search(str(error))
    if found is None and not isinstance(error, (ValueError, zipfile.BadZipFile)):
        return type(error).__name__
    return (found[1] if found else str(error)).strip().partition("\n")[0]


def check_checkpoint(ckpt_path: str, weights_only: bool) -> dict[str, Any] | None:
    """Read a checkpoint before anything is built; names, addresses and folders are left to Lightning.

    Raises:
        ConfigurationError: see ``read_checkpoint``.
    """
    named = ckpt_path in ("best", "last", "hpc") or ckpt_path.startswith("registry") or "://" in ckpt_path
    return None if named or Path(ckpt_path).is_dir() else read_checkpoint(ckpt_path, weights_only)


def load_model(path: str | Path) -> LightningModule:
    """Load the model of a checkpoint that ``lit-bottleneck fit`` (or any LightningCLI) wrote, onto the CPU.

    Such a checkpoint says how the model is built, so that nothing else is needed.

    Raises:
        ConfigurationError: see ``read_checkpoint``; also for a checkpoint that was written from Python, and for one
            whose arguments or weights do not fit together.
    """
    checkpoint = read_checkpoint(path)
    if "_class_path" not in checkpoint.get("hyper_parameters", {}):
        advice = (
            "load it in Python, such as VAE.load_from_checkpoint(path, weights_only=True, encoder=..., decoder=...)"
        )
        raise ConfigurationError(f"{path} does not say how its model is built, as those of the command do: {advice}")
    try:
        model = LightningModule.load_from_checkpoint(path, map_location="cpu", weights_only=True)
        wrong = list(different_kinds(model.state_dict(), checkpoint["state_dict"]))
    except (ImportError, ValueError, ArgumentError, OSError):
        raise  # these say which argument it is
    except Exception as error:  # of a constructor, at arguments that nobody has checked, or of weights that do not fit
        raise ConfigurationError(f"{path} does not load: {type(error).__name__}: {error}") from error
    if wrong:
        raise ConfigurationError(f"{path} holds the weights of another model: {'; '.join(wrong)}")
    return model
