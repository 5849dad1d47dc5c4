"""A reward of a checkpoint, from which a new policy learns: what it is, and that nothing of it moves."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lit_bottleneck import VAIL, VAIRL, FrozenReward
from lit_bottleneck.callbacks import RewardMap
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli import main
from lit_bottleneck.cli.recipes import recipe_paths
from lit_bottleneck.data import Demonstrations, Rollouts
from lit_bottleneck.data.point_maze import c_expert
from lit_bottleneck.networks import MLP
from tests.quiet import trainer

RECIPES = recipe_paths()
SHORT = [
    *["--trainer.max_epochs=2", "--trainer.log_every_n_steps=1", "--trainer.enable_progress_bar=false"],
    *["--trainer.enable_model_summary=false", "--data.init_args.num_environments=8", "--data.init_args.num_steps=25"],
    *["--data.init_args.test_episodes=2", "--data.init_args.demonstrations.init_args.episodes=2"],
    "--data.init_args.learner.batch_size=200",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the recipe of the maze has run, and then its transfer."""
    folder = tmp_path_factory.mktemp("maze")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("vairl_maze", "vairl_maze_transfer"):
            main(["fit", "--config", str(RECIPES[name]), *SHORT])
    return folder


def checkpoint(root: Path, name: str = "vairl_maze") -> Path:
    return root / "runs" / name / "version_0" / "checkpoints" / "last.ckpt"


def test_the_transfer_keeps_the_reward_and_trains_a_policy(root: Path) -> None:
    learnt = torch.load(checkpoint(root), weights_only=True)
    transfer = torch.load(checkpoint(root, "vairl_maze_transfer"), weights_only=True)
    for name, value in learnt["state_dict"].items():
        assert torch.equal(transfer["state_dict"][f"model.{name}"], value), name
    before, after = (one["Rollouts"]["learner"]["policy"] for one in (learnt, transfer))
    assert all(before[name].shape == after[name].shape for name in before)
    assert not torch.equal(before["action_net.weight"], after["action_net.weight"])
    rows = (root / "runs/vairl_maze_transfer/version_0/metrics.csv").read_text()
    assert "train/environment_steps" in rows
    assert "test/return" in rows


def test_both_draw_the_reward(root: Path) -> None:
    for name in ("vairl_maze", "vairl_maze_transfer"):
        pictures = root / "runs" / name / "version_0" / "pictures"
        assert {path.name for path in pictures.glob("reward-*")} == {"reward-0002.png", "reward-last.png"}


def test_its_reward_is_g_and_the_policy_gets_it_in_the_scale_of_its_first_epoch(root: Path) -> None:
    vairl, frozen = VAIRL.load_from_checkpoint(checkpoint(root), weights_only=True), FrozenReward(checkpoint(root))
    places = np.random.default_rng(0).uniform(-1, 1, (50, 2)).astype(np.float32)
    others = 1 - places
    g = vairl.reward(places)
    assert torch.equal(frozen.reward(places), g)
    first = frozen.policy_reward(places, None, others)
    torch.testing.assert_close(first, (g - g.mean()) / g.std(correction=0))
    later = frozen.policy_reward(others, None, places)
    torch.testing.assert_close(later, (vairl.reward(others) - g.mean()) / g.std(correction=0))
    assert not later.requires_grad


def test_demonstrations_need_no_actions(root: Path) -> None:
    demonstrations = Demonstrations(expert=c_expert, episodes=1, actions=False)
    sizes: dict[str, Any] = {"num_environments": 1, "num_steps": 16, "learner": {"batch_size": 16}}
    data = Rollouts("lit_bottleneck.data.point_maze:PointMaze-v0", demonstrations, **sizes)
    frozen = FrozenReward(checkpoint(root))
    trainer().fit(frozen, data)
    assert frozen.deviation > 0


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"checkpoint of VAIRL or VAIL; .* of VIBClassifier"):
        FrozenReward(Path(__file__).parents[1] / "before_the_move" / "vib_cli.ckpt")
    with pytest.raises(ConfigurationError, match=r"none\.ckpt"):
        FrozenReward(tmp_path / "none.ckpt")


@pytest.mark.parametrize(
    ("dims", "module", "words"),
    [
        ((3,), VAIRL(MLP(3, [4], 4), MLP(3, [4], 4), 2), r"observations \(2,\); got \(3,\)"),
        ((2,), nn.Linear(2, 1), "a module with a reward; got Linear"),
        ((2,), VAIL(MLP(4, [4], 4), 2), "sees='state_action' needs actions"),
    ],
)
def test_a_map_needs_places_and_a_reward_of_places(dims: tuple[int, ...], module: Any, words: str) -> None:
    trainer: Any = SimpleNamespace(datamodule=SimpleNamespace(observation_dims=dims, make_environment=object))
    with pytest.raises(ConfigurationError, match=words):
        RewardMap().setup(trainer, module, "fit")


def test_a_map_has_two_places_a_side_at_least() -> None:
    with pytest.raises(ConfigurationError, match="resolution"):
        RewardMap(resolution=1)
