"""The last save of a ``ModelCheckpoint``, which it leaves out of its state.

Without it a resumed run may write ``last.ckpt`` once more at its end, write the same step twice, or leave out a
checkpoint that waits for a validation. The attributes are private; Lightning has no other access to them.
"""

from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

_REMEMBERED = ("_last_global_step_saved", "_last_checkpoint_saved", "_defer_save_until_validation")


def remembered(trainer: Trainer) -> dict[str, dict[str, Any]]:
    """Return what each ``ModelCheckpoint`` remembers, by the key of its state."""
    return {
        one.state_key: {name: getattr(one, name) for name in ("dirpath", *_REMEMBERED) if hasattr(one, name)}
        for one in trainer.checkpoint_callbacks
        if isinstance(one, ModelCheckpoint)
    }


def remember(trainer: Trainer, saved: dict[str, dict[str, Any]]) -> None:
    """Let each ``ModelCheckpoint`` remember its last save, if it still writes to the same folder."""
    for one in trainer.checkpoint_callbacks:
        state = saved.get(one.state_key, {})
        if isinstance(one, ModelCheckpoint) and state.get("dirpath") == one.dirpath:
            vars(one).update({name: state[name] for name in _REMEMBERED if name in state})
