"""Pictures of a model of images (or of points): samples, reconstructions, traversals, interpolations."""

import io
import math
from typing import Any, cast, get_args

import PIL.Image
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.seed import isolate_rng
from lightning_utilities.core.rank_zero import rank_zero_warn
from matplotlib.figure import Figure
from PIL.Image import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image
from torchvision.utils import make_grid

from lit_bottleneck.callbacks.run import inputs_of, run_folder, value_range
from lit_bottleneck.checks import one_of, whole_number
from lit_bottleneck.functional import InterpolationMode
from lit_bottleneck.training.evaluating import evaluating
from lit_bottleneck.training.whole_file import whole_file

SMALLEST_TILE = 48  # pixels; smaller images are magnified
_REACH = 3.0  # of a traversal, in standard deviations of the prior
_NUM_POINTS = 2000  # of a scatter plot
_SEED = 0  # of the noise: the same in every epoch, so that pictures can be compared


class Pictures(Callback):
    """Draw pictures every few epochs, into TensorBoard and wandb loggers and as PNG files.

    - ``samples`` (of a module with ``sample``): from the same noise in every epoch. For points in the plane, a scatter
      plot of samples and examples, and no other picture.
    - ``reconstructions`` (``reconstruct``): originals, and below each its reconstruction.
    - ``traversal`` (``encode`` and ``decode``): the code of one example, with one dimension at a time moved from -3 to
      3. The dimensions of the highest rate come first (for a deterministic code, of the highest variance).
    - ``interpolation`` (``interpolate``): from one example to another; for a GAN, from one draw of noise to another.

    The files are ``pictures/NAME-EPOCH.png`` in the run's folder. Examples are the first of the validation data (of the
    training data, if there is no validation).

    Args:
        every_n_epochs: epochs between pictures; the last epoch is drawn too.
        num_images: examples in a picture, and rows of a traversal and an interpolation.
        steps: points of a traversal and of an interpolation.
        mode: of interpolation, see ``functional.interpolate``.

    Raises:
        ConfigurationError: for numbers below 1 (``steps`` below 2), or an unknown mode.
    """

    def __init__(
        self,
        every_n_epochs: int = 5,
        num_images: int = 8,
        steps: int = 11,
        mode: InterpolationMode = "variance_preserving",
    ) -> None:
        self.every_n_epochs = whole_number("every_n_epochs", every_n_epochs, at_least=1)
        self.num_images = whole_number("num_images", num_images, at_least=1)
        self.steps = whole_number("steps", steps, at_least=2)
        self.mode = one_of("mode", mode, get_args(InterpolationMode))

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *loader: int
    ) -> None:
        """Draw with the weights that are validated (which may be averaged)."""
        if batch_idx == 0 and not any(loader) and self._is_due(trainer):
            self._draw(trainer, pl_module, batch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw at the end of the epoch, if there is no validation."""
        if trainer.is_last_batch and not sum(trainer.num_val_batches) and self._is_due(trainer):
            self._draw(trainer, pl_module, batch)

    def _is_due(self, trainer: Trainer) -> bool:
        epoch = trainer.current_epoch + 1
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        return fitting and (epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs)

    def _draw(self, trainer: Trainer, module: LightningModule, batch: Any) -> None:
        if not trainer.is_global_zero:
            return
        with isolate_rng():
            torch.manual_seed(_SEED)
            examples = inputs_of(module, batch)
            pictures = self.pictures(module, examples)
        for name, rows in pictures.items():
            if rows.dim() == 2:
                self._show(trainer, name, point_plot(rows, examples))
            elif rows.dim() == 5 and rows.shape[2] in (1, 3):
                self._show(trainer, name, image_grid(rows, value_range(trainer, module) or (0.0, 1.0)))
            else:
                shape = tuple(rows.shape[2:])
                rank_zero_warn(f"Pictures draws images (C, H, W) of 1 or 3 channels; {name} are {shape}")

    def pictures(self, module: Any, x: Tensor) -> dict[str, Tensor]:
        """Compute the pictures that the module can show, by name.

        Args:
            module: with any of ``sample``, ``reconstruct``, ``encode`` and ``decode``, ``interpolate`` (between draws
                of ``draw_noise``, if it has that).
            x: examples ``(B, C, H, W)``, or points ``(B, 2)``.

        Returns:
            Images ``(rows, columns, C, H, W)``, or points ``(N, 2)``.
        """
        if x.shape[1:] == (2,) and hasattr(module, "sample"):
            return {"samples": module.sample(_NUM_POINTS)}
        x = x[: self.num_images]
        pictures = {}
        if hasattr(module, "sample"):
            pictures["samples"] = module.sample(self.num_images**2).unflatten(0, (self.num_images, self.num_images))
        if hasattr(module, "reconstruct"):
            pictures["reconstructions"] = torch.stack([x, module.reconstruct(x)])
        if hasattr(module, "encode") and hasattr(module, "decode"):
            pictures["traversal"] = self._traversal(module, x)
        if hasattr(module, "interpolate"):
            ends = module.draw_noise(self.num_images) if hasattr(module, "draw_noise") else x
            paths = module.interpolate(ends, ends.roll(-1, 0), self.steps, self.mode)
            pictures["interpolation"] = paths.transpose(0, 1)
        return pictures

    @torch.no_grad()
    def _traversal(self, module: Any, x: Tensor) -> Tensor:
        with evaluating(module):
            code = module.encode(x, sample=False)
            use = code.kl.mean(0) if code.kl.any() else code.mean.var(0)  # a deterministic code has rate 0
            dimensions = use.argsort(descending=True)[: self.num_images]
            z = code.mean[0].repeat(len(dimensions), self.steps, 1)
            for row, dimension in enumerate(dimensions):
                z[row, :, dimension] = torch.linspace(-_REACH, _REACH, self.steps)
            return cast(Tensor, module.decode(z.flatten(0, 1).to(x.dtype)).unflatten(0, z.shape[:2]))

    def _show(self, trainer: Trainer, name: str, image: Image) -> None:
        with whole_file(run_folder(trainer) / "pictures" / f"{name}-{trainer.current_epoch + 1:04d}.png") as file:
            image.save(file)
        log_image(trainer, f"pictures/{name}", image)


def log_image(trainer: Trainer, name: str, image: Image) -> None:
    """Log an image into the trainer's TensorBoard and wandb loggers."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(name, [image], step=trainer.global_step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, pil_to_tensor(image), trainer.global_step)


def image_grid(rows: Tensor, value_range: tuple[float, float] = (0.0, 1.0)) -> Image:
    """Arrange images in a grid.

    Args:
        rows: ``(rows, columns, C, H, W)``, 1 or 3 channels.
        value_range: black and white; pixels outside are clamped, and rounded to the nearest of 256 levels.
    """
    low, high = value_range
    images = ((rows.flatten(0, 1).float().cpu() - low) / (high - low)).clamp(0, 1)
    magnification = math.ceil(SMALLEST_TILE / min(images.shape[-2:]))
    images = images.repeat_interleave(magnification, -2).repeat_interleave(magnification, -1)
    grid = make_grid(images, nrow=rows.shape[1], pad_value=0.5)
    return cast(Image, to_pil_image(grid.mul(255).round().to(torch.uint8)))  # of floats it drops the fraction


def point_plot(samples: Tensor, examples: Tensor | None = None) -> Image:
    """Plot samples ``(N, 2)``, and over them examples ``(M, 2)``, if given; these set the window."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot(aspect="equal")
    for label, given in (("samples", samples), ("examples", examples)):
        if given is not None:
            points = given.float().cpu()
            x, y = points.unbind(1)
            axes.scatter(x, y, s=4, alpha=0.5, linewidths=0, label=label)
    if examples is not None:
        low, high = points.amin(0), points.amax(0)
        margin = 0.25 * (high - low).max()
        window = torch.stack([low - margin, high + margin], 1).tolist()
        axes.set(xlim=window[0], ylim=window[1])
        axes.legend()
    return rendered_figure(figure)


def rendered_figure(figure: Figure) -> Image:
    """Return a figure of matplotlib as an image."""
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return PIL.Image.open(png).convert("RGB")
