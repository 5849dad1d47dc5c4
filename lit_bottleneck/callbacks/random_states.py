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
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.trainer.states import TrainerFn
from lightning_utilities.core.rank_zero import rank_zero_warn

from lit_bottleneck.callbacks.epoch_so_far import add_logged, follow, set_metrics, so_far
from lit_bottleneck.callbacks.repeated_hooks import RepeatedHooks, after_hooks, unfreeze
from lit_bottleneck.callbacks.restarted_loops import (
    as_between_epochs,
    begin_epoch_again,
    continues_epoch,
    end_restart,
)
from lit_bottleneck.callbacks.saved_checkpoints import remember, remembered
from lit_bottleneck.callbacks.time_limit import TimeLimit

_KEY, _SAVED = "random_states", "saved_checkpoints"
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
        self._time_limit = TimeLimit()
        self._logged_earlier: States = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the random states of every process, by rank, and whether something is under way."""
        batches = trainer.fit_loop.epoch_loop.batch_progress.current
        is_batch_end = batches.processed > batches.completed  # type: ignore[attr-defined]
        epochs: Any = trainer.fit_loop.epoch_progress.current
        is_epoch_end = epochs.processed > epochs.completed
        has_plateau = any(config.reduce_on_plateau for config in trainer.lr_scheduler_configs)  # moves at the very end
        # validation while gradients accumulate; validation, or the end of an epoch, because training was stopped
        is_within = not trainer.is_last_batch and (trainer.global_step == self._step_before or trainer.should_stop)
        lacks_step = is_under_way(trainer, self._step_before) if is_batch_end else is_within
        checkpoint[UNDER_WAY] = lacks_step or (is_epoch_end and has_plateau)
        states = {"now": _states(trainer), "epoch_start": self._epoch_start}
        states["so_far"] = so_far(trainer, pl_module, is_within=is_batch_end)
        checkpoint[_KEY] = [states] * trainer.world_size
        checkpoint[_SAVED] = remembered(trainer)
        as_between_epochs(checkpoint["loops"]["fit_loop"])
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(checkpoint[_KEY], states)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier training; move this callback to the front, behind timers: it sees all that others draw."""
        self._epoch_start, self._loaded, self._logged_earlier = {}, None, {}
        trainer_: Any = trainer  # its type does not declare callbacks
        trainer_.callbacks = sorted(trainer_.callbacks, key=lambda one: (not isinstance(one, Timer), one is not self))

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Read the states of this process; they are set when training starts.

        Nothing is read of the checkpoint to which a finder of learning rate or batch size goes back as training starts.
        """
        is_of_a_finder = Path(str(trainer.ckpt_path)).name.startswith((".lr_find_", ".scale_batch_size_"))
        if trainer.state.fn != TrainerFn.FITTING or is_of_a_finder:
            return
        remember(trainer, checkpoint.get(_SAVED, {}))
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
        """Let processes draw different noise; between two epochs, continue from the states of the checkpoint."""
        if trainer.global_rank > 0 and (self._loaded is None or trainer.current_epoch == 0):
            step = trainer.global_step if self._loaded is None else 0
            seeds = np.random.SeedSequence((torch.initial_seed(), trainer.global_rank, step))
            torch.manual_seed(int(seeds.generate_state(1)[0]))
        if self._loaded is None:
            return
        follow(trainer, self._loaded.get("so_far", {}))
        unfreeze(trainer)
        self._continues = continues_epoch(trainer)
        begin_epoch_again(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the states from which the epoch's iterator is made, or continue an epoch from a checkpoint."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if hasattr(callback, "on_epoch_boundary"):  # a ``ResumePoint``, before any callback begins the epoch
                callback.on_epoch_boundary(trainer)
        loaded, self._loaded = self._loaded, None
        if loaded is not None and self._continues:
            self._continue_epoch(trainer, pl_module, loaded)
            return
        if loaded is not None:
            _set_states(trainer, loaded["now"])
        if trainer.current_epoch > 0:
            self._epoch_start = _states(trainer)
            if trainer.fit_loop.is_resuming:  # else Lightning uses the iterator it made before the states were set
                iter(_fetcher(trainer))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Remember the step before the batch, to see whether the batch completes one."""
        self._step_before = trainer.global_step
        add_logged(trainer, self._logged_earlier)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Do not validate in an epoch that a time limit cuts."""
        self._time_limit.after_batch(trainer)
        add_logged(trainer, self._logged_earlier)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End an epoch that a time limit cut without the hooks that follow."""
        self._time_limit.after_epoch(trainer)
        self._logged_earlier = {}

    def _continue_epoch(self, trainer: Trainer, pl_module: LightningModule, loaded: States) -> None:
        """Go through the epoch's start as at first; then set the state of the checkpoint."""
        if trainer.current_epoch > 0:
            _set_states(trainer, loaded["epoch_start"])
        self._epoch_start = loaded["epoch_start"]
        hooks = RepeatedHooks(trainer, quiet=(RandomStates,))

        def go_on() -> None:
            hooks.undo()
            earlier = loaded.get("so_far", {})
            set_metrics(pl_module, earlier)
            self._logged_earlier = dict(earlier.get("logged", {}))
            add_logged(trainer, self._logged_earlier, is_new=False)  # by the hooks
            _drop_batches(trainer)
            _set_states(trainer, loaded["now"])
            end_restart(trainer)

        after_hooks(pl_module, go_on)


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


def _drop_batches(trainer: Trainer) -> None:
    """Draw an epoch's batches again, up to the last that was trained on."""
    fetcher = _fetcher(trainer)
    progress = trainer.fit_loop.epoch_loop.batch_progress
    trained_on = 0 if progress.is_last_batch else progress.current.processed  # type: ignore[attr-defined]
    if trained_on and not all(map(_has_state, fetcher.combined_loader.flattened)):
        if trainer.current_epoch > 0:
            iter(fetcher)
        for _ in range(trained_on):
            next(fetcher)
        fetcher.fetched = 0  # Lightning adds the batches before the restart


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


def states_of_processes(trainer: Trainer) -> list[States]:
    """Return the states of the generators of all processes, by rank, for ``set_states_of_process``."""
    gathered = [_states(trainer)] * trainer.world_size
    if trainer.world_size > 1:
        torch.distributed.all_gather_object(gathered, gathered[0])
    return gathered


def set_states_of_process(trainer: Trainer, of_processes: list[States]) -> None:
    """Set the states of this process's generators, unless they are of another number of processes."""
    if len(of_processes) == trainer.world_size:
        _set_states(trainer, of_processes[trainer.global_rank])
