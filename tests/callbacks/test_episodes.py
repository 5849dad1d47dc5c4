"""Episodes of a policy: what a test logs of them, and what is drawn of them beside the expert's."""

import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from lightning import seed_everything
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_bottleneck import VAIL
from lit_bottleneck.callbacks import Episodes
from lit_bottleneck.data import Demonstrations, Digits, Rollouts
from lit_bottleneck.networks import MLP
from tests.callbacks.small_models import classifier
from tests.data.walks import Walk, right, vail, walks
from tests.quiet import trainer as quiet


class FilmedWalk(Walk):
    """A walk whose pictures are brighter with each step."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, fails: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.render_mode, self.fails = render_mode, fails

    def reset(self, **kwargs: Any) -> Any:
        self.steps = 0
        return super().reset(**kwargs)

    def step(self, action: int) -> Any:
        self.steps += 1
        return super().step(action)

    def render(self) -> np.ndarray:
        if self.fails:
            raise OSError("no OpenGL\nat all")
        return np.full((32, 48, 3), 30 * self.steps, np.uint8)


gymnasium.register("FilmedWalk-v0", FilmedWalk, max_episode_steps=7)
gymnasium.register("FilmedOddWalk-v0", FilmedWalk, max_episode_steps=7, kwargs={"repeats": False})


def fit(folder: Path, data: Any, episodes: Callback, model: Any = None, **kwargs: Any) -> tuple[Any, Any]:
    seed_everything(1, verbose=False)
    model = vail() if model is None else model
    run = quiet(callbacks=[episodes], **{"logger": CSVLogger(folder, "run"), "log_every_n_steps": 1} | kwargs)
    run.fit(model, datamodule=data)
    return run, model


def pictures(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "run/version_0/pictures").iterdir())


def test_a_test_logs_the_policys_episodes_and_the_discriminator_on_them(tmp_path: Path) -> None:
    data = walks("FilmedWalk-v0", environment_kwargs={"goal": 1.0}, test_episodes=5)
    run, model = fit(tmp_path, data, Episodes(None), vail(form="airl"))
    [measured] = run.test(model, datamodule=data, verbose=False)
    played = data.played
    assert played is not None
    assert len(played.lengths) == 5
    assert len(set(played.lengths.tolist())) > 1
    assert measured["test/return"] == pytest.approx(played.lengths.mean())  # a reward of 1 each step
    assert measured["test/episode_length"] == pytest.approx(played.lengths.mean())
    assert all(data.act(seen) == taken[0] for seen, taken in zip(played.observations, played.actions, strict=True))
    halves = [torch.from_numpy(one.observations).float() for one in (data.expert, played)]
    logits = [model(x, torch.from_numpy(e.actions)) for x, e in zip(halves, (data.expert, played), strict=True)]
    parts = [(one > 0) == is_expert for one, is_expert in zip(logits, (True, False), strict=True)]
    accuracy = sum(part.float().mean().item() for part in parts) / 2
    assert measured["test/accuracy"] == pytest.approx(accuracy, abs=0.05)  # batches may differ by a row


def test_a_test_restores_the_policy_alone(tmp_path: Path) -> None:
    """A run on other environments, of another number, has the same policy; nothing is said of their state."""
    data = walks("OddWalk-v0")
    run, _ = fit(tmp_path, data, Callback(), vail(form="airl"))
    run.save_checkpoint(tmp_path / "last.ckpt")
    other = walks("OddWalk-v0", num_environments=3)
    again = quiet()
    again.test(vail(form="airl"), datamodule=other, ckpt_path=tmp_path / "last.ckpt", verbose=False, weights_only=True)
    for one, same in zip(
        data.learner.algorithm.policy.parameters(), other.learner.algorithm.policy.parameters(), strict=True
    ):
        assert torch.equal(one, same)


def test_a_film_and_a_strip_show_expert_and_policy(tmp_path: Path) -> None:
    data = walks("FilmedWalk-v0")
    run, model = fit(tmp_path, data, Episodes(columns=4, height=32))
    run.save_checkpoint(tmp_path / "best.ckpt")
    run.test(model, datamodule=data, ckpt_path=tmp_path / "best.ckpt", verbose=False, weights_only=True)
    run.loggers = []  # as in the test of a further checkpoint
    run.test(model, datamodule=data, verbose=False)
    stems = [f"episodes-{label}" for label in ("0001", "best", "test")]
    assert pictures(tmp_path) == sorted(f"{stem}.{end}" for stem in stems for end in ("gif", "png"))
    folder = tmp_path / "run/version_0/pictures"
    strip = np.asarray(Image.open(folder / "episodes-0001.png"))
    assert strip.shape == (2 * 48, 4 * 48, 3)  # rows of a caption of 16 pixels and a frame of 32
    for row in (0, 48):
        assert strip[row + 30, 24::48, 0].tolist() == [0, 60, 150, 210]  # steps 0, 2, 5 and 7
    film = Image.open(folder / "episodes-0001.gif")
    assert (film.n_frames, film.info["duration"], film.size) == (8, 100, (96, 48))
    for index in range(8):
        film.seek(index)
        shown = np.asarray(film.convert("RGB"))
        np.testing.assert_allclose(shown[30, [24, 72], 0], 30 * index, atol=3)


def test_long_episodes_are_filmed_every_few_steps(tmp_path: Path) -> None:
    fit(tmp_path, walks("FilmedWalk-v0"), Episodes(frames=3, height=32))
    film = Image.open(tmp_path / "run/version_0/pictures/episodes-0001.gif")
    assert (film.n_frames, film.info["duration"]) == (4, 300)  # steps 0, 3, 6, and the end


def test_an_mp4_is_written_where_the_name_ends_so(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    from imageio import v3 as imageio

    fit(tmp_path, walks("FilmedWalk-v0"), Episodes("films.mp4", height=32))
    frames = imageio.imread(tmp_path / "run/version_0/pictures/films-0001.mp4")
    assert frames.shape[1:] == (48, 96, 3)
    np.testing.assert_allclose(frames[-1, 30, [24, 72], 0], 210, atol=12)


@pytest.mark.parametrize(
    ("name", "kwargs", "reason"),
    [
        ("Walk-v0", {}, "it has no render mode rgb_array"),
        ("FilmedWalk-v0", {"environment_kwargs": {"fails": True}}, "rendering raises OSError: no OpenGL$"),
    ],
)
def test_without_rendering_the_observations_are_drawn(
    name: str, kwargs: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    told = f"the episode of the expert is drawn from its observations: {reason}"
    with pytest.warns(UserWarning, match=told) as caught:
        run, _ = fit(tmp_path, walks(name, **kwargs), Episodes())
    assert sum("is drawn from" in str(warning.message) for warning in caught) == 1
    assert run.state.finished
    assert pictures(tmp_path) == ["episodes-0001.png"]


def test_an_expert_that_cannot_be_repeated_is_drawn_from_its_observations(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="expert is drawn from its observations: its actions come to other obs"):
        fit(tmp_path, walks("FilmedOddWalk-v0"), Episodes(height=32))
    film = Image.open(tmp_path / "run/version_0/pictures/episodes-0001.gif")
    assert film.size == (48, 48)  # the policy alone
    walk = Rollouts("FilmedWalk-v0", Demonstrations(expert=right, actions=False), num_environments=1, num_steps=64)
    with pytest.warns(UserWarning, match="have no actions or no seeds"):
        fit(tmp_path, walk, Episodes(), VAIL(MLP(1, [8], 4), 2, sees="state"))


def test_tensorboard_gets_the_strip(tmp_path: Path) -> None:
    fit(tmp_path, walks("FilmedWalk-v0"), Episodes(height=32), logger=TensorBoardLogger(tmp_path, "tb"))
    events = EventAccumulator(str(next(tmp_path.rglob("events.out*")).parent)).Reload()
    assert events.Tags()["images"] == ["pictures/episodes"]


@pytest.mark.slow
def test_wandb_gets_the_strip_and_the_film(tmp_path: Path) -> None:
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    fit(tmp_path, walks("FilmedWalk-v0"), Episodes(height=32), logger=logger)
    summary = logger.experiment.summary
    assert Path(summary["pictures/animation"]["videos"][0]["path"]).suffix == ".gif"
    assert summary["pictures/episodes"]["count"] == 1
    logger.experiment.finish()


def test_what_is_wrong_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("episodes.avi", "films/episodes.gif", "mp4"):
        with pytest.raises(ValueError, match=r"animation must be a file name that ends in \.gif or \.mp4; got"):
            Episodes(name)
    with pytest.raises(ValueError, match="frames must be a whole number"):
        Episodes(frames=0)
    with pytest.raises(ValueError, match=r"Episodes needs a datamodule with a policy, .* got Digits"):
        fit(tmp_path, Digits(), Episodes(), classifier())
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)  # as where it is not there
    with pytest.raises(ImportError, match=r"pip install imageio\[ffmpeg\]"):
        Episodes("episodes.mp4")
