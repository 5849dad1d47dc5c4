"""The command ``demonstrate``."""

from pathlib import Path

import numpy as np
import pytest

from lit_bottleneck.cli import main
from lit_bottleneck.data.demonstrations import record
from lit_bottleneck.data.environments import make_environment
from lit_bottleneck.data.episodes import read_episodes
from lit_bottleneck.data.experts import swing_up
from tests.cli.commands import refusal

COMMAND = ["demonstrate", "--environment", "Pendulum-v1", "--expert", "lit_bottleneck.data.experts.swing_up"]


def test_it_writes_the_episodes_of_an_expert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "pendulum.npz"
    main([*COMMAND, "--episodes", "2", "--seed", "5", "--out", str(out)])
    written, expected = read_episodes(out), record(make_environment("Pendulum-v1"), swing_up, 2, seed=5)
    assert all(np.array_equal(one, other) for one, other in zip(written, expected, strict=True))
    assert expected.returns is not None
    assert f"(2 episodes, 400 steps, mean return {expected.returns.mean():.1f}, from " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--episodes", "0"], "--episodes: must be at least 1; got 0"),
        (["--seed", "-1"], "--seed: must be at least 0"),
        (["--out", "pendulum.pkl"], "--out: must end in .npz"),
        (["--environment", "NoSuch-v0"], "--environment: environment='NoSuch-v0' is not registered"),
        (["--expert", "lit_bottleneck.data.experts.nobody"], "--expert: expert='lit_bottleneck.data.experts.nobody'"),
        (["--expert", "builtins.len"], "--expert: the expert must return actions of Box"),
    ],
)
def test_bad_arguments_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refusal([*COMMAND, *arguments], capsys)
