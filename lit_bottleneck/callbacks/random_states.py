"""What an exact resume needs beside Lightning's checkpoint: random states and the place in the data."""

import random
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning_utilities.core.rank_zero import rank_zero_warn

_KEY = "random_states"
UNDER_WAY = "under_way"  # key in a checkpoint
States = dict[str, Any]


class RandomStates(Callback):
    """Have a resumed training draw and read what the uninterrupted one would have drawn and read.

    Every checkpoint then holds, for each process, the states of its random generators (torch on the CPU and on the
    process's device, numpy, Python, and those that the training loader or its sampler was given), now and at the start
    of the epoch. On resume the epoch's batches are made again from the states of its start, those that were trained on
    are dropped, and the states of the checkpoint are set: the order of the data, what loader processes draw and the
    noise of the model go on as if nothing had happened, whatever the loader is. (One that has a ``state_dict`` of its
    own goes on by that.) What is not known: what loader processes draw that live on from one epoch to the next
    (``persistent_workers=True``), gradients that are being accumulated, that a validation is due, examples that
    `SampleQuality` keeps, that an epoch's end will move a ``ReduceLROnPlateau``, and the rest of an epoch that a time
    limit has ended: a checkpoint of such a moment is marked, and ``lit-bottleneck resume`` goes back to that of
    `ResumePoint`.

    Processes that were seeded alike are also made to draw different noise.
    """

    def __init__(self) -> None:
        self._epoch_start: States = {}
        self._loaded: dict[str, States] | None = None
        self._step_before = 0

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the states of every process, by rank, and whether something is under way."""
        batches = trainer.fit_loop.epoch_loop.batch_progress.current
        is_batch_end = batches.processed > batches.completed  # type: ignore[attr-defined]
        has_plateau = any(config.reduce_on_plateau for config in trainer.lr_scheduler_configs)  # moves at the very end
        # a validation within accumulated gradients; one, or an epoch's end, that is there because training is ended
        is_within = not trainer.is_last_batch and (trainer.global_step == self._step_before or trainer.should_stop)
        checkpoint[UNDER_WAY] = is_under_way(trainer, self._step_before) if is_batch_end else has_plateau or is_within
        states = {"now": _states(trainer), "epoch_start": self._epoch_start}
        checkpoint[_KEY] = _of_all_processes(trainer, states)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take over the states of this process, of which use is made when training starts."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        of_ranks = checkpoint.get(_KEY)
        if of_ranks is not None and len(of_ranks) != trainer.world_size:
            rank_zero_warn(
                f"the checkpoint was written by {len(of_ranks)} processes, and there are {trainer.world_size} now: "
                "the training goes on with other noise and another order of the data"
            )
            of_ranks = None
        self._loaded = None if of_ranks is None else of_ranks[trainer.global_rank]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before the loader is made, and the iterator of the first epoch."""
        if self._loaded is not None:
            warnings.filterwarnings("ignore", message=".*your dataloader is not resumable")
            _set_states(trainer, self._loaded["epoch_start"])
        self._epoch_start = _states(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on where the checkpoint was written."""
        if self._loaded is None:
            if trainer.global_rank > 0:
                seeds = np.random.SeedSequence((torch.initial_seed(), trainer.global_rank, trainer.global_step))
                torch.manual_seed(int(seeds.generate_state(1)[0]))
            return
        loaded, self._loaded = self._loaded, None
        fetcher = _fetcher(trainer)
        progress = trainer.fit_loop.epoch_loop.batch_progress
        trained_on = 0 if progress.is_last_batch else progress.current.processed  # type: ignore[attr-defined]
        if trained_on and not all(map(_has_state, fetcher.combined_loader.flattened)):
            if trainer.current_epoch > 0:
                for part in _parts_of_loaders(trainer):
                    if hasattr(part, "set_epoch"):  # a distributed sampler, which Lightning tells only later
                        part.set_epoch(trainer.current_epoch)
                _set_states(trainer, loaded["epoch_start"])
                iter(fetcher)
            for _ in range(trained_on):
                next(fetcher)
            fetcher.fetched = 0  # Lightning adds those before the restart
        self._epoch_start = loaded["epoch_start"]
        _set_states(trainer, loaded["now"])

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note whether the batch ends a step."""
        self._step_before = trainer.global_step

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the states that the epoch's iterator is made from."""
        if trainer.current_epoch > 0:
            self._epoch_start = _states(trainer)
            if trainer.fit_loop.is_resuming:  # Lightning would use the iterator that it made before the states were set
                iter(_fetcher(trainer))


def is_under_way(trainer: Trainer, step_before: int) -> bool:
    """Whether, at the end of a batch, something is under way that a checkpoint does not hold.

    Args:
        trainer: the batch's.
        step_before: its ``global_step`` at the start of the batch.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return (
        trainer.global_step == step_before
        or trainer.is_last_batch
        or trainer.fit_loop.epoch_loop._should_check_val_fx(_fetcher(trainer))
        or any(callback.is_under_way(trainer) for callback in callbacks if hasattr(callback, "is_under_way"))
    )


def _fetcher(trainer: Trainer) -> Any:
    return trainer.fit_loop._data_fetcher


def _has_state(loader: Any) -> bool:
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


def _parts_of_loaders(trainer: Trainer) -> Iterator[Any]:
    """The training loaders and their samplers."""
    fetcher = _fetcher(trainer)
    for loader in [] if fetcher is None else fetcher.combined_loader.flattened:
        batches = getattr(loader, "batch_sampler", None)
        yield from (loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None))


def _generators(trainer: Trainer) -> list[torch.Generator]:
    """Those that the training loaders and their samplers were given."""
    found = (getattr(part, "generator", None) for part in _parts_of_loaders(trainer))
    return list({id(one): one for one in found if isinstance(one, torch.Generator)}.values())


def _states(trainer: Trainer) -> States:
    """The states of this process's generators, as tensors and plain values."""
    numpy = np.random.get_state(legacy=False)
    device = trainer.strategy.root_device
    return {
        "torch": torch.get_rng_state(),
        "device": None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(),
        "numpy": {
            **numpy,
            "state": {**numpy["state"], "key": torch.from_numpy(numpy["state"]["key"].astype(np.int64))},
        },
        "python": random.getstate(),
        "loaders": [generator.get_state() for generator in _generators(trainer)],
    }


def _set_states(trainer: Trainer, states: States) -> None:
    torch.set_rng_state(states["torch"].cpu())
    if states["device"] is not None:
        torch.get_device_module(trainer.strategy.root_device).set_rng_state(states["device"].cpu())
    numpy = states["numpy"]
    np.random.set_state({**numpy, "state": {**numpy["state"], "key": numpy["state"]["key"].cpu().numpy()}})
    random.setstate(states["python"])
    for generator, state in zip(_generators(trainer), states["loaders"], strict=False):  # none before there is a loader
        generator.set_state(state.cpu())


def _of_all_processes(trainer: Trainer, states: States) -> list[States]:
    if trainer.world_size == 1:
        return [states]
    gathered: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(gathered, states)
    return gathered
