"""Small runs of the command line that are cut at a given moment, and all that they leave."""

import os
import signal
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, Timer

from lit_bottleneck.cli import main

RUN = Path("runs", "cut", "version_0")
_FUSE = Path("fuse")  # in the folder in which the command is called


class Cut(Callback):
    """End the process (or, with an error, the command) at a hook, once.

    Args:
        hook: the name of the hook.
        epoch: the epoch.
        batch: the batch, for a hook of batches.
        is_kill: whether the process kills itself.
    """

    def __init__(self, hook: str, epoch: int, batch: int | None = None, is_kill: bool = False) -> None:
        self.epoch, self.batch, self.is_kill = epoch, batch, is_kill
        setattr(self, hook, self._cut)

    def _cut(self, trainer: Trainer, *args: Any) -> None:
        is_now = trainer.current_epoch == self.epoch and self.batch in (None, args[-1]) and not trainer.sanity_checking
        if is_now and _FUSE.exists():
            _FUSE.unlink()
            self.end(trainer)

    def end(self, trainer: Trainer) -> None:
        """End the process or the command."""
        if self.is_kill:
            os.kill(os.getpid(), signal.SIGKILL)
        raise InterruptedError("cut")


class CutBetween(Cut, Checkpoint):
    """Cut between the two ``ModelCheckpoint`` callbacks that it stands between."""


class Expire(Cut):
    """Let the time limit be over at a hook, once."""

    def end(self, trainer: Trainer) -> None:
        """Set the clock of the timer forward."""
        [timer] = [one for one in trainer.callbacks if isinstance(one, Timer)]  # type: ignore[attr-defined]
        timer.load_state_dict({"time_elapsed": {"train": 86400.0}})


def callback(name: str, **arguments: Any) -> dict[str, Any]:
    """Return a callback's configuration, by its name in Lightning or its class path."""
    path = name if "." in name else f"lightning.pytorch.callbacks.{name}"
    return {"class_path": path, "init_args": arguments}


def cut(hook: str, epoch: int, batch: int | None = None, **arguments: Any) -> dict[str, Any]:
    """Return the configuration of a ``Cut``."""
    return callback("tests.cli.resume.cut_runs.Cut", hook=hook, epoch=epoch, batch=batch, **arguments)


def recipe(folder: Path, callbacks: list[dict[str, Any]], every_n_steps: int = 3, **trainer: Any) -> list[str]:
    """Write a recipe of six batches an epoch; return the arguments of ``fit``."""
    loggers = [
        {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "runs", "name": name}}
        for name in ("cut", "second")
    ]
    point = callback("lit_bottleneck.callbacks.ResumePoint", every_n_steps=every_n_steps)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1, "accelerator": "cpu"}
    encoder = {"in_features": 64, "hidden": [8], "out_features": 8}
    configuration = {
        "seed_everything": 0,
        "trainer": {
            **{"max_epochs": 4, "limit_train_batches": 6, "limit_val_batches": 2, "logger": loggers},
            **{"callbacks": [*callbacks, point], **quiet, **trainer},
        },
        "model": {
            "class_path": "lit_bottleneck.VIBClassifier",
            "init_args": {
                "encoder": {"class_path": "lit_bottleneck.networks.MLP", "init_args": encoder},
                **{"latent_dim": 4, "num_classes": 10},
                "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.05}},
            },
        },
        "data": {"class_path": "lit_bottleneck.data.Digits", "init_args": {"batch_size": 32}},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(configuration))
    return ["fit", "--config", "recipe.yaml"]


def light_fuse() -> None:
    """Let the next run be cut."""
    _FUSE.touch()


def resume(*options: str) -> None:
    """Continue the run in this process."""
    main(["resume", str(RUN), *options])


def left(folder: Path) -> dict[str, Any]:
    """Return all that a run left: rows and checkpoints by path, links by their target."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.suffix == ".ckpt":
            found[name] = torch.load(path, weights_only=True)
            found[name].get("callbacks", {}).pop("Timer", None)  # a clock
        elif path.is_file():
            found[name] = path.read_text() if path.suffix == ".csv" else None
    return found
