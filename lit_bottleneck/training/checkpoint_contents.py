"""Contents of a checkpoint file that no trainer has written: damaged, hostile, or of another kind."""

import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_DEEPEST = 100  # collections within collections; also those that hold themselves are deeper
_MOST = 300_000  # collections, counted wherever they are held; a network of 10 000 parameters has 20 000
_KINDS: dict[str, type] = {
    "pytorch-lightning_version": str,
    "epoch": int,
    "global_step": int,
    "state_dict": dict,
    "hyper_parameters": dict,
    "callbacks": dict,
    "loops": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "logger_versions": list,  # of the callbacks here
    "logged": list,
}
_VERSION = re.compile(r"\d+(\.\d+)*[\w.+-]*")
_COLLECTIONS = (dict, list, tuple, set, frozenset)
_PARTS = {"optimizer_states": dict, "lr_schedulers": dict, "loops": dict}  # kinds of the parts of these


def check_archive(path: Path) -> None:
    """Check the file of a checkpoint, before it is read: a zip of stored members whose checksums are right.

    Raises:
        ValueError: for a damaged one, and for one that would unpack to more than it is long.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len({member.filename for member in members}) < len(members):
            raise ValueError("it holds two members of one name")
        is_stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        if not is_stored or sum(member.file_size for member in members) > path.stat().st_size:
            raise ValueError("it unpacks to more than its size")
        damaged = archive.testzip() if torch.serialization.get_crc32_options() else None
        if damaged is not None:
            raise ValueError(f"{damaged} is damaged (its checksum is another)")


def check_contents(checkpoint: Any) -> None:
    """Check that what was read has the form of a trainer's checkpoint.

    Raises:
        ValueError: with the key and what it holds.
    """
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError("it has no state_dict")
    _check_nesting(checkpoint)
    for key, kind in _KINDS.items():
        value = checkpoint.get(key)
        if key in checkpoint and (not isinstance(value, kind) or isinstance(value, bool)):
            raise ValueError(f"its {key} must be of the type {kind.__name__}; it is {type(value).__name__}")
        if isinstance(value, int) and not 0 <= value < 2**63:
            raise ValueError(f"its {key} must be at least 0 and below 2**63; it is {value}")
    for key, kind in _PARTS.items():
        parts = checkpoint.get(key, [])
        wrong = [part for part in (parts.values() if isinstance(parts, dict) else parts) if not isinstance(part, kind)]
        if wrong:
            raise ValueError(f"its {key} must hold the type {kind.__name__}; there is {type(wrong[0]).__name__}")
    if not _VERSION.fullmatch(checkpoint.get("pytorch-lightning_version", "0")):
        raise ValueError(f"its version is {checkpoint['pytorch-lightning_version']!r:.100}")
    _check_names(checkpoint["state_dict"])


def different_kinds(own: Mapping[str, Any], stored: Mapping[str, Any]) -> Iterator[str]:
    """Yield the weights whose values are of another kind than the model's: they would be converted, or fail later.

    Args:
        own: the model's state.
        stored: that of a checkpoint.
    """
    for name, value in stored.items():
        if name.endswith("_extra_state"):  # whose form its module settles
            continue
        if isinstance(value, Tensor) != isinstance(own.get(name, value), Tensor):
            yield f"{name} is of the type {type(value).__name__}"
        elif isinstance(value, Tensor) and name in own and _kind(value) != _kind(own[name]):
            yield f"{name} holds values of the kind {_kind(value)}, not {_kind(own[name])}"


def _check_nesting(checkpoint: dict[Any, Any]) -> None:
    waiting: list[tuple[Any, int]] = [(checkpoint, 0)]
    count = 0
    while waiting:
        one, depth = waiting.pop()
        values = one.values() if isinstance(one, dict) else one
        held = [value for value in values if isinstance(value, _COLLECTIONS)]
        count += len(held)
        if depth > _DEEPEST or count > _MOST:
            raise ValueError("its collections hold themselves, or too many others")
        waiting += [(value, depth + 1) for value in held]


def _check_names(state: dict[Any, Any]) -> None:
    for name, value in state.items():
        if not isinstance(name, str):
            raise ValueError(f"its state_dict must have names as keys; there is {name!r:.100}")
        if not isinstance(value, Tensor) and not name.endswith("_extra_state"):
            raise ValueError(f"its state_dict must hold tensors; {name} is of the type {type(value).__name__}")


def _kind(tensor: Tensor) -> str:
    """Describe what a tensor must have in common with another to be its value: neither the type's bits nor devices."""
    if tensor.is_meta or tensor.is_quantized or tensor.layout != torch.strided:
        return f"{'meta' if tensor.is_meta else 'quantized' if tensor.is_quantized else tensor.layout}"
    return "complex" if tensor.is_complex() else "floating point" if tensor.is_floating_point() else "integer"
