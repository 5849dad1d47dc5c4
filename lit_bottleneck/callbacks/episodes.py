"""Episodes of a policy: their return, and pictures of them beside those of an expert."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.seed import isolate_rng
from lightning_utilities.core.rank_zero import rank_zero_warn
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from lit_bottleneck.callbacks.pictures import log_image, rendered_figure
from lit_bottleneck.callbacks.run import run_folder
from lit_bottleneck.checks import ConfigurationError, whole_number
from lit_bottleneck.training.whole_file import whole_file

_CAPTION = 16  # pixels, above each frame
_MULTIPLE = 16  # of a side, as codecs of films want it
_CURVES = 12  # numbers of an observation that are drawn


class Episodes(Callback):
    """Log the return of a policy's episodes in a test, and draw episodes beside an expert's.

    The datamodule is a ``data.PolicyEpisodes``, such as ``data.Rollouts``. A test logs ``test/return`` and
    ``test/episode_length``, means over ``test_episodes`` of the policy without noise. At the end of a training and in a
    test, the expert's first episode and one of the policy from the same start are drawn side by side as an animation,
    and below each other as a strip, into the folder ``pictures`` of the run, and into TensorBoard (the strip) and wandb
    loggers. Where the environment renders nothing without a screen, or the expert's episode cannot be repeated (its
    demonstrations need ``actions`` and ``seeds``), one line says so, and the strip shows the observations as curves.

    Args:
        animation: name of the animation, which ends in .gif or .mp4 (``pip install imageio[ffmpeg]``). None: no
            animation.
        frames: of an animation, for the expert's episode; at most.
        columns: frames of a strip.
        height: of a frame, in pixels.

    Raises:
        ConfigurationError: for numbers below 1, another name, and, in ``setup``, a datamodule without a policy.
        ImportError: for an .mp4 without imageio's ffmpeg.
    """

    def __init__(
        self, animation: str | None = "episodes.gif", frames: int = 100, columns: int = 8, height: int = 160
    ) -> None:
        self.animation = None if animation is None else _animation(animation)
        self.frames = whole_number("frames", frames, at_least=1)
        self.columns = whole_number("columns", columns, at_least=1)
        self.height = whole_number("height", height, at_least=1)
        self._folder: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse data without a policy."""
        if stage == "fit":
            self._folder = None  # of an earlier run
        data = _data(trainer)
        if not hasattr(data, "films"):
            got = "no datamodule" if data is None else type(data).__name__
            raise ConfigurationError(f"Episodes needs a datamodule with a policy, such as data.Rollouts; got {got}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the policy as it is."""
        self._draw(trainer, f"{trainer.current_epoch:04d}")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the episodes that the data has played, or else plays now; draw."""
        data = _data(trainer)
        played = getattr(data, "played", None) or data.play()
        pl_module.log("test/return", float(played.returns.mean()))
        pl_module.log("test/episode_length", float(played.lengths.mean()))
        self._draw(trainer, Path(trainer.ckpt_path).stem if trainer.ckpt_path else "test")

    def _draw(self, trainer: Trainer, label: str) -> None:
        if not trainer.is_global_zero:
            return
        if trainer.loggers or self._folder is None:  # a test of further checkpoints has none
            self._folder = run_folder(trainer) / "pictures"
        with isolate_rng():
            films = dict(zip(("expert", "policy"), _data(trainer).films(self.frames, self.height), strict=True))
        for name, film in films.items():
            if film.problem:
                rank_zero_warn(f"the episode of the {name} is drawn from its observations: {film.problem}")
                break
        is_filmed = all(film.frames for film in films.values())
        strip = strip_of(films, self.columns) if is_filmed else curves_of(films)
        with whole_file(self._folder / f"episodes-{label}.png") as file:
            strip.save(file)
        log_image(trainer, "pictures/episodes", strip)
        filmed = {name: film for name, film in films.items() if film.frames}
        if self.animation and filmed:
            path = self._folder / f"{Path(self.animation).stem}-{label}{Path(self.animation).suffix}"
            with whole_file(path) as file:
                write_animation(file, filmed)
            for logger in trainer.loggers:
                if isinstance(logger, WandbLogger):
                    name, format = "pictures/animation", [path.suffix[1:]]
                    logger.log_video(name, [str(path)], step=trainer.global_step, format=format)


def strip_of(films: dict[str, Any], columns: int) -> Image.Image:
    """Return a row of frames for each film, from its first to its last, with its name and return."""
    rows = []
    for name, film in films.items():
        picked = np.linspace(0, len(film.frames) - 1, columns).round().astype(int)
        rows.append(_row([film.frames[index] for index in picked], [_caption(name, film)]))
    return _stack(rows)


def curves_of(films: dict[str, Any]) -> Image.Image:
    """Plot the numbers of the observations over time, one below the other; the first twelve."""
    rows = {name: film.episode.observations.reshape(len(film.episode.observations), -1) for name, film in films.items()}
    count = min(_CURVES, *(seen.shape[1] for seen in rows.values()))
    figure = Figure(figsize=(8, 1 + 1.2 * count), layout="constrained")
    axes = figure.subplots(count, sharex=True, squeeze=False)[:, 0]
    for index, one in enumerate(axes):
        for name, seen in rows.items():
            one.plot(seen[:, index], label=_caption(name, films[name]), linewidth=1)
        one.set_ylabel(f"observation {index}")
    axes[0].legend(loc="upper right")
    axes[-1].set_xlabel("step")
    return rendered_figure(figure)


def write_animation(path: Path, films: dict[str, Any]) -> None:
    """Write films side by side as a GIF or MP4; a shorter one stays at its end."""
    length = max(len(film.frames) for film in films.values())
    captions = [_caption(name, film) for name, film in films.items()]
    images = [
        _row([film.frames[min(index, len(film.frames) - 1)] for film in films.values()], captions)
        for index in range(length)
    ]
    seconds = max(film.seconds for film in films.values())
    if path.suffix == ".mp4":
        from imageio import v3 as imageio

        imageio.imwrite(path, np.stack([np.asarray(image) for image in images]), fps=1 / seconds)
    else:
        milliseconds = max(20, round(1000 * seconds))  # browsers slow down what is faster
        images[0].save(path, save_all=True, append_images=images[1:], duration=milliseconds, loop=0)


def _animation(name: str) -> str:
    if not name.endswith((".gif", ".mp4")) or Path(name).name != name:
        raise ConfigurationError(f"animation must be a file name that ends in .gif or .mp4; got {name!r}")
    if name.endswith(".mp4") and find_spec("imageio_ffmpeg") is None:
        raise ImportError(f"animation={name!r} needs the package imageio-ffmpeg: pip install imageio[ffmpeg], or .gif")
    return name


def _data(trainer: Trainer) -> Any:
    return getattr(trainer, "datamodule", None)


def _caption(name: str, film: Any) -> str:
    returns = film.episode.returns
    return name if returns is None else f"{name}, return {returns[0]:.1f}"


def _row(frames: list[Image.Image], captions: list[str]) -> Image.Image:
    """Return frames beside each other, captions above the first ones."""
    width, height = sum(frame.width for frame in frames), frames[0].height + _CAPTION
    row = Image.new("RGB", (-(-width // _MULTIPLE) * _MULTIPLE, -(-height // _MULTIPLE) * _MULTIPLE), "white")
    left = 0
    for index, frame in enumerate(frames):
        if index < len(captions):
            ImageDraw.Draw(row).text((left + 4, 2), captions[index], fill="black")
        row.paste(frame, (left, _CAPTION))
        left += frame.width
    return row


def _stack(rows: list[Image.Image]) -> Image.Image:
    image = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        image.paste(row, (0, top))
        top += row.height
    return image
