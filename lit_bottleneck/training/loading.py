"""A checkpoint that a command is given: read, or refused with what is wrong with it."""

import zipfile
from pathlib import Path
from typing import Any

import torch


def read_checkpoint(path: str | Path, weights_only: bool = True) -> dict[str, Any]:
    """Read a checkpoint; the numbers of its tensors only when they are looked at.

    Args:
        path: of the file.
        weights_only: whether it may hold tensors and plain values only.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is no checkpoint of a trainer, or not the whole of one.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is no checkpoint: {'it is a folder' if path.is_dir() else 'it does not exist'}"
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=weights_only, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch's unpickler may raise anything at bytes that are no checkpoint
        told = str(error).rpartition("WeightsUnpickler error:")[2].strip() or type(error).__name__
        raise ValueError(
            f"{path} is no checkpoint of tensors and plain values, or not the whole of one: {told.splitlines()[0]}"
        ) from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise ValueError(f"{path} is no checkpoint of a trainer: it has no state_dict")
    return checkpoint


def check_checkpoint(ckpt_path: str, weights_only: bool) -> dict[str, Any] | None:
    """Read a checkpoint before anything is built; names, addresses and folders are left to Lightning.

    Raises:
        FileNotFoundError: see ``read_checkpoint``.
        ValueError: see ``read_checkpoint``.
    """
    named = ckpt_path in ("best", "last", "hpc") or ckpt_path.startswith("registry") or "://" in ckpt_path
    return None if named or Path(ckpt_path).is_dir() else read_checkpoint(ckpt_path, weights_only)
