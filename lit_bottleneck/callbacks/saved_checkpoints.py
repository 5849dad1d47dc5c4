"""The last save of a ``ModelCheckpoint``, which it leaves out of its state.

Without it a resumed run may write ``last.ckpt`` once more at its end, write the same step twice, or leave out a
checkpoint that waits for a validation. The attributes are private; Lightning has no other access to them.
"""

from pathlib import Path
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


def forget_missing(trainer: Trainer, states: dict[str, Any]) -> None:
    """Let no ``ModelCheckpoint`` count on a file that is gone, since a better one replaced it before the run was cut.

    Training is about to find the better one again. Where it does not (on a GPU that is not deterministic), the best of
    the run would be a file that does not exist.

    Args:
        trainer: the trainer.
        states: the states of callbacks, by key, before they are loaded; changed in place.
    """
    for one in trainer.checkpoint_callbacks:
        state = states.get(one.state_key)
        if not isinstance(one, ModelCheckpoint) or not state:
            continue
        scores = state.get("best_k_models", {})
        named = {*scores, state["best_model_path"]} - {""}
        gone = [path for path in sorted(named) if "://" not in path and not Path(path).exists()]
        gone = trainer.strategy.broadcast(gone)  # of the first process, so that all decide alike
        scores = {path: score for path, score in scores.items() if path not in gone}
        states[one.state_key] = state = {**state, "best_k_models": scores}
        if state["best_model_path"] in gone:
            best = (min if one.mode == "min" else max)(scores, key=scores.__getitem__, default="")
            state |= {"best_model_path": best, "best_model_score": scores.get(best)}
