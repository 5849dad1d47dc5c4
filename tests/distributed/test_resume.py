"""Two processes resume to the same noise, rows and beta as in an uninterrupted run."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from lit_bottleneck.callbacks import RandomStates
from tests.cli.resume.trainings import Data, Keep, assert_same, gan, state, train, vae, vib
from tests.distributed.pool import Pool

MODELS = {"vib": vib, "vae": vae, "gan": gan}


def trained(rank: int, kind: str, folder: Path | None, path: Path | None) -> dict[str, Any]:
    keep = Keep(folder)
    strategy = "ddp_find_unused_parameters_true" if kind == "gan" else "ddp"
    kwargs = {"devices": 2, "strategy": strategy, "ckpt_path": path}
    model, trainer = train(MODELS[kind], Data(), [RandomStates(), keep], **kwargs)
    return {"state": state(model, trainer), "seen": keep.seen, "logged": keep.logged}


def noise_after_resuming_a_run_of_one_process(rank: int, path: Path) -> float:
    class FirstNoise(Callback):
        def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
            self.drawn = float(torch.randn(()))
            trainer.should_stop = True

    first = FirstNoise()
    told = pytest.warns(UserWarning, match="was written by 1 processes, and there are 2 now")
    with told if rank == 0 else nullcontext():
        train(vib, Data(), [RandomStates(), first], devices=2, strategy="ddp", ckpt_path=path)
    return first.drawn


def test_two_processes_that_resume_a_run_of_one_draw_different_noise(pool: Pool, tmp_path: Path) -> None:
    train(vib, Data(), [RandomStates(), Keep(tmp_path)], max_epochs=1)
    one, other = pool(noise_after_resuming_a_run_of_one_process, tmp_path / "batch-0-4.ckpt")
    assert one != other


@pytest.mark.parametrize(
    "kind", [kind if kind == "vib" else pytest.param(kind, marks=pytest.mark.slow) for kind in MODELS]
)
def test_resuming_from_the_end_of_a_batch(kind: str, pool: Pool, tmp_path: Path) -> None:
    whole = pool(trained, kind, tmp_path, None)
    assert len(whole[0]["seen"]) == 18
    assert whole[0]["seen"] != whole[1]["seen"]
    for epoch, batch in [(0, 2), (1, 3)]:
        rest = pool(trained, kind, None, tmp_path / f"batch-{epoch}-{batch}.ckpt")
        for found, expected in zip(rest, whole, strict=True):
            assert found["seen"] == expected["seen"][6 * epoch + batch + 1 :]
            assert_same(found["state"], expected["state"])
            assert found["logged"] == expected["logged"][len(expected["logged"]) - len(found["logged"]) :]
