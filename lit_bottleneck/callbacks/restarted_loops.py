"""Lightning's loops as training restarts from a checkpoint.

How far a loop has come, and at which stage it restarts, is told by attributes without an underscore of classes that
Lightning does not document.
"""

from typing import Any

from lightning import Trainer


def as_between_epochs(fit_loop: dict[str, Any]) -> None:
    """Change the state of a loop that is about to begin an epoch to that of one that has completed the last."""
    for count in fit_loop["epoch_progress"].values():
        count["ready"] = min(count["ready"], count["started"])


def continues_epoch(trainer: Trainer) -> bool:
    """Whether a restarted training continues an epoch, rather than begins the next one."""
    epochs: Any = trainer.fit_loop.epoch_progress.current
    return trainer.fit_loop.restarted_mid_epoch and epochs.started > epochs.processed


def begin_epoch_again(trainer: Trainer) -> None:
    """Let Lightning call the hooks of the epoch's start, whether it continues an epoch or begins the next one.

    Called in ``on_train_start``. Lightning's loop would leave them out in an epoch that it continues, and also in the
    one that follows a checkpoint of the last batch.
    """
    loop = trainer.fit_loop
    progress: Any = loop.epoch_progress
    if continues_epoch(trainer):
        for count in (progress.total, progress.current):
            count.ready -= 1
            count.started -= 1
        loop.reset_restart_stage()
    elif loop.restarted_mid_epoch:
        loop.reset_restart_stage()
    elif loop.restarting:  # from the end of an epoch, with max_steps: its end would come again
        progress.current.completed = progress.current.processed
        progress.total.completed = progress.total.processed
        loop.on_iteration_done()
        loop.epoch_loop.on_iteration_done()


def end_restart(trainer: Trainer) -> None:
    """Step ``ReduceLROnPlateau`` after the batch of the checkpoint and at the end of the epoch, as in any other.

    Lightning steps it after a batch's checkpoint, and not at all at the end of an epoch that it continues.
    """
    loop = trainer.fit_loop
    if loop.epoch_loop.restarted_on_train_batch_end:
        loop.epoch_loop.update_lr_schedulers("step", update_plateau_schedulers=True)
    loop.on_iteration_done()
