"""Pictures of a run lie in its folder, also where the trainer has no logger for a while, or another run follows."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger

from lit_bottleneck import VAIL
from lit_bottleneck.callbacks import Episodes, RewardMap
from lit_bottleneck.data import Demonstrations, Rollouts
from lit_bottleneck.data.point_maze import c_expert
from lit_bottleneck.networks import MLP
from tests.quiet import trainer


def maze() -> Rollouts:
    demonstrations = Demonstrations(expert=c_expert, episodes=1)
    sizes: dict[str, Any] = {"num_environments": 1, "num_steps": 16, "test_episodes": 1, "learner": {"batch_size": 16}}
    return Rollouts("lit_bottleneck.data.point_maze:PointMaze-v0", demonstrations, **sizes)


@pytest.mark.parametrize("callback", [RewardMap(2), Episodes(None, frames=2, height=8)])
def test_pictures_of_further_tests_and_of_another_run_go_to_the_folder_of_the_run(
    callback: Callback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> list[str]:
        return sorted(path.relative_to(tmp_path).as_posix().rpartition("/")[0] for path in tmp_path.rglob("*.png"))

    monkeypatch.chdir(tmp_path)
    run, model, data = (
        trainer(logger=CSVLogger("runs"), callbacks=[callback]),
        VAIL(MLP(2, [4], 4), 2, sees="state"),
        maze(),
    )
    run.fit(model, data)
    run.loggers = []  # as in tests of further checkpoints
    run.test(model, data, verbose=False)
    first = ["runs/lightning_logs/version_0/pictures"] * 2
    assert found() == first
    trainer(logger=False, default_root_dir="other", callbacks=[callback]).fit(model, maze())
    assert found() == ["other/pictures", *first]
