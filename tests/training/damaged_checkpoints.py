"""Checkpoints that are damaged, hostile or of another kind, made of a good one."""

import copy
import os
import pickle
import sys
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Damage = Callable[[Path, Path], None]  # of a good file, to another one


def put(*keys: Any, value: Any) -> Damage:
    """Replace the value at some keys; a function gets the old one."""

    def damage(good: Path, path: Path) -> None:
        checkpoint = torch.load(good, weights_only=True)
        place = checkpoint
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value(place[keys[-1]]) if callable(value) else copy.deepcopy(value)
        _save(checkpoint, path)

    return damage


def weight(change: Callable[[Tensor], Any]) -> Damage:
    """Change the first weight."""

    def damage(good: Path, path: Path) -> None:
        checkpoint = torch.load(good, weights_only=True)
        name = next(name for name, value in checkpoint["state_dict"].items() if name.endswith("weight"))
        checkpoint["state_dict"][name] = change(checkpoint["state_dict"][name])
        _save(checkpoint, path)

    return damage


def without(key: str) -> Damage:
    def damage(good: Path, path: Path) -> None:
        checkpoint = torch.load(good, weights_only=True)
        del checkpoint[key]
        _save(checkpoint, path)

    return damage


def _save(checkpoint: Any, path: Path) -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)  # pickle's own code recurses
    try:
        torch.save(checkpoint, path)
    finally:
        sys.setrecursionlimit(limit)


def cyclic(callbacks: dict[str, Any]) -> dict[str, Any]:
    callbacks["itself"] = callbacks
    return callbacks


def deep(arguments: dict[str, Any]) -> dict[str, Any]:
    nest: list[Any] = []
    for _ in range(5000):
        nest = [nest]
    return {**arguments, "nest": nest}


def many(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return a few lists that hold one another: 10 ** 12 values where each is written out."""
    nest: list[Any] = [0] * 10
    for _ in range(11):
        nest = [nest] * 10
    return {**arguments, "nest": nest}


def cut(tenths: int) -> Damage:
    def damage(good: Path, path: Path) -> None:
        content = good.read_bytes()
        path.write_bytes(content[: len(content) * tenths // 10])

    return damage


def flipped(member: str, offset: int = 0) -> Damage:
    """Flip a bit of a member of the zip, by the end of its name."""

    def damage(good: Path, path: Path) -> None:
        content = bytearray(good.read_bytes())
        with zipfile.ZipFile(good) as archive:
            found = next(one for one in archive.infolist() if one.filename.endswith(member))
            start = content.index(archive.read(found)[:64], found.header_offset)
        content[start + offset] ^= 16
        path.write_bytes(content)

    return damage


def rezipped(
    compression: int = zipfile.ZIP_STORED, times: int = 1, pickled: bytes | None = None, bomb: int = 0
) -> Damage:
    """Write the members again: compressed, several times, with another pickle, or with zeros beside them."""

    def damage(good: Path, path: Path) -> None:
        with zipfile.ZipFile(good) as old, zipfile.ZipFile(path, "w", compression) as new, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Duplicate name")
            for member in old.infolist() * times:
                is_replaced = pickled is not None and member.filename.endswith("data.pkl")
                new.writestr(member.filename, pickled if is_replaced else old.read(member))  # type: ignore[arg-type]
            if bomb:
                new.writestr("archive/data/9999", bytes(bomb))

    return damage


class Calls:
    """Pickles to the call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def calling(function: Callable[..., Any], *arguments: Any) -> Damage:
    return rezipped(pickled=pickle.dumps({"state_dict": {}, "called": Calls(function, *arguments)}, 2))


def saved(value: Any) -> Damage:
    return lambda good, path: torch.save(value, path)


SIGN = "executed"  # a file in the working folder, written by what a hostile checkpoint asks to call

# What no trainer has written, found by reading the file alone.
UNREADABLE: dict[str, tuple[Damage, str]] = {
    **{f"cut at {tenths} tenths": (cut(tenths), "") for tenths in range(10)},
    "a flipped bit of the pickle": (flipped("data.pkl"), "data.pkl is damaged"),
    "a flipped bit of a weight": (flipped("data/0", 99), "data/0 is damaged"),
    "a flipped bit of the last tensor": (flipped("data/9"), "data/9 is damaged"),
    "a flipped bit of the version": (flipped("version"), "version is damaged"),
    "compressed members": (rezipped(zipfile.ZIP_DEFLATED), "unpacks to more than its size"),
    "a bomb": (rezipped(zipfile.ZIP_DEFLATED, bomb=10**7), "unpacks to more than its size"),
    "two members of one name": (rezipped(times=2), "two members of one name"),
    "a call of the system": (calling(os.system, f"touch {SIGN}"), "unsupported GLOBAL posix.system"),
    "a call of eval": (calling(eval, f"open('{SIGN}', 'w')"), "Unsupported global"),
    "an enormous array of bytes": (calling(bytearray, 10**15), ""),
    "an empty pickle": (rezipped(pickled=b""), ""),
    "a pickle of junk": (rezipped(pickled=bytes(range(128, 256))), ""),
    "a list": (saved([1, 2]), "no state_dict"),
    "a tensor": (saved(torch.zeros(3)), "no state_dict"),
    "weights alone": (lambda good, path: torch.save(torch.load(good, weights_only=True)["state_dict"], path), "no sta"),
    "another zip": (lambda good, path: zipfile.ZipFile(path, "w").close(), ""),
    "text": (lambda good, path: path.write_text("hello " * 100) and None, ""),
    "nothing": (lambda good, path: path.touch(), ""),
    "a folder": (lambda good, path: path.mkdir(), "is no checkpoint: it is "),
    "a pipe": (lambda good, path: os.mkfifo(path), "it is no file"),
    "a link to itself": (lambda good, path: path.symlink_to(path), "does not exist"),
    "callbacks in a list": (put("callbacks", value=[]), "its callbacks must be of the type dict; it is list"),
    "no loops but a number": (put("loops", value=3), "its loops must be of the type dict; it is int"),
    "a loop that is a number": (put("loops", "fit_loop", value=3), "its loops must hold the type dict"),
    "optimizers in a dictionary": (put("optimizer_states", value={}), "its optimizer_states must be of the type list"),
    "optimizers that are numbers": (put("optimizer_states", value=[3]), "must hold the type dict; there is int"),
    "schedulers that are none": (put("lr_schedulers", value=None), "it is NoneType"),
    "an epoch below 0": (put("epoch", value=-1), "its epoch must be at least 0"),
    "an enormous step": (put("global_step", value=10**30), "its global_step must be at least 0 and below"),
    "a step in words": (put("global_step", value="many"), "its global_step must be of the type int; it is str"),
    "arguments in a list": (put("hyper_parameters", value=[]), "its hyper_parameters must be of the type dict"),
    "a version in words": (put("pytorch-lightning_version", value="new"), "its version is 'new'"),
    "a name that is a number": (put("state_dict", value=lambda state: {**state, 3: 1}), "names as keys; there is 3"),
    "a weight that is a list": (weight(lambda value: [1.0]), "must hold tensors"),
    "collections that hold themselves": (put("callbacks", value=cyclic), "hold themselves, or too many others"),
    "deep collections": (put("hyper_parameters", value=deep), "hold themselves, or too many others"),
    "collections that hold too many others": (put("hyper_parameters", value=many), "hold themselves, or too many"),
}
# What is found where a model is built from it.
OF_ANOTHER_MODEL: dict[str, tuple[Damage, str]] = {
    "complex weights": (weight(lambda value: value.to(torch.complex64)), "of the kind complex, not floating point"),
    "integer weights": (weight(lambda value: value.int()), "of the kind integer, not floating point"),
    "weights without values": (weight(lambda value: value.to("meta")), "meta"),
    "sparse weights": (weight(lambda value: value.to_sparse()), "weight"),
    "another shape": (weight(lambda value: value[:1]), "weight"),
    "no version": (without("pytorch-lightning_version"), "KeyError: 'pytorch-lightning_version'"),
    "no weights": (put("state_dict", value={}), "weight"),
}
# What is found where a training is continued from it.
OF_NO_TRAINING: dict[str, tuple[Damage, str]] = {
    "a counter below 0": (put("loops", "fit_loop", "epoch_progress", "current", "completed", value=-3), "is -3"),
    "a counter that is none": (put("loops", "fit_loop", "epoch_progress", "total", "ready", value=None), "is None"),
    "a learning rate in words": (put("optimizer_states", 0, "param_groups", 0, "lr", value="x"), "lr is 'x'"),
    "no learning rate": (put("optimizer_states", 0, "param_groups", 0, "lr", value=None), "lr is None"),
    "moments of another shape": (put("optimizer_states", 0, "state", 0, "exp_avg", value=torch.ones(3)), "shape (3,)"),
    "a state that is a number": (put("optimizer_states", 0, "state", 0, value=3), "cannot be restored"),
    "no state": (put("optimizer_states", value=[{}]), "cannot be restored"),
    "random states that are a number": (put("random_states", value=[3]), "cannot be restored"),
}


def all_kinds(*tables: dict[str, tuple[Damage, str]]) -> Sequence[str]:
    return [kind for table in tables for kind in table]
