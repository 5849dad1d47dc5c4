"""Random states and the position in the data, which Lightning's checkpoints do not hold.

Private attributes of Lightning are used where it has no public access: its data fetcher (the iterator over the training
batches), and whether it validates after a batch or resumes.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.trainer.states import TrainerFn
from lightning_utilities.core.rank_zero import rank_zero_warn

from lit_bottleneck.callbacks.epoch_so_far import add_logged, follow, set_metrics, so_far
from lit_bottleneck.callbacks.generator_states import States, drop_batches, fetcher_of, set_states, states_of
from lit_bottleneck.callbacks.repeated_hooks import RepeatedHooks, after_hooks, unfreeze
from lit_bottleneck.callbacks.restarted_loops import (
    as_between_epochs,
    begin_epoch_again,
    continues_epoch,
    end_restart,
)
from lit_bottleneck.callbacks.saved_checkpoints import forget_missing, remember, remembered
from lit_bottleneck.callbacks.time_limit import TimeLimit

_KEY, _SAVED = "random_states", "saved_checkpoints"
UNDER_WAY = "under_way"  # key in a checkpoint: whether it lacks something that an exact resume needs


class RandomStates(Callback):
    """Restore random states and the position in the data, so that a resumed run is bit-identical.

    Every checkpoint holds, for each process, the states of its random generators (torch on the CPU and on the process's
    device, numpy, Python, and the generators of the training loader and its sampler), both now and at the start of the
    epoch. On resume the epoch's batches are drawn again from the states at its start, those that were trained on are
    dropped, and the states of the checkpoint are set: order of the data, random numbers of loader workers and noise of
    the model continue, whatever the loader is. (A loader with a ``state_dict`` of its own continues by that.)

    An epoch that is continued begins again: the hooks of its start are called, with loggers that write nothing, and
    weights, optimizers, schedulers and the states of callbacks are then set to those of the checkpoint. Means and
    metrics of the epoch go on from what they had accumulated. (Weights that a strategy shards are not set again.)

    An epoch that a time limit (``Timer``, ``max_time``) cuts is not validated, and the hooks of its end are not called.

    Not restored: random numbers of loader workers that live longer than an epoch (``persistent_workers=True``), and a
    loader that depends on the epoch but is not made anew in each (``reload_dataloaders_every_n_epochs=2``). Not in a
    checkpoint either: accumulated gradients, a validation or what follows it at the end of an epoch, what a callback
    with ``is_under_way(trainer)`` says it holds (``SampleQuality``). A checkpoint written at such a moment is marked;
    that of ``ResumePoint`` never is.

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
        states = {"now": states_of(trainer), "epoch_start": self._epoch_start}
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
        forget_missing(trainer, checkpoint.get("callbacks", {}))
        of_ranks = checkpoint.get(_KEY, [])
        self._loaded = of_ranks[trainer.global_rank] if len(of_ranks) == trainer.world_size else None
        if of_ranks and self._loaded is None:
            other = f"was written by {len(of_ranks)} processes, and there are {trainer.world_size} now"
            rank_zero_warn(f"the checkpoint {other}: noise and order of the data are not continued")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the states from which the loader and the iterator of the first epoch are made."""
        if self._loaded is not None:
            warnings.filterwarnings("ignore", message=".*your dataloader is not resumable")
            set_states(trainer, self._loaded["epoch_start"])
        self._epoch_start = states_of(trainer)

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
            set_states(trainer, loaded["now"])
        if trainer.current_epoch > 0:
            self._epoch_start = states_of(trainer)
            if trainer.fit_loop.is_resuming:  # else Lightning uses the iterator it made before the states were set
                iter(fetcher_of(trainer))

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
            set_states(trainer, loaded["epoch_start"])
        self._epoch_start = loaded["epoch_start"]
        hooks = RepeatedHooks(trainer, quiet=(RandomStates,))

        def go_on() -> None:
            hooks.undo()
            earlier = loaded.get("so_far", {})
            set_metrics(pl_module, earlier)
            self._logged_earlier = dict(earlier.get("logged", {}))
            add_logged(trainer, self._logged_earlier, is_new=False)  # by the hooks
            drop_batches(trainer)
            set_states(trainer, loaded["now"])
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
        or trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher_of(trainer))
        or any(callback.is_under_way(trainer) for callback in holds)
    )
