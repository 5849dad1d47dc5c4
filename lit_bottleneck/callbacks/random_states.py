"""Random states and the position in the data, which Lightning's checkpoints do not hold.

Private attributes of Lightning are used where it has no public access: its data fetcher (the iterator over the training
batches), and whether it validates after a batch or resumes.
"""

import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning_utilities.core.rank_zero import rank_zero_warn

_KEY = "random_states"
UNDER_WAY = "under_way"  # key in a checkpoint: whether it lacks something that an exact resume needs
States = dict[str, Any]


class RandomStates(Callback):
    """Restore random states and the position in the data, so that a resumed run is bit-identical.

    Every checkpoint holds, for each process, the states of its random generators (torch on the CPU and on the process's
    device, numpy, Python, and the generators of the training loader and its sampler), both now and at the start of the
    epoch. On resume the epoch's batches are drawn again from the states at its start, those that were trained on are
    dropped, and the states of the checkpoint are set: order of the data, random numbers of loader workers and noise of
    the model continue, whatever the loader is. (A loader with a ``state_dict`` of its own continues by that.)

    Not restored: random numbers of loader workers that live longer than an epoch (``persistent_workers=True``). Not in
    a checkpoint either: accumulated gradients, a validation or a ``ReduceLROnPlateau`` step that is due, what a
    callback with ``is_under_way(trainer)`` says it holds (``SampleQuality``), and the rest of an epoch that a time
    limit ended. A checkpoint written at such a moment is marked, and ``lit-bottleneck resume`` goes back to that of
    ``ResumePoint``.

    Processes with the same seed also draw different noise with this callback.
    """

    def __init__(self) -> None:
        self._epoch_start: States = {}
        self._loaded: dict[str, States] | None = None
        self._step_before = 0

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the random states of every process, by rank, and whether something is under way."""
        batches = trainer.fit_loop.epoch_loop.batch_progress.current
        is_batch_end = batches.processed > batches.completed  # type: ignore[attr-defined]
        has_plateau = any(config.reduce_on_plateau for config in trainer.lr_scheduler_configs)  # moves at the very end
        # validation while gradients accumulate; validation, or the end of an epoch, because training was stopped
        is_within = not trainer.is_last_batch and (trainer.global_step == self._step_before or trainer.should_stop)
        checkpoint[UNDER_WAY] = is_under_way(trainer, self._step_before) if is_batch_end else has_plateau or is_within
        states = {"now": _states(trainer), "epoch_start": self._epoch_start}
        checkpoint[_KEY] = [states] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(checkpoint[_KEY], states)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier training."""
        self._epoch_start, self._loaded = {}, None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Read the states of this process; they are set when training starts.

        Nothing is read of the checkpoint to which a finder of learning rate or batch size goes back as training starts.
        """
        is_of_a_finder = Path(str(trainer.ckpt_path)).name.startswith((".lr_find_", ".scale_batch_size_"))
        if trainer.state.fn != TrainerFn.FITTING or is_of_a_finder:
            return
        of_ranks = checkpoint.get(_KEY, [])
        self._loaded = of_ranks[trainer.global_rank] if len(of_ranks) == trainer.world_size else None
        if of_ranks and self._loaded is None:
            other = f"was written by {len(of_ranks)} processes, and there are {trainer.world_size} now"
            rank_zero_warn(f"the checkpoint {other}: noise and order of the data are not continued")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the states from which the loader and the iterator of the first epoch are made."""
        if self._loaded is not None:
            warnings.filterwarnings("ignore", message=".*your dataloader is not resumable")
            _set_states(trainer, self._loaded["epoch_start"])
        self._epoch_start = _states(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continue from the position of the checkpoint; without one, let processes draw different noise."""
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
                    if hasattr(part, "set_epoch"):  # a distributed sampler: Lightning sets its epoch later
                        part.set_epoch(trainer.current_epoch)
                _set_states(trainer, loaded["epoch_start"])
                iter(fetcher)
            for _ in range(trained_on):
                next(fetcher)
            fetcher.fetched = 0  # Lightning adds the batches before the restart
        self._epoch_start = loaded["epoch_start"]
        _set_states(trainer, loaded["now"])

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Remember the step before the batch, to see whether the batch completes one."""
        self._step_before = trainer.global_step

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the states from which the epoch's iterator is made."""
        if trainer.current_epoch > 0:
            self._epoch_start = _states(trainer)
            if trainer.fit_loop.is_resuming:  # else Lightning uses the iterator it made before the states were set
                iter(_fetcher(trainer))


def is_under_way(trainer: Trainer, step_before: int) -> bool:
    """Whether, at the end of a batch, a checkpoint would lack something that an exact resume needs.

    A callback that holds such a thing has a method ``is_under_way(trainer) -> bool``.

    Args:
        trainer: the trainer.
        step_before: its ``global_step`` at the start of the batch.
    """
    holds = [one for one in trainer.callbacks if hasattr(one, "is_under_way")]  # type: ignore[attr-defined]
    return (
        trainer.global_step == step_before
        or trainer.is_last_batch
        or trainer.fit_loop.epoch_loop._should_check_val_fx(_fetcher(trainer))
        or any(callback.is_under_way(trainer) for callback in holds)
    )


def _fetcher(trainer: Trainer) -> Any:
    return trainer.fit_loop._data_fetcher


def _has_state(loader: Any) -> bool:
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


def _parts_of_loaders(trainer: Trainer) -> Iterator[Any]:
    """Yield the training loaders and their samplers."""
    fetcher = _fetcher(trainer)
    for loader in [] if fetcher is None else fetcher.combined_loader.flattened:
        batches = getattr(loader, "batch_sampler", None)
        yield from (loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None))


def _generators(trainer: Trainer) -> list[torch.Generator]:
    """Return the generators of the training loaders and their samplers."""
    found = (getattr(part, "generator", None) for part in _parts_of_loaders(trainer))
    return list(dict.fromkeys(one for one in found if isinstance(one, torch.Generator)))


def _states(trainer: Trainer) -> States:
    """Return the states of this process's generators, as tensors and plain values."""
    numpy: Any = np.random.get_state(legacy=False)
    numpy["state"]["key"] = numpy["state"]["key"].tolist()
    device = trainer.strategy.root_device
    return {
        "torch": torch.get_rng_state(),
        "device": None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(),
        "numpy": numpy,
        "python": random.getstate(),
        "loaders": [generator.get_state() for generator in _generators(trainer)],
    }


def _set_states(trainer: Trainer, states: States) -> None:
    torch.set_rng_state(states["torch"].cpu())
    if states["device"] is not None:
        torch.get_device_module(trainer.strategy.root_device).set_rng_state(states["device"].cpu())
    np.random.set_state(states["numpy"])
    random.setstate(states["python"])
    for generator, state in zip(_generators(trainer), states["loaders"], strict=False):  # no loaders yet
        generator.set_state(state.cpu())
