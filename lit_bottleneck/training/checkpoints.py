"""Checkpoints: written whole or not at all, read with what is wrong with them, and loaded as a model."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from lightning.fabric.plugins import TorchCheckpointIO

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.training.whole_file import whole_file


class WholeCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its final path, flush it to the disk, and rename it.

    Lightning writes to the folder for temporary files and copies from there if that is another file system: a process
    that is killed, or a full disk, then leaves half a checkpoint in the place of the last whole one. Pass it as
    ``Trainer(plugins=[WholeCheckpointIO()])``; the command line does so by itself.
    """

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


def read_checkpoint(path: str | Path, weights_only: bool = True) -> dict[str, Any]:
    """Read a checkpoint; tensors are mapped into memory and read on first use.

    Args:
        path: the file.
        weights_only: whether it may hold tensors and plain values only.

    Raises:
        ConfigurationError: if there is no such file, or it is no complete checkpoint of a trainer.
    """
    path = Path(path)
    if not path.is_file():
        reason = "it is no file" if path.exists() else "it does not exist"
        raise ConfigurationError(f"{path} is no checkpoint: {reason}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=weights_only, mmap=zipfile.is_zipfile(path))
    except (OSError, MemoryError):
        raise  # of the machine
    except Exception as error:  # torch's unpickler may raise anything at bytes that are no checkpoint
        known = str(error).partition("WeightsUnpickler error:")[2].strip()
        reason = known.splitlines()[0] if known else type(error).__name__
        raise ConfigurationError(f"{path} is no complete checkpoint of tensors and plain values: {reason}") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise ConfigurationError(f"{path} is no checkpoint of a trainer: it has no state_dict")
    return checkpoint


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
        ConfigurationError: see ``read_checkpoint``; also for a checkpoint that was written from Python.
    """
    hyperparameters = read_checkpoint(path).get("hyper_parameters", {})
    if "_class_path" not in hyperparameters:
        advice = (
            "load it in Python, such as VAE.load_from_checkpoint(path, weights_only=True, encoder=..., decoder=...)"
        )
        raise ConfigurationError(f"{path} does not say how its model is built, as those of the command do: {advice}")
    return LightningModule.load_from_checkpoint(path, map_location="cpu", weights_only=True)
