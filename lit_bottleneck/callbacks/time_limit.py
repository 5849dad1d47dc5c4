"""A time limit that ends an epoch before its last batch: nothing of the epoch's end may happen."""

from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Timer
from lightning_utilities.core.rank_zero import rank_zero_info


class TimeLimit:
    """Let an epoch that a ``Timer`` (``max_time``) cuts end without validation and without the hooks of its end.

    Lightning would validate in the middle of the epoch, and ``best.ckpt`` might become that of the cut.
    """

    def __init__(self) -> None:
        self._limit_val_batches: Any = None  # while validation is turned off

    def after_batch(self, trainer: Trainer) -> None:
        """Turn off a validation that is due for no other reason than the cut."""
        if cuts_epoch(trainer):
            trainer.should_stop = False
            loop: Any = trainer.fit_loop
            is_due = loop.epoch_loop._should_check_val_fx(loop._data_fetcher)  # private, as in ``is_under_way``
            trainer.should_stop = True
            if not is_due:
                self._limit_val_batches, trainer.limit_val_batches = trainer.limit_val_batches, 0

    def after_epoch(self, trainer: Trainer) -> None:
        """End the training before any other callback treats the epoch as complete.

        Raises:
            StopIteration: if the epoch was cut; Lightning's loop ends with it as at its last epoch.
        """
        if self._limit_val_batches is not None:
            trainer.limit_val_batches, self._limit_val_batches = self._limit_val_batches, None
        if cuts_epoch(trainer):
            rank_zero_info(f"the time limit ended epoch {trainer.current_epoch} before its end: it is not validated")
            raise StopIteration


def cuts_epoch(trainer: Trainer) -> bool:
    """Whether a time limit ends the training after this batch, which is not the epoch's last."""
    return is_over(trainer) and not trainer.is_last_batch and trainer.fit_loop.epoch_loop.done


def is_over(trainer: Trainer) -> bool:
    """Whether a time limit has been reached before training is complete, and training been told to stop."""
    loop = trainer.fit_loop
    if 0 <= loop.max_steps <= trainer.global_step or 0 <= (loop.max_epochs or -1) <= trainer.current_epoch:
        return False
    timers = [one for one in trainer.callbacks if isinstance(one, Timer)]  # type: ignore[attr-defined]
    left = [timer.time_remaining() for timer in timers]
    return trainer.should_stop and any(seconds is not None and seconds <= 0 for seconds in left)
