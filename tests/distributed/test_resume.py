"""Two processes that were stopped go on as if they had not been: the noise and the rows of each, and beta."""

from pathlib import Path
from typing import Any

import pytest

from lit_bottleneck.callbacks import RandomStates
from tests.distributed.pool import Pool
from tests.resuming.test_exact_resume import Data, Keep, assert_same, gan, state, train, vae, vib

MODELS = {"vib": vib, "vae": vae, "gan": gan}


def trained(rank: int, kind: str, folder: Path | None, path: Path | None) -> dict[str, Any]:
    keep = Keep(folder)
    strategy = "ddp_find_unused_parameters_true" if kind == "gan" else "ddp"
    kwargs = {"devices": 2, "strategy": strategy, "ckpt_path": path}
    model, trainer = train(MODELS[kind], Data(), [RandomStates(), keep], **kwargs)
    return {"state": state(model, trainer), "seen": keep.seen, "logged": keep.logged}


@pytest.mark.parametrize("kind", MODELS)
def test_from_the_end_of_a_batch(kind: str, pool: Pool, tmp_path: Path) -> None:
    whole = pool(trained, kind, tmp_path, None)
    assert len(whole[0]["seen"]) == 18
    assert whole[0]["seen"] != whole[1]["seen"]
    for epoch, batch in [(0, 2), (1, 3)]:
        rest = pool(trained, kind, None, tmp_path / f"batch-{epoch}-{batch}.ckpt")
        for found, expected in zip(rest, whole, strict=True):
            assert found["seen"] == expected["seen"][6 * epoch + batch + 1 :]
            assert_same(found["state"], expected["state"])
            assert found["logged"] == expected["logged"][len(expected["logged"]) - len(found["logged"]) :]
