"""A learnt reward of places in the plane, as a heat map."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from matplotlib.figure import Figure
from PIL.Image import Image

from lit_bottleneck.callbacks.pictures import log_image, rendered_figure
from lit_bottleneck.callbacks.run import of_data, run_folder
from lit_bottleneck.checks import ConfigurationError, whole_number
from lit_bottleneck.training.whole_file import whole_file


class RewardMap(Callback):
    """Draw the reward that a module has learnt over the places of an environment, at the end of a training and a test.

    The module has ``reward(observations)``, such as ``VAIRL`` and ``FrozenReward``; the datamodule is a
    ``data.Rollouts`` whose observations are places ``(2,)`` within finite bounds. Walls and goal are drawn where the
    environment has them (``walls``: height, left and right end of each; ``goal``), and the paths of the policy's
    episodes after a test. The file is ``pictures/reward-EPOCH.png`` (after a test ``reward-CHECKPOINT.png``) in the
    run's folder; TensorBoard and wandb loggers get the picture too.

    Args:
        resolution: places along each side.

    Raises:
        ConfigurationError: for less than 2 places; in ``setup``, for another module or other observations.
    """

    def __init__(self, resolution: int = 100) -> None:
        self.resolution = whole_number("resolution", resolution, at_least=2)
        self._folder: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what has no such map."""
        if stage == "fit":
            self._folder = None  # of an earlier run
        dims = of_data(trainer, "observation_dims")
        if dims != (2,) or of_data(trainer, "make_environment") is None:
            raise ConfigurationError(f"RewardMap needs data.Rollouts with observations (2,); got {dims}")
        module: Any = pl_module
        if not hasattr(module, "reward"):
            raise ConfigurationError(f"RewardMap needs a module with a reward; got {type(module).__name__}")
        module.reward(np.zeros((1, 2), np.float32))  # which refuses observations without actions, if it needs these

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the reward as it is."""
        self._draw(trainer, pl_module, f"{trainer.current_epoch:04d}")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the reward of the checkpoint."""
        self._draw(trainer, pl_module, Path(trainer.ckpt_path).stem if trainer.ckpt_path else "test")

    def _draw(self, trainer: Trainer, module: LightningModule, label: str) -> None:
        if not trainer.is_global_zero:
            return
        if trainer.loggers or self._folder is None:  # a test of further checkpoints has none
            self._folder = run_folder(trainer) / "pictures"
        played = of_data(trainer, "played")
        paths = [] if played is None else np.split(played.observations, np.cumsum(played.lengths)[:-1])
        image = reward_map(module, of_data(trainer, "make_environment")().unwrapped, self.resolution, paths)
        with whole_file(self._folder / f"reward-{label}.png") as file:
            image.save(file)
        log_image(trainer, "pictures/reward", image)


def reward_map(module: Any, environment: Any, resolution: int = 100, paths: Any = ()) -> Image:
    """Plot the reward over an environment's places.

    Args:
        module: with ``reward(observations)``.
        environment: whose observations are places ``(2,)``.
        resolution: places along each side.
        paths: places ``(N, 2)`` of each episode that is drawn too.
    """
    (left, bottom), (right, top) = environment.observation_space.low, environment.observation_space.high
    x, y = np.meshgrid(np.linspace(left, right, resolution), np.linspace(bottom, top, resolution))
    places = np.stack([x.ravel(), y.ravel()], 1).astype(np.float32)
    reward = module.reward(places).cpu().numpy().reshape(resolution, resolution)
    figure = Figure(figsize=(4, 3.4), layout="constrained")
    axes = figure.add_subplot(aspect="equal")
    shown = axes.imshow(reward, origin="lower", extent=(left, right, bottom, top), cmap="viridis")
    figure.colorbar(shown, label="reward")
    for path in paths:
        axes.plot(*path.T, color="white", linewidth=0.7, alpha=0.5)
    for height, begin, end in getattr(environment, "walls", ()):
        axes.plot([begin, end], [height, height], color="black", linewidth=4, solid_capstyle="butt")
    if hasattr(environment, "goal"):
        axes.plot(*environment.goal, color="red", marker="*", markersize=12)
    axes.set(xticks=[], yticks=[], xlim=(left, right), ylim=(bottom, top))
    return rendered_figure(figure)
