"""What a resumed run's ``ModelCheckpoint`` knows of files that are gone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_bottleneck.callbacks.saved_checkpoints import forget_missing
from tests import quiet


@pytest.mark.parametrize(
    ("mode", "there", "best"), [("min", "abc", "a"), ("min", "bc", "b"), ("max", "ab", "b"), ("max", "", "")]
)
def test_files_that_are_gone_are_forgotten(mode: str, there: str, best: str, tmp_path: Path) -> None:
    paths = {name: str(tmp_path / f"{name}.ckpt") for name in "abc"}
    for name in there:
        Path(paths[name]).touch()
    callback = ModelCheckpoint(tmp_path, monitor="val/loss", mode=mode, save_top_k=3)
    scores = {path: torch.tensor(float(score)) for score, path in enumerate(paths.values())}
    at_first = paths["a" if mode == "min" else "c"]
    state = {"best_k_models": scores, "best_model_path": at_first, "best_model_score": scores[at_first]}
    states: dict[str, Any] = {callback.state_key: state, "EarlyStopping": {"wait_count": 1}}
    forget_missing(quiet.trainer(enable_checkpointing=True, callbacks=[callback]), states)
    found = states[callback.state_key]
    assert list(found["best_k_models"]) == [paths[name] for name in there]
    assert found["best_model_path"] == paths.get(best, "")
    assert found["best_model_score"] == scores.get(paths.get(best, ""))
    assert len(scores) == 3
